"""The index: an SQLite file derived from the run folders, and the only place that knows SQL.

`conditions` is what it can be asked, `schema` its tables, `ingest` reads run folders, `compile` turns
conditions into SQL, `store` holds the file. Deleting `index.sqlite` loses nothing and changes no answer.
"""
