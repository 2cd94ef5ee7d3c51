"""For a file of your own: read it, ask whether a matched start is worth it, write one."""
