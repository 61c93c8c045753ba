"""The command line: one module a noun. Parses, calls, presents; decides nothing."""
