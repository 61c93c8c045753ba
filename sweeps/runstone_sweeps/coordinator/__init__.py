"""The coordinator of a sweep: asks, starts, watches and settles trials, and writes the record."""
