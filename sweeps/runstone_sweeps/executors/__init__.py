"""Where trials run: what the coordinator asks of an executor, and the one of this machine."""
