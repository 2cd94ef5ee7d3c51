"""Training runs, planned, run, recorded and compared."""
