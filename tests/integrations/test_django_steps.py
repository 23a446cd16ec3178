"""`stephttp.integrations.django.transaction`: a step's writes and its result, or neither."""

from __future__ import annotations

import gc
import io
from collections.abc import Generator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connections, transaction
from django.test.utils import override_settings
from sqlalchemy import text

import stephttp
from stephttp import ConfigurationError, NestedStepError, NonRetriableError, UsageError
from stephttp._wire.ids import hash_step_id, ulid
from stephttp.integrations import _step_rows
from stephttp.integrations import django as steps
from tests.django_kinds import Kind, project
from tests.styles import fails

NAP = timedelta(minutes=1)
Handler = Generator[Any, Any, Any]
KINDS = [
    ("default", "async"), ("default", "wsgi"), ("postgres", "async"), ("postgres", "wsgi"),
    ("mariadb", "wsgi"),
]  # fmt: skip
FEW = [("default", "wsgi"), ("postgres", "async")]


@pytest.fixture(scope="module")
def urls(
    tmp_path_factory: pytest.TempPathFactory, postgres_folder: Path, mariadb_socket: Path
) -> Generator[dict[str, str]]:
    with project(tmp_path_factory.mktemp("django"), postgres_folder, mariadb_socket) as made:
        yield made


@pytest.fixture(params=KINDS, ids=" ".join)
def every(request: pytest.FixtureRequest, urls: dict[str, str]) -> Kind:
    alias, style = request.param
    return Kind(alias, style, urls[alias])


@pytest.fixture(params=FEW, ids=" ".join)
def db(request: pytest.FixtureRequest, urls: dict[str, str]) -> Kind:
    alias, style = request.param
    return Kind(alias, style, urls[alias])


# When its caller has gone, which is how a view that waits is ended, Django leaves the file of the
# request's body, and the connection of its thread, to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Unclosed file <tempfile:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:.* was deleted while still open:ResourceWarning"),
]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Let no test wait between two tries."""
    monkeypatch.setattr(_step_rows, "_LONGEST_PAUSE", 0)
    yield
    gc.collect()


class Died(BaseException):
    """Stands for the end of the process: nothing of the SDK's handles it."""


@dataclass
class Order:
    item: str
    price: Decimal


@dataclass
class Refusal:
    item: str
    price: Decimal


async def test_rows_and_result_are_stored_together(every: Kind) -> None:
    seen: list[Any] = []

    def order(item: str, *, price: str) -> Order | Refusal:
        return Refusal(every.add(item), Decimal(price))

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
    assert (every.ran, every.orders) == (["book", "pen"], ["book", "pen"])
    assert [row[:2] for row in kept] == [(response.headers["x-run-id"], "order")] * 2
    assert [str(row[2])[:19] for row in kept] == [f"{now:%Y-%m-%d %H:%M:%S}"] * 2


async def test_a_process_that_dies_after_the_commit_runs_nothing_twice(every: Kind) -> None:
    seen: list[Any] = []

    def order(item: str) -> Order | Refusal:
        transaction.on_commit(die, using=every.alias)
        return Refusal(every.add(item), Decimal(1))

    def die() -> None:
        raise Died

    def handler() -> Handler:
        stephttp.configure(retries=3)
        yield every.step.sleep("nap", NAP)
        made = yield every.transaction("order", order, "book")
        seen.append(made)
        return made.item

    async with every.serving(handler) as world:
        response = await world.client.get("/")
        assert (await world.follow(response)).json() == "book"
        assert len(world.reentries) == 2
    assert (every.ran, every.orders) == (["book"], ["book"])
    assert seen == [Refusal("book", Decimal(1))]


async def test_an_error_after_the_commit_does_not_fail_the_step(
    db: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    def order() -> str:
        transaction.on_commit(lambda: 1 // 0, using=db.alias)
        return db.add("book")

    def handler() -> Handler:
        return (yield db.transaction("order", order))

    async with db.serving(handler) as world:
        assert (await world.client.get("/")).json() == "book"
    assert (db.ran, db.orders) == (["book"], ["book"])
    assert "step 'order' is committed" in caplog.text


async def test_a_failed_attempt_leaves_nothing(every: Kind) -> None:
    def fragile() -> int:
        every.add("book")
        if len(every.ran) < 3:
            raise OSError("broken")
        return len(every.ran)

    def handler() -> Handler:
        stephttp.configure(retries=3)
        return (yield every.transaction("order", fragile))

    async with every.serving(handler) as world:
        assert (await world.follow(await world.client.get("/"))).json() == 3
    assert (every.orders, every.kept) == (["book"], [("order", "3")])


async def test_an_error_that_is_not_to_be_retried_is_the_step_s(db: Kind) -> None:
    def refused() -> None:
        db.add("book")
        raise NonRetriableError("sold out")

    def handler() -> Handler:
        stephttp.configure(retries=3)
        yield db.transaction("order", refused)

    async with db.serving(handler) as world:
        await fails(world, NonRetriableError, "sold out")
    assert (db.ran, db.orders, db.kept) == (["book"], [], [])


RAISED_BY_THE_SERVER = {
    "mariadb": "SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'Deadlock'",
    "postgres": "DO $$ BEGIN RAISE EXCEPTION 'deadlock' USING ERRCODE = '40P01'; END $$",
}
KILL = {
    "postgres": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend({})"),
    "mariadb": ("SELECT connection_id()", "KILL {}"),
}
SERVERS = pytest.mark.parametrize("every", KINDS[2:], indirect=True, ids=" ".join)


@SERVERS
async def test_conflicts_are_retried_inside(every: Kind) -> None:
    def fn(times: int) -> int:
        every.add("book")
        if len(every.ran) <= times:
            with connections[every.alias].cursor() as cursor:
                cursor.execute(RAISED_BY_THE_SERVER[every.alias])
        return len(every.ran)

    def handler() -> Handler:
        made = yield every.transaction("order", fn, 2)
        assert (made, len(every.ran)) == (3, 3)
        every.ran.clear()
        with pytest.raises(DatabaseError):
            yield every.transaction("never", fn, 99)
        return len(every.ran)

    async with every.serving(handler) as world:
        assert (await world.client.get("/")).json() == _step_rows.TRIES
    assert (every.orders, every.kept) == (["book"], [("order", "3")])


@SERVERS
async def test_a_connection_that_is_lost_before_the_commit(every: Kind) -> None:
    which, kill = KILL[every.alias]

    def fn() -> int:
        every.add("book")
        if len(every.ran) == 1:
            with connections[every.alias].cursor() as cursor:
                cursor.execute(which)
                number = cursor.fetchone()[0]
            with every.engine.connect() as connection:
                connection.execute(text(kill.format(number)))
        return len(every.ran)

    def handler() -> Handler:
        return (yield every.transaction("order", fn))

    async with every.serving(handler) as world:
        assert (await world.client.get("/")).json() == 2
    assert (every.orders, every.kept) == (["book"], [("order", "2")])


async def test_of_two_calls_one_finds_the_row_of_the_other(db: Kind) -> None:
    """The other was committed while this one was on its way."""

    def handler() -> Handler:
        yield db.step.sleep("nap", NAP)
        return (yield db.transaction("order", db.add, "pen"))

    async with db.serving(handler) as world:
        response = await world.client.get("/")
        step_hash, now = hash_step_id("order"), datetime.now(UTC)
        row = {"run": response.headers["x-run-id"], "hash": step_hash, "now": now}
        with db.engine.begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO stephttp_steps (run_id, step_hash, step_id, result, created_at) "
                    "VALUES (:run, :hash, 'order', '\"book\"', :now)"
                ),
                row,
            )
        assert (await world.follow(response)).json() == "book"
    assert (db.ran, db.orders) == ([], [])


async def test_savepoints(every: Kind) -> None:
    def fn() -> str:
        every.add("book")
        with transaction.atomic(every.alias):
            every.add("pen")
        try:
            with transaction.atomic(every.alias):
                every.add("ink")
                raise OSError
        except OSError:
            return "no ink"

    def handler() -> Handler:
        return (yield every.transaction("order", fn))

    async with every.serving(handler) as world:
        assert (await world.client.get("/")).json() == "no ink"
    assert (every.orders, every.kept) == (["book", "pen"], [("order", '"no ink"')])


async def test_a_function_cannot_commit(db: Kind) -> None:
    def fn() -> None:
        db.add("book")
        transaction.commit(db.alias)

    def handler() -> Handler:
        yield db.transaction("order", fn)

    async with db.serving(handler) as world:
        await fails(world, transaction.TransactionManagementError, "atomic")
    assert (db.orders, db.kept) == ([], [])


async def test_a_transaction_around_it_is_refused(urls: dict[str, str]) -> None:
    db = Kind("default", "wsgi", urls["default"])

    def handler() -> Handler:
        with transaction.atomic():
            yield db.transaction("order", db.add, "book")

    def without_autocommit() -> Handler:
        transaction.set_autocommit(False)
        try:
            yield db.transaction("order", db.add, "book")
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)

    for one in (handler, without_autocommit):
        async with db.serving(one) as world:
            await fails(world, UsageError, "out of ATOMIC_REQUESTS")
    assert (db.ran, db.orders, db.kept) == ([], [], [])


async def test_a_transaction_within_another_step_is_refused(urls: dict[str, str]) -> None:
    db = Kind("default", "wsgi", urls["default"])

    def outer() -> None:
        db.transaction("inner", db.add, "pen")

    def handler() -> Handler:
        yield db.step.run("outer", outer)

    async with db.serving(handler) as world:
        await fails(world, NestedStepError, "inside the body of step 'outer'")
    assert (db.ran, db.orders, db.kept) == ([], [], [])


async def test_outside_a_request_there_is_a_transaction_and_no_row(db: Kind) -> None:
    assert await db.outside("order", db.add, "book") == "book"
    assert (db.orders, db.kept) == (["book"], [])


def test_an_async_function_is_refused() -> None:
    async def fn() -> None:
        """Never called."""

    with pytest.raises(TypeError, match=r"step 'order': transaction takes a `def` function"):
        _ = steps.transaction("order", fn)


async def test_options_of_the_step(db: Kind) -> None:
    def fragile(item: str) -> str:
        db.add(item)
        if len(db.ran) < 3:
            raise OSError("broken")
        return item

    def handler() -> Handler:
        patient: Any = steps.with_options(db.step.options(retries=2))
        wanted = patient.atransaction if db.style == "async" else patient.transaction
        return (yield wanted("order", fragile, "book", using=db.alias))

    async with db.serving(handler) as world:
        assert (await world.follow(await world.client.get("/"))).json() == "book"
    assert (len(db.ran), db.orders) == (3, ["book"])


# --- the application ---


async def test_a_database_without_the_table_says_what_to_do(db: Kind) -> None:
    def handler() -> Handler:
        yield db.transaction("order", db.add, "book")

    with db.engine.begin() as connection:
        connection.execute(text("ALTER TABLE stephttp_steps RENAME TO elsewhere"))
    try:
        async with db.serving(handler) as world:
            await fails(world, ConfigurationError, "manage.py migrate")
    finally:
        with db.engine.begin() as connection:
            connection.execute(text("ALTER TABLE elsewhere RENAME TO stephttp_steps"))
    assert db.orders == []


async def test_a_project_without_the_application_says_what_to_do(urls: dict[str, str]) -> None:
    db = Kind("default", "wsgi", urls["default"])

    def handler() -> Handler:
        yield db.transaction("order", db.add, "book")

    with override_settings(INSTALLED_APPS=[]):
        async with db.serving(handler) as world:
            await fails(world, ConfigurationError, "INSTALLED_APPS: ")
    assert db.orders == []


def test_the_migration_makes_what_the_model_says(urls: dict[str, str]) -> None:
    call_command("makemigrations", "stephttp", check=True, dry_run=True, verbosity=0)
    connections.close_all()


def test_old_rows_are_deleted(urls: dict[str, str]) -> None:
    from stephttp.integrations.django.models import Step  # it needs a Django that is set up

    now = datetime.now(UTC)
    Kind("default", "wsgi", urls["default"])

    def make(run_days: int, step_days: int) -> None:
        started, made = now - timedelta(days=run_days), now - timedelta(days=step_days)
        run_id = ulid(int(started.timestamp() * 1000), 1)
        Step.objects.create(run_id=run_id, step_hash=f"{step_days}", step_id="s", created_at=made)

    for run_days, step_days in ((40, 40), (40, 10), (10, 10)):
        make(run_days, step_days)
    said = io.StringIO()
    call_command("prune_steps", stdout=said)
    assert said.getvalue() == "deleted 1 rows\n"
    assert steps.prune(timedelta(days=5), now=now) == 2
    call_command("prune_steps", "--days", "1", "--database", "postgres", stdout=said)
    with pytest.raises(CommandError, match="--days: older_than must be positive"):
        call_command("prune_steps", "--days", "0")
    connections.close_all()
