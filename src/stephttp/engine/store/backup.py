"""`stephttp backup`: a copy of a database that an engine may be working with."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from stephttp.engine.store import database
from stephttp.engine.store.check import check_file
from stephttp.errors import ConfigurationError

_PAGES = 1024
"""How many pages are copied between two reports of progress."""


def backup(source: str, target: str, progress: Callable[[int, int], None]) -> int:
    """Copy a database to a file, as it is at this moment; return the file's bytes.

    The copy is made beside the target, checked, and takes the target's name at the very end: what
    is at that name is always a whole backup. Only its owner can read it. Engines continue to
    work meanwhile.

    Args:
        source: the database.
        target: the file to make, or to replace.
        progress: called with the pages that are copied, and all pages.

    Raises:
        ConfigurationError: the source is not an engine's database, the target cannot be written or
            is a database in use, or the copy is not whole.
    """
    _check_target(source, target)
    partial = ""
    try:
        handle, partial = tempfile.mkstemp(  # made with permissions 0600
            prefix=f".{Path(target).name}.", suffix=".partial", dir=Path(target).parent
        )
        os.close(handle)
        _copy(source, partial, progress)
        problems = check_file(partial).problems
        if problems:
            raise ConfigurationError(f"the copy of {source!r} is not whole: {problems[0]}")
        _sync(partial)
        size = os.stat(partial).st_size
        os.replace(partial, target)
        partial = ""
        _sync(str(Path(target).absolute().parent))
        return size
    except (OSError, sqlite3.Error) as error:
        raise ConfigurationError(f"cannot back up {source!r} to {target!r}: {error}") from error
    finally:
        if partial:
            os.unlink(partial)


def _check_target(source: str, target: str) -> None:
    if os.path.realpath(source) == os.path.realpath(target):
        raise ConfigurationError(f"the backup would replace the database itself ({source!r})")
    if Path(f"{target}-wal").exists():
        raise ConfigurationError(
            f"{target!r} is a database in use (there is {target + '-wal'!r}); choose another file"
        )
    if Path(target).is_dir():
        raise ConfigurationError(f"{target!r} is a directory; name the file to write")


def _copy(source: str, target: str, progress: Callable[[int, int], None]) -> None:
    with (
        closing(database.connect_read_only(source)) as reading,
        closing(database.connect(database.uri(target))) as writing,
    ):
        # A read transaction over all of it: without one the copy would start again whenever the
        # engine has written something in between, and might never end.
        reading.execute("BEGIN")
        if database.version(reading, source) == 0:
            raise ConfigurationError(f"{source!r} is an empty database")
        reading.backup(
            writing,
            pages=_PAGES,
            progress=lambda status, left, total: progress(total - left, total),
        )
        # One plain file that can be read from anywhere, a read-only disk included.
        writing.execute("PRAGMA journal_mode = DELETE")


def _sync(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
