"""Many rows with few statements: executing a statement costs more than a row of it."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain

import msgspec

_VALUES = re.compile(r"(?<=\bVALUES )\([^()]*\)")
_NAME = re.compile(r":\w+")

# Few, so that each connection keeps all of them prepared; the largest stays far below the number of
# parameters that SQLite allows (32,766).
_SIZES = (64, 32, 16, 8, 4, 2, 1)


def insert(connection: sqlite3.Connection, query: str, rows: Sequence[Sequence[object]]) -> None:
    """Insert rows in their order, as `executemany` does.

    Args:
        query: `INSERT ... VALUES (...)`, for one row; `ON CONFLICT` may follow.
        rows: values in the order of its parameters, whether these have names or not.
    """
    done = 0
    for size in _SIZES:
        while len(rows) - done >= size:
            part = rows[done : done + size]
            connection.execute(_repeated(query, size), tuple(chain.from_iterable(part)))
            done += size


def json_array(keys: Iterable[str | int]) -> str:
    """Return keys as the one parameter of a query that reads them by `json_each`. They may have no
    NUL, where SQLite cuts them off."""
    return msgspec.json.encode(list(keys)).decode()


@cache
def parameters(query: str) -> tuple[str, ...]:
    """The names of the parameters of a query's row, in their order."""
    return tuple(name[1:] for name in _NAME.findall(_row(query)))


@cache
def _repeated(query: str, count: int) -> str:
    row = _NAME.sub("?", _row(query))
    return _VALUES.sub(", ".join([row] * count), query, count=1)


def _row(query: str) -> str:
    found = _VALUES.search(query)
    if found is None:
        raise ValueError(f"no row of parameters in {query!r}")
    return found[0]
