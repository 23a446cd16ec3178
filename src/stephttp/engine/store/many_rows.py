"""Many rows with few statements: executing a statement costs more than a row of it."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain

import msgspec

_chained = chain.from_iterable
_VALUES = re.compile(r"(?<=\bVALUES )\([^()]*\)")
_NAME = re.compile(r":\w+")

# Powers of two up to this one are few sizes, so that each connection keeps all of them prepared. It
# stays far below the number of parameters that SQLite allows (32,766).
_LARGEST = 64


def insert(connection: sqlite3.Connection, query: str, rows: Sequence[Sequence[object]]) -> None:
    """Insert rows in their order, as `executemany` does.

    Args:
        query: `INSERT ... VALUES (...)`, for one row; `ON CONFLICT` may follow.
        rows: values in the order of its parameters, whether these have names or not.
    """
    done, left = 0, len(rows)
    while left:
        size = min(_LARGEST, 1 << (left.bit_length() - 1))
        part = rows[done : done + size]
        connection.execute(_repeated(query, size), tuple(_chained(part)))
        done, left = done + size, left - size


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
