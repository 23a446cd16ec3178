"""Histories of runs for `check` and `export`: from the database file of an engine, or from
its API. Both are only read.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Generator, Iterable
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol

from stephttp._version import __version__
from stephttp.cli.exits import Exit, RemoteError
from stephttp.cli.remote import Remote, explain
from stephttp.errors import ConfigurationError
from stephttp.testing.engine_history import history_of
from stephttp.testing.history import History

_ACCEPT = {"x-stephttp-accept": "pending, step-names, ended"}
_MOST = 1_000_000
_UNFINISHED = "SELECT run_id FROM runs WHERE ended_ms IS NULL ORDER BY seq"


class Histories(Protocol):
    """The runs of an engine."""

    def unfinished(self, endpoints: Iterable[str] = ()) -> list[str]:
        """Return the ids of the runs that have not ended, the oldest first.

        Args:
            endpoints: only the runs of these; without any, all.
        """
        ...

    def history(self, run_id: str) -> History:
        """Return the history of a run, with its secrets.

        Raises:
            RemoteError: there is no such run, or it cannot be read.
        """
        ...


class RemoteHistories:
    """The runs of an engine that is at work.

    Args:
        engine: its API.
    """

    def __init__(self, engine: Remote) -> None:
        self._engine = engine

    def unfinished(self, endpoints: Iterable[str] = ()) -> list[str]:
        """See `Histories`."""
        wanted = {"status": ["running", "waiting"], "endpoint": list(endpoints)}
        found = self._engine.pages("/v1/runs", wanted, _MOST)
        return [run["run_id"] for run in reversed(found)]

    def history(self, run_id: str) -> History:
        """See `Histories`."""
        full = self._engine.data("GET", f"/v1/stephttp/runs/{run_id}")
        answer = self._engine.send("GET", f"/v0/runs/{run_id}/actions", headers=_ACCEPT)
        if not answer.is_success:
            raise RemoteError(explain(answer), status=answer.status_code)
        try:
            history = history_of(full, answer.content, __version__)
        except ConfigurationError as error:
            raise RemoteError(str(error)) from None
        if history.run.id != run_id:
            raise RemoteError(f"run {run_id}: the engine describes {history.run.id} instead")
        return history


class StoredHistories:
    """The runs in the database of an engine, which may be at work on it.

    Args:
        connection: to the database.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def unfinished(self, endpoints: Iterable[str] = ()) -> list[str]:
        """See `Histories`."""
        from stephttp.engine.reading.run_list import load_row

        found = [run_id for (run_id,) in self._connection.execute(_UNFINISHED)]
        wanted = frozenset(endpoints)
        if not wanted:
            return found
        rows = ((run_id, load_row(self._connection, run_id, _now_ms())) for run_id in found)
        return [run_id for run_id, row in rows if row.endpoint in wanted]

    def history(self, run_id: str) -> History:
        """See `Histories`."""
        from stephttp.engine.model.refused import Refused
        from stephttp.testing.stored_history import history_in

        connection = self._connection
        connection.execute("BEGIN")  # both are read as of one moment
        try:
            return history_in(connection, run_id, _now_ms())
        except (ConfigurationError, Refused) as error:
            raise RemoteError(str(error)) from None
        finally:
            connection.execute("COMMIT")


@contextmanager
def stored_histories(path: Path) -> Generator[StoredHistories]:
    """Open a database to read the runs in it.

    Raises:
        RemoteError: it cannot be read, or is of another version.
    """
    from stephttp.engine.store.database import check_version, newest_version
    from stephttp.engine.store.database import version as version_of

    try:
        with closing(_opened(path)) as connection:
            found, newest = version_of(connection, str(path)), newest_version()
            check_version(found, str(path), newest)
            if found != newest:
                raise ConfigurationError(
                    f"{str(path)!r} has schema {found}, and this version reads {newest}: start "
                    "this version's engine with a copy of it once, which brings it up to date"
                )
            yield StoredHistories(connection)
    except (ConfigurationError, sqlite3.Error) as error:
        raise RemoteError(f"--db: {error}", Exit.USAGE) from None


def _opened(path: Path) -> sqlite3.Connection:
    """Open a database that no engine has open without making files beside it, as SQLite would: the
    engine could not open them if they were another user's.

    Raises:
        ConfigurationError: such a file would have to be made.
    """
    from stephttp.engine.store.database import connect, connect_read_only, uri

    if not Path(f"{path}-wal").exists():
        return connect(f"{uri(str(path))}?mode=ro&immutable=1")
    if not Path(f"{path}-shm").exists() and path.stat().st_uid != os.geteuid():
        raise ConfigurationError(
            f"an engine has left {path}-wal behind, and reading it makes a file that the engine "
            "could not open; read the database as its owner"
        )
    return connect_read_only(str(path))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
