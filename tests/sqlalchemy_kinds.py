"""One transaction, written for sessions of each kind of database, driver and handler."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager
from functools import wraps
from inspect import isawaitable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import NullPool

from stephttp import step
from stephttp.integrations import sqlalchemy as steps
from stephttp.integrations._step_rows import run_async, run_blocking
from stephttp.sync import step as sync_step
from tests.databases import own_database, sockets
from tests.durable import Durable
from tests.styles import serving

KINDS = ["sqlite", "sqlite async", "postgres", "postgres async", "asyncpg", "mariadb"]


SERVERS = pytest.mark.parametrize("every", KINDS[2:], indirect=True)
"""SQLite has no deadlocks, since its writers wait for each other, and no connections to lose."""

ORDERS = "CREATE TABLE IF NOT EXISTS orders (run VARCHAR(64), item VARCHAR(64))"


class Kind:
    """A database with the sessions of one kind of handler.

    Attributes:
        style: of the handler, see `tests.styles`.
        engine: for the test to look at the database.
        sessions: the factory for `transaction`.
    """

    def __init__(self, url: str, async_url: str = "", **options: Any) -> None:
        self.style = "async" if async_url else "blocking"
        # Async connections belong to an event loop, and each test has another.
        self.engine: Engine = create_engine(url, poolclass=NullPool, **options)
        self._async_engine: AsyncEngine | None = None
        self.sessions: Any = sessionmaker(self.engine)
        if async_url:
            self._async_engine = create_async_engine(async_url, poolclass=NullPool, **options)
            self.sessions = async_sessionmaker(self._async_engine)
        self.ran: list[tuple[Any, ...]] = []
        """The arguments of each run of a function."""
        with self.engine.begin() as connection:
            connection.execute(text(ORDERS))
            steps.create_table(connection)
            connection.execute(text("DELETE FROM orders"))
            connection.execute(text("DELETE FROM stephttp_steps"))

    @property
    def bind(self) -> Engine:
        """The engine of the sessions, as events see it."""
        return self.engine if self._async_engine is None else self._async_engine.sync_engine

    def with_options(self, **options: Any) -> None:
        """Let the sessions have engine options, such as an isolation level."""
        if self._async_engine is None:
            self.sessions = sessionmaker(self.engine.execution_options(**options))
        else:
            self.sessions = async_sessionmaker(self._async_engine.execution_options(**options))

    @property
    def step(self) -> Any:
        """The step tools of its handlers."""
        return sync_step if self.style == "blocking" else step

    def fn(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """A function of a `Session` as one of the sessions of this kind, whose calls are noted."""

        @wraps(fn)
        def noted(session: Session, *args: Any, **kwargs: Any) -> Any:
            self.ran.append(args)
            return fn(session, *args, **kwargs)

        @wraps(fn)
        async def on_loop(session: Any, *args: Any, **kwargs: Any) -> Any:
            return await session.run_sync(noted, *args, **kwargs)

        return noted if self.style == "blocking" else on_loop

    def transaction(self, step_id: str, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return steps.transaction(step_id, self.sessions, self.fn(fn), *args, **kwargs)

    @staticmethod
    async def finish(made: Any) -> Any:
        return await made if isawaitable(made) else made

    def serving(
        self, handler: Callable[[], Generator[Any, Any, Any]]
    ) -> AbstractAsyncContextManager[Durable]:
        """Serve a handler that is a generator, and yields what has to be awaited on a loop."""

        async def on_loop() -> Any:
            return await run_async(handler())

        def in_thread() -> Any:
            return run_blocking(handler())

        return serving(self.style, on_loop, in_thread)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(sql))]

    @property
    def orders(self) -> list[str]:
        return [item for (item,) in self.rows("SELECT item FROM orders ORDER BY item")]

    @property
    def kept(self) -> list[tuple[Any, ...]]:
        return self.rows("SELECT step_id, result FROM stephttp_steps ORDER BY step_id, step_hash")


def kind(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    """Return one of `KINDS`, whose server is started at the first need."""
    if name.startswith("sqlite"):
        file = tmp_path / "app.sqlite3"
        url = f"sqlite:///{file}"
        return Kind(url, f"sqlite+aiosqlite:///{file}" if "async" in name else "")
    if name == "mariadb":
        socket = request.getfixturevalue("mariadb_socket")
        database = own_database(socket, "sqlalchemy_kinds")
        return Kind(f"mysql+pymysql://root@/{database}?unix_socket={socket}")
    folder = request.getfixturevalue("postgres_folder")
    database = own_database(folder, "sqlalchemy_kinds")
    url, asyncpg = (sockets(folder, driver, database) for driver in ("psycopg", "asyncpg"))
    return Kind(url, {"postgres": "", "asyncpg": asyncpg}.get(name, url))
