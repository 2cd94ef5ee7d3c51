"""Data sets, fetched or generated, and tasks whose truth is known."""
