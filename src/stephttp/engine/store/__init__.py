"""The SQLite file: its threads and connections, its schema, and reading and writing its tables.

Code that turns rows into values and back belongs here. Decisions about runs do not (`rules`), nor
does the content of a transaction (`work`).
"""
