"""The `sweep` command line."""
