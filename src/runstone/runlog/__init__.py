"""The files of a run: writing them without waiting, reading them without locks. Knows nothing of SQL or HTTP."""
