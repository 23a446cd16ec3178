"""`stephttp.integrations.sqlalchemy`: the table, options and arguments, and two calls at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from fastapi import FastAPI
from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

import stephttp
from stephttp import (
    ConfigurationError,
    UsageError,
    step,
)
from stephttp._core.annotations import decode_arguments
from stephttp._core.encoding import result_conversion
from stephttp._wire.ids import CAPSULE, hash_step_id
from stephttp._wire.stored_state import DELIVERY
from stephttp.integrations import _sqlalchemy_body
from stephttp.integrations import sqlalchemy as steps
from stephttp.provider import Provider
from tests.durable import durable
from tests.integrations.test_tools import world as world_of_a_server
from tests.sqlalchemy_kinds import Kind, kind
from tests.styles import fails, serving

NAP = timedelta(minutes=1)
Handler = Generator[Any, Any, Any]


def add(session: Session, item: str) -> str:
    session.execute(text("INSERT INTO orders (item) VALUES (:item)"), {"item": item})
    return item


@dataclass
class Order:
    item: str
    price: Decimal


# --- the table ---


async def test_a_database_without_the_table_says_what_to_do(db: Kind) -> None:
    with db.engine.begin() as connection:
        connection.execute(text("DROP TABLE stephttp_steps"))

    def handler() -> Handler:
        yield db.transaction("order", add, "book")

    async with db.serving(handler) as world:
        await fails(world, ConfigurationError, "create_table")
    assert db.orders == []


async def test_sessions_that_do_not_know_the_table_say_what_to_do(tmp_path: Path) -> None:
    db = Kind(f"sqlite:///{tmp_path}/app.sqlite3")
    db.sessions = sessionmaker(binds={})

    def handler() -> Handler:
        yield db.transaction("order", add, "book")

    async with db.serving(handler) as world:
        await fails(world, ConfigurationError, "steps_table to their binds")


async def test_old_rows_are_deleted(db: Kind) -> None:
    def handler() -> Handler:
        yield db.transaction("one", add, "book")
        yield db.step.sleep("nap", timedelta(days=10))
        yield db.transaction("two", add, "pen")
        return "done"

    async with db.serving(handler) as world:
        start = datetime.fromtimestamp(world.clock.now_ms() / 1000, UTC)
        response = await world.client.get("/")
        await world.turn()
        assert await world.status(response) == "Completed"

    def prune(days: float) -> int:
        with db.engine.begin() as connection:
            return steps.prune(connection, timedelta(days=20), start + timedelta(days=days))

    assert prune(19.9) == 0
    # Only the first: the run is old, and its second step is not.
    assert (prune(20.1), [step_id for step_id, _ in db.kept]) == (1, ["two"])
    with Session(db.engine) as session, session.begin():
        assert steps.prune(session, timedelta(days=20), start + timedelta(days=31)) == 1
    assert db.kept == []


def test_arguments_of_prune_are_checked(tmp_path: Path) -> None:
    db = Kind(f"sqlite:///{tmp_path}/app.sqlite3")
    with db.engine.begin() as connection:
        with pytest.raises(ValueError, match="older_than must be positive"):
            steps.prune(connection, timedelta())
        with pytest.raises(ValueError, match="needs a time zone"):
            steps.prune(connection, timedelta(days=1), datetime(2026, 1, 1))  # noqa: DTZ001
        assert steps.prune(connection, timedelta(days=30)) == 0


@pytest.mark.parametrize("every", ["sqlite", "postgres", "mariadb"], indirect=True)
def test_alembic_finds_the_table_as_it_is(every: Kind) -> None:
    metadata = MetaData()
    steps.steps_table.to_metadata(metadata)
    with every.engine.connect() as connection:
        options = {
            "include_name": lambda name, kind, _: kind != "table" or name == "stephttp_steps"
        }
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


# --- two calls at once ---


async def test_of_two_calls_at_once_one_writes_and_the_other_gets_its_result(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """A re-entry that is delivered twice, to two processes, by a server that does not tell its
    deliveries apart."""
    db = kind("asyncpg", request, tmp_path)
    deliveries: list[asyncio.Task[httpx2.Response]] = []
    bodies: list[str] = []

    def blocked() -> bool:
        return db.rows("SELECT 1 FROM pg_locks WHERE NOT granted") != []

    def application(provider: Provider) -> Any:
        app = FastAPI()

        @app.post("/")
        async def handler() -> str:
            await step.sleep("nap", NAP)
            return await steps.transaction("order", db.sessions, slow, provider)

        return provider.asgi(app)

    async def slow(session: AsyncSession, provider: Provider) -> str:
        bodies.append("first" if provider is world.provider else "second")
        await session.execute(text("INSERT INTO orders (item) VALUES ('book')"))
        if not deliveries:
            again = world.to_app.requests[-1]
            del again.headers[DELIVERY]
            transport = httpx2.ASGITransport(application(world.provide()))
            client = httpx2.AsyncClient(transport=transport)
            deliveries.append(asyncio.create_task(client.send(again)))
            while not blocked():  # noqa: ASYNC110  (until the other waits for this row)
                await asyncio.sleep(0.01)
        return bodies[0]

    async with durable(application) as world:
        response = await world.client.post("/")
        assert (await world.follow(response)).json() == "first"
        answer = await deliveries[0]
    assert answer.status_code in (200, 206)
    assert b"first" in answer.content
    assert (bodies, db.orders, db.kept) == (["first"], ["book"], [("order", '"first"')])


@pytest.mark.parametrize("features", ["", "pending, raw-response"])
async def test_a_server_that_never_heard_of_the_result_gets_it_again(
    features: str, tmp_path: Path
) -> None:
    """An Inngest server, or one of this package: nothing of it is on the wire."""
    db = Kind(f"sqlite:///{tmp_path}/app.sqlite3")
    app = FastAPI()

    def fn(session: Session) -> int:
        add(session, "book")
        return len(db.ran)

    @app.get("/")
    def handler() -> int:
        return int(db.transaction("order", fn))

    async with world_of_a_server(app, features) as w:
        w.server.memos[CAPSULE] = {"headers": []}
        for _ in range(3):  # it has no memo of the step, as if each answer was lost
            assert b"1" in (await w.again()).content
    assert (len(db.ran), db.orders, db.kept) == (1, ["book"], [("order", "1")])


async def test_a_row_without_a_result_is_no_result(tmp_path: Path) -> None:
    """The function committed with SQL, and the process died before it had returned."""
    db = Kind(f"sqlite:///{tmp_path}/app.sqlite3")

    def commits_and_dies(session: Session) -> None:
        session.execute(text("COMMIT"))
        raise OSError("the end")

    def handler() -> Handler:
        stephttp.configure(retries=1)
        yield db.transaction("order", commits_and_dies)

    async with db.serving(handler) as world:
        response = await world.client.get("/")
        answer = await world.follow(response)
        steps_of_run = await world.steps(response)
    assert answer.status_code == 500
    assert steps_of_run["order"]["error"]["name"] == "UsageError"
    assert len(db.ran) == 1


# --- options, arguments ---


async def test_options_of_the_step(db: Kind) -> None:
    def fragile(session: Session, item: str) -> str:
        add(session, item)
        if len(db.ran) < 3:
            raise OSError("broken")
        return item

    def handler() -> Handler:
        patient = steps.with_options(db.step.options(retries=2))
        return (yield patient.transaction("order", db.sessions, db.fn(fragile), "book"))

    async with db.serving(handler) as world:
        assert (await world.follow(await world.client.get("/"))).json() == "book"
    assert (len(db.ran), db.orders) == (3, ["book"])


async def test_a_blocking_transaction_in_a_thread_of_an_async_handler(tmp_path: Path) -> None:
    """With `thread=True`, and with the key of the step for other services."""
    db = Kind(f"sqlite:///{tmp_path}/app.sqlite3")
    threads: list[bool] = []

    def keyed(session: Session) -> str:
        threads.append(threading.current_thread() is threading.main_thread())
        return add(session, stephttp.idempotency_key())

    async def on_loop() -> str:
        apart = steps.with_options(step.options(thread=True, timeout=timedelta(minutes=1)))
        return await apart.transaction("order", db.sessions, keyed)

    async with serving("async", on_loop, on_loop) as world:
        response = await world.client.get("/")
    assert db.orders == [response.json()]
    assert response.json() == f"{response.headers['x-run-id']}-{hash_step_id('order')}"
    assert threads == [False]


def test_the_body_of_the_step_is_seen_with_the_arguments_of_the_handler(tmp_path: Path) -> None:
    """So that an edited input fits, and the result is of the annotated type."""
    db = Kind(f"sqlite:///{tmp_path}/app.sqlite3")

    class Shop:
        def order(self, session: Session, order: Order, /, *, fast: bool = False) -> Order:
            return order

    for fn in (Shop().order, partial(Shop().order, fast=True)):
        body: Any = _sqlalchemy_body.new_body("order", db.sessions, fn)
        raw = b'[{"item": "book", "price": "1.50"}]'
        assert decode_arguments(raw, body, "order") == (Order("book", Decimal("1.50")),)
        assert result_conversion(body).annotation is Order


@pytest.mark.parametrize(("sessions", "fn"), [(None, add), (sessionmaker(), None)])
def test_what_is_no_function_or_factory_is_refused(sessions: Any, fn: Any) -> None:
    with pytest.raises(TypeError, match="a session factory and a function"):
        steps.transaction("order", sessions, fn, "book")


def test_a_session_that_others_use_is_refused() -> None:
    blocking: Any = scoped_session(sessionmaker())
    on_loop: Any = async_scoped_session(async_sessionmaker(), scopefunc=lambda: 1)
    for shared in (blocking, on_loop):
        with pytest.raises(TypeError, match="makes a new session each time"):
            steps.transaction("order", shared, add, "book")


async def test_sessions_of_the_other_kind_are_refused(tmp_path: Path) -> None:
    async def on_loop(session: Any) -> None:
        """Never called."""

    db = Kind(f"sqlite:///{tmp_path}/app.sqlite3", f"sqlite+aiosqlite:///{tmp_path}/app.sqlite3")
    with pytest.raises(UsageError, match="made Session; an `async def` function needs"):
        await steps.transaction("order", sessionmaker(db.engine), on_loop)
    with pytest.raises(UsageError, match="made AsyncSession"):
        steps.transaction("order", partial(db.sessions), add, "book")
