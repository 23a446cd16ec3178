"""`stephttp.integrations.sqlalchemy.transaction`: a step's writes and its result, or neither."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

import stephttp
from stephttp import (
    NestedStepError,
    NonRetriableError,
    StepResultError,
    UsageError,
)
from stephttp.integrations import _sqlalchemy_body, _step_rows
from stephttp.integrations import sqlalchemy as steps
from tests.sqlalchemy_kinds import SERVERS, Kind, kind
from tests.styles import fails

NAP = timedelta(minutes=1)
Handler = Generator[Any, Any, Any]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test wait between two tries."""
    monkeypatch.setattr(_step_rows, "_LONGEST_PAUSE", 0)


def add(session: Session, item: str) -> str:
    session.execute(text("INSERT INTO orders (item) VALUES (:item)"), {"item": item})
    return item


class Died(BaseException):
    """Stands for the end of the process: nothing of the SDK's handles it."""


def dies_after_commit(db: Kind, error: BaseException) -> None:
    """Let the next commit be the last thing that a process does."""

    @event.listens_for(Session, "after_commit", once=True)
    def die(session: Session) -> None:
        if session.get_bind() is db.bind:
            raise error


# --- a result, and rows ---


@dataclass
class Order:
    item: str
    price: Decimal


@dataclass
class Refusal:
    item: str
    price: Decimal


def order(session: Session, item: str, *, price: str) -> Order | Refusal:
    add(session, item)
    return Refusal(item, Decimal(price))


async def test_rows_and_result_are_stored_together(every: Kind) -> None:
    seen: list[Any] = []

    def handler() -> Handler:
        made = yield every.transaction("order", order, "book", price="1.50")
        again = yield every.transaction("order", order, "pen", price="2")
        yield every.step.sleep("nap", NAP)
        seen.append((made, again))
        return made.item

    async with every.serving(handler) as world:
        now = datetime.fromtimestamp(world.clock.now_ms() / 1000, UTC)
        response = await world.client.get("/")
        assert (await world.follow(response)).json() == "book"
        kept = every.rows("SELECT run_id, step_id, created_at FROM stephttp_steps")
    assert seen == [(Refusal("book", Decimal("1.50")), Refusal("pen", Decimal(2)))]
    assert every.ran == [("book",), ("pen",)]
    assert every.orders == ["book", "pen"]
    assert [row[:2] for row in kept] == [(response.headers["x-run-id"], "order")] * 2
    # In UTC, whether the database keeps the time zone or not.
    assert [str(row[2])[:19] for row in kept] == [f"{now:%Y-%m-%d %H:%M:%S}"] * 2
    assert [result for _, result in every.kept].count('{"item":"book","price":"1.50"}') == 1


async def test_a_process_that_dies_after_the_commit_runs_nothing_twice(every: Kind) -> None:
    seen: list[Any] = []

    def handler() -> Handler:
        stephttp.configure(retries=3)
        yield every.step.sleep("nap", NAP)
        if not every.ran:
            dies_after_commit(every, Died())
        made = yield every.transaction("order", order, "book", price="1.50")
        seen.append(made)
        return made.item

    async with every.serving(handler) as world:
        response = await world.client.get("/")
        assert (await world.follow(response)).json() == "book"
        assert len(world.reentries) == 2
    assert every.ran == [("book",)]
    assert every.orders == ["book"]
    # Of the same member of the union, and equal.
    assert seen == [Refusal("book", Decimal("1.50"))]


async def test_an_error_after_the_commit_does_not_fail_the_step(
    db: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    def handler() -> Handler:
        dies_after_commit(db, RuntimeError("a hook"))
        return (yield db.transaction("order", add, "book"))

    async with db.serving(handler) as world:
        assert (await world.client.get("/")).json() == "book"
    assert (db.ran, db.orders) == ([("book",)], ["book"])
    assert "step 'order' is committed" in caplog.text


async def test_outside_a_request_there_is_a_transaction_and_no_row(db: Kind) -> None:
    def failing(session: Session) -> None:
        add(session, "pen")
        raise OSError("broken")

    assert await db.finish(db.transaction("order", add, "book")) == "book"
    with pytest.raises(OSError, match="broken"):
        await db.finish(db.transaction("order", failing))
    assert (db.orders, db.kept) == (["book"], [])


# --- failures ---


async def test_a_failed_attempt_leaves_nothing(every: Kind) -> None:
    def fragile(session: Session) -> int:
        add(session, "book")
        if len(every.ran) < 3:
            raise OSError("broken")
        return len(every.ran)

    def handler() -> Handler:
        stephttp.configure(retries=3)
        return (yield every.transaction("order", fragile))

    async with every.serving(handler) as world:
        assert (await world.follow(await world.client.get("/"))).json() == 3
    assert (every.orders, every.kept) == (["book"], [("order", "3")])


@pytest.mark.parametrize(
    ("error", "match"),
    [(NonRetriableError("sold out"), "sold out"), (IntegrityError("s", {}, ValueError("u")), "u")],
)
async def test_an_error_is_the_step_s(db: Kind, error: Exception, match: str) -> None:
    def refused(session: Session) -> None:
        add(session, "book")
        raise error

    def handler() -> Handler:
        stephttp.configure(retries=0 if isinstance(error, IntegrityError) else 3)
        yield db.transaction("order", refused)

    async with db.serving(handler) as world:
        await fails(world, type(error), match)
    assert (len(db.ran), db.orders, db.kept) == (1, [], [])


async def test_a_result_that_cannot_be_stored_undoes_the_writes(db: Kind) -> None:
    def odd(session: Session) -> Any:
        add(session, "book")
        return object()

    def handler() -> Handler:
        yield db.transaction("order", odd)

    async with db.serving(handler) as world:
        await fails(world, StepResultError, "cannot be stored as JSON")
    assert (db.orders, db.kept) == ([], [])


# --- what is retried inside ---

RAISED_BY_THE_SERVER = {
    "mysql": "SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'Deadlock'",
    "postgresql": "DO $$ BEGIN RAISE EXCEPTION 'deadlock' USING ERRCODE = '40P01'; END $$",
}


def conflict(session: Session, database: str) -> None:
    """Fail as the database does when transactions are in each other's way."""
    session.execute(text(RAISED_BY_THE_SERVER[database]))


@SERVERS
async def test_conflicts_are_retried_inside(every: Kind) -> None:
    database = every.engine.dialect.name

    def handler() -> Handler:
        def fn(session: Session, times: int) -> int:
            add(session, "book")
            if len(every.ran) <= times:
                conflict(session, database)
            return len(every.ran)

        made = yield every.transaction("order", fn, 2)
        assert (made, len(every.ran)) == (3, 3)
        every.ran.clear()
        with pytest.raises(DBAPIError):
            yield every.transaction("never", fn, 99)
        return len(every.ran)

    async with every.serving(handler) as world:
        assert (await world.client.get("/")).json() == _step_rows.TRIES
    assert (every.orders, every.kept) == (["book"], [("order", "3")])


async def test_a_database_that_another_writer_locks_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "app.sqlite3"
    db = Kind(f"sqlite:///{file}", connect_args={"timeout": 0})
    other = db.engine.connect()
    other.execute(text("INSERT INTO orders (item) VALUES ('other')"))
    waited: list[float] = []

    def pause(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            other.commit()

    monkeypatch.setattr(_sqlalchemy_body, "_pause", pause)

    def handler() -> Handler:
        return (yield db.transaction("order", add, "book"))

    async with db.serving(handler) as world:
        assert (await world.client.get("/")).json() == "book"
    other.close()
    assert (len(waited), db.ran, db.orders) == (2, [("book",)], ["book", "other"])


async def test_a_serialisation_failure_of_postgres(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    db = kind("asyncpg", request, tmp_path)
    db.with_options(isolation_level="SERIALIZABLE")
    with db.engine.begin() as connection:
        connection.execute(text("INSERT INTO orders (item) VALUES ('0')"))

    def count_up(session: Session) -> int:
        number = int(session.execute(text("SELECT item FROM orders")).scalar_one()) + 1
        if len(db.ran) == 1:  # another transaction is faster
            with db.engine.begin() as connection:
                connection.execute(text("UPDATE orders SET item = '10'"))
        session.execute(text("UPDATE orders SET item = :item"), {"item": str(number)})
        return number

    def handler() -> Handler:
        return (yield db.transaction("count", count_up))

    async with db.serving(handler) as world:
        assert (await world.client.get("/")).json() == 11
    assert (len(db.ran), db.orders, db.kept) == (2, ["11"], [("count", "11")])


@SERVERS
async def test_a_connection_that_is_lost_before_the_commit(every: Kind) -> None:
    kill = {
        "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend({})"),
        "mysql": ("SELECT connection_id()", "KILL {}"),
    }[every.engine.dialect.name]

    def fn(session: Session) -> int:
        add(session, "book")
        if len(every.ran) == 1:
            number = session.execute(text(kill[0])).scalar_one()
            with every.engine.connect() as connection:
                connection.execute(text(kill[1].format(number)))
        return len(every.ran)

    def handler() -> Handler:
        return (yield every.transaction("order", fn))

    async with every.serving(handler) as world:
        assert (await world.client.get("/")).json() == 2
    assert (every.orders, every.kept) == (["book"], [("order", "2")])


# --- the end of the transaction is the step's ---


def commits(session: Session) -> None:
    add(session, "book")
    session.commit()


def rolls_back(session: Session) -> None:
    add(session, "book")
    session.rollback()
    add(session, "pen")


def closes(session: Session) -> None:
    add(session, "book")
    session.close()


@pytest.mark.parametrize("fn", [commits, rolls_back, closes])
async def test_a_function_that_ends_the_transaction_is_refused(
    db: Kind, fn: Callable[..., Any]
) -> None:
    def handler() -> Handler:
        yield db.transaction("order", fn)

    async with db.serving(handler) as world:
        await fails(world, UsageError, "step 'order': its function committed, rolled back")
    assert (db.orders, db.kept) == ([], [])


async def test_a_refused_commit_that_is_hidden_has_done_nothing(db: Kind) -> None:
    def fn(session: Session) -> str:
        with pytest.raises(UsageError):
            commits(session)
        assert db.orders == []
        return add(session, "pen")

    def handler() -> Handler:
        return (yield db.transaction("order", fn))

    async with db.serving(handler) as world:
        assert (await world.client.get("/")).json() == "pen"
    assert (db.orders, db.kept) == (["book", "pen"], [("order", '"pen"')])


async def test_savepoints(every: Kind) -> None:
    def fn(session: Session) -> str:
        add(session, "book")
        with session.begin_nested():
            add(session, "pen")
        try:
            with session.begin_nested():
                add(session, "ink")
                raise OSError
        except OSError:
            return "no ink"

    def handler() -> Handler:
        return (yield every.transaction("order", fn))

    async with every.serving(handler) as world:
        assert (await world.client.get("/")).json() == "no ink"
    assert (every.orders, every.kept) == (["book", "pen"], [("order", '"no ink"')])


async def test_a_transaction_within_another_step_is_refused(db: Kind) -> None:
    async def on_loop() -> None:
        await db.transaction("inner", add, "pen")

    def in_thread() -> None:
        db.transaction("inner", add, "pen")

    def handler() -> Handler:
        yield db.step.run("outer", in_thread if db.style == "blocking" else on_loop)

    async with db.serving(handler) as world:
        await fails(world, NestedStepError, "inside the body of step 'outer'")
    assert (db.ran, db.orders, db.kept) == ([], [], [])


async def test_a_session_in_a_transaction_is_refused(tmp_path: Path) -> None:
    db = Kind(f"sqlite:///{tmp_path}/app.sqlite3")
    with Session(db.engine) as session:
        add(session, "pen")

        def handler() -> Handler:
            yield steps.transaction("order", lambda: session, add, "book")

        async with db.serving(handler) as world:
            await fails(world, UsageError, "in a transaction already")
        session.rollback()
    assert (db.orders, db.kept) == ([], [])
