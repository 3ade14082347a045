"""Sessions of DuckDB, the truth of many tests: a database takes 30 ms, a session in one takes 1."""

from functools import cache

import duckdb


def session() -> duckdb.DuckDBPyConnection:
    """A session of its own: what is registered in it ends with it, and what is temporary."""
    return _database().cursor()


@cache
def _database() -> duckdb.DuckDBPyConnection:
    return duckdb.connect()
