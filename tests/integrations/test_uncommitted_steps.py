"""Which steps are held back, and which runs fail, because of transactions around them."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import create_engine, event, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import stephttp
from stephttp import Checkpointing, Provider
from stephttp._run.transactions import Transaction, breaks, writes
from stephttp.sync import step
from tests.databases import own_database, sockets
from tests.durable import Durable, durable
from tests.integrations.shops import NAP, write


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]


class Shop:
    """A database, and an application with one endpoint, whose dependency commits at its end."""

    def __init__(self, url: str) -> None:
        self.engine = create_engine(url)
        Base.metadata.create_all(self.engine)

    def session(self) -> Iterator[Session]:
        with Session(self.engine) as session:
            yield session
            session.commit()

    def app(
        self,
        handle: Callable[[Session], Any],
        decorated: bool = True,
        **options: Any,
    ) -> Callable[[Provider], Any]:
        def build(provider: Provider) -> Any:
            app = FastAPI()

            def handler(db: Annotated[Session, Depends(self.session)]) -> Any:
                return handle(db)

            if decorated:
                handler = provider.endpoint(**options)(handler)
            app.get("/")(handler)
            return provider.asgi(app)

        return build

    @property
    def items(self) -> list[str]:
        with Session(self.engine) as session:
            return list(session.scalars(select(Order.item).order_by(Order.id)))


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(f"sqlite:///{tmp_path}/shop.sqlite3")
    yield made
    made.engine.dispose()


def wait(value: Any = "done") -> Any:
    step.sleep("nap", NAP)
    return value


def execute(where: Any, statement: Any) -> None:
    where.execute(statement)


async def completes(world: Durable, answer: Any = "done") -> None:
    final = await world.follow(await world.client.get("/"))
    assert (final.status_code, final.json()) == (200, answer)


async def fails(world: Durable, match: str = "step 'a' wrote in a transaction of") -> None:
    with pytest.raises(stephttp.UncommittedStepError, match=match):
        await world.client.get("/")
    assert await world.provider.wait()
    (run,) = (await world.api.get("/v1/runs")).json()["data"]
    assert run["status"] == "Failed"


# --- what needs no commit -------------------------------------------------------------------------


def reads(db: Session) -> None:
    db.execute(text("SELECT count(*) FROM orders"))
    db.execute(text("WITH some AS (SELECT 1) SELECT * FROM some"))
    db.scalars(select(Order).where(Order.item == "update")).all()


def commits_by_itself(db: Session) -> None:
    write(db, "book")
    db.commit()


def commits_elsewhere(db: Session) -> None:
    with Session(db.get_bind()) as other:
        write(other, "book")
        other.commit()


def begins_twice(db: Session) -> None:
    """The insert of a row that is there already, and what then is done about it."""
    write(db, "book")
    db.rollback()
    reads(db)


def forgets_its_commit(db: Session) -> None:
    """That is a fault of the step itself, and as visible as without a wait."""
    with Session(db.get_bind()) as other:
        write(other, "book")


@pytest.mark.parametrize(
    "body",
    [reads, commits_by_itself, commits_elsewhere, begins_twice, forgets_its_commit],
    ids=lambda body: str(body.__name__),
)
async def test_no_false_alarm(body: Callable[[Session], None], shop: Shop) -> None:
    def handle(db: Session) -> Any:
        step.run("a", body, db)
        return wait()

    async with durable(shop.app(handle, decorated=False)) as world:
        await completes(world)


async def test_a_connection_that_commits_each_statement(shop: Shop) -> None:
    def handle(_: Session) -> Any:
        with shop.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            insert = text("INSERT INTO orders (item) VALUES ('book')")
            step.run("a", execute, connection, insert)
            return wait()

    async with durable(shop.app(handle)) as world:
        await completes(world)
    assert shop.items == ["book"]


async def test_the_handlers_own_changes_are_its_own_affair(shop: Shop) -> None:
    """A step that reads flushes them. They are made again in each call."""

    def handle(db: Session) -> Any:
        db.add(Order(item="draft"))
        step.run("a", reads, db)
        db.add(Order(item="draft"))
        step.run("b", int)
        return wait()

    async with durable(shop.app(handle, decorated=False)) as world:
        await completes(world)


async def test_a_transaction_of_a_test_around_the_call_is_not_ended_by_it(shop: Shop) -> None:
    with shop.engine.connect() as connection, connection.begin():
        session = Session(connection, join_transaction_mode="create_savepoint")

        def build(provider: Provider) -> Any:
            app = FastAPI()

            @app.get("/")
            @provider.endpoint()
            def handler() -> str:
                step.run("a", write, session, "book")
                session.commit()
                return str(wait())

            return provider.asgi(app)

        async with durable(build) as world:
            await completes(world)
        session.close()
    assert shop.items == ["book"]


# --- what is lost ---------------------------------------------------------------------------------


def adds(db: Session) -> None:
    db.add(Order(item="book"))


def changes(db: Session) -> None:
    for order in db.scalars(select(Order)):
        order.item = "changed"


def deletes(db: Session) -> None:
    for order in db.scalars(select(Order)):
        db.delete(order)


@pytest.mark.parametrize("decorated", [True, False], ids=["decorated", "not"])
@pytest.mark.parametrize(
    ("body", "left"), [(adds, ["old", "book"]), (changes, ["changed"]), (deletes, [])]
)
async def test_changes_that_are_not_flushed_count(
    body: Callable[[Session], None], left: list[str], decorated: bool, shop: Shop
) -> None:
    with Session(shop.engine) as session:
        write(session, "old")
        session.commit()

    def handle(db: Session) -> Any:
        step.run("a", body, db)
        return wait()

    async with durable(shop.app(handle, decorated)) as world:
        if decorated:
            await completes(world)
        else:
            await fails(world, "step 'a' wrote in a session of SQLAlchemy")
    assert shop.items == (left if decorated else ["old"])


async def test_a_change_of_an_object_that_was_loaded_before(shop: Shop) -> None:
    def handle(db: Session) -> Any:
        order = Order(item="old")
        db.add(order)
        db.commit()

        def change() -> None:
            order.item = "changed"

        step.run("a", change)
        return wait()

    async with durable(shop.app(handle, decorated=False)) as world:
        await fails(world, "session")


@pytest.mark.parametrize("spans_the_wait", [True, False])
async def test_savepoints(spans_the_wait: bool, shop: Shop) -> None:
    def handle(db: Session) -> Any:
        with db.begin_nested():
            step.run("a", write, db, "book")
            if spans_the_wait:
                wait()
        return wait()

    async with durable(shop.app(handle)) as world:
        if spans_the_wait:
            await fails(world, r"\(to savepoint sa_savepoint_1\)")
        else:
            await completes(world)
    assert shop.items == ([] if spans_the_wait else ["book"])


async def test_a_core_connection_whose_transaction_spans_the_wait(shop: Shop) -> None:
    def handle(_: Session) -> Any:
        with shop.engine.begin() as connection:
            step.run("a", execute, connection, text("INSERT INTO orders (item) VALUES (1)"))
            return wait()

    async with durable(shop.app(handle)) as world:
        await fails(world)


async def test_a_session_that_is_still_open(shop: Shop) -> None:
    session = Session(shop.engine)

    def handle(_: Session) -> Any:
        step.run("a", write, session, "book")
        return wait()

    async with durable(shop.app(handle)) as world:
        await fails(world)
    session.close()


async def test_a_later_step_that_rolls_back_what_an_earlier_one_wrote(shop: Shop) -> None:
    def handle(db: Session) -> Any:
        step.run("a", write, db, "book")
        step.run("b", db.rollback)
        return wait()

    async with durable(shop.app(handle)) as world:
        await fails(world)


async def test_a_commit_that_fails_behind_the_handler(shop: Shop) -> None:
    @event.listens_for(shop.engine, "connect")
    def enforce(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA foreign_keys = ON")

    with shop.engine.begin() as connection:
        connection.execute(text(
            "CREATE TABLE lines (of INTEGER REFERENCES orders (id) DEFERRABLE INITIALLY DEFERRED)"
        ))  # fmt: skip
    shop.engine.dispose()

    def handle(db: Session) -> Any:
        step.run("a", execute, db, text("INSERT INTO lines VALUES (7)"))
        return wait()

    async with durable(shop.app(handle)) as world:
        with pytest.raises(stephttp.UncommittedStepError) as raised:
            await world.client.get("/")
        assert isinstance(raised.value.__cause__, IntegrityError)


@pytest.fixture
def shop_in_postgres(postgres_folder: Path) -> Iterator[Shop]:
    made = Shop(sockets(postgres_folder, "psycopg", own_database(postgres_folder, "shop")))
    yield made
    Base.metadata.drop_all(made.engine)
    made.engine.dispose()


@pytest.mark.parametrize("in_savepoint", [True, False])
async def test_an_error_after_which_a_commit_rolls_back(
    in_savepoint: bool, shop_in_postgres: Shop
) -> None:
    """PostgreSQL takes the commit for a rollback, and does not say so."""
    shop = shop_in_postgres

    def handle(db: Session) -> Any:
        step.run("a", execute, db, text("INSERT INTO orders VALUES (1, 'book')"))
        with pytest.raises(IntegrityError), db.begin_nested() if in_savepoint else nullcontext():
            db.execute(text("INSERT INTO orders VALUES (1, 'the same id')"))
        return wait()

    async with durable(shop.app(handle)) as world:
        if in_savepoint:
            await completes(world)
        else:
            await fails(world)


@pytest.mark.parametrize(("name", "expected"), [("postgresql", True), ("sqlite", False)])
def test_databases_that_take_a_commit_for_a_rollback(name: str, expected: bool) -> None:
    assert breaks(name) is expected


# --- calls by the engine --------------------------------------------------------------------------


async def test_a_step_of_a_later_call_is_lost(shop: Shop) -> None:
    def handle(db: Session) -> Any:
        step.run("first", commits_by_itself, db)
        step.sleep("nap", NAP)
        step.run("a", write, db, "pen")
        return wait()

    async with durable(shop.app(handle, decorated=False)) as world:
        first = await world.client.get("/")
        final = await world.follow(first)
        assert final.status_code == 500
        assert await world.status(first) == "Failed"
        steps = await world.steps(first)
        assert steps["first"]["status"] == "Completed"
        assert steps.get("a", {}).get("status") != "Completed"
    assert shop.items == ["book"]


async def test_a_handler_that_fails_after_its_step_runs_it_again(shop: Shop) -> None:
    tried: list[str] = []

    def handle(db: Session) -> Any:
        step.sleep("nap", NAP)
        written = step.run("a", write, db, "book")
        tried.append("")
        if len(tried) == 1:
            raise ConnectionError("the dependency rolls back")
        return written

    async with durable(shop.app(handle, retries=1)) as world:
        await completes(world, 1)
    assert len(tried) == 2
    assert shop.items == ["book"]


async def test_a_call_that_ends_reports_its_steps_as_ever(shop: Shop) -> None:
    """Nothing relies on them any more."""

    def handle(db: Session) -> Any:
        step.run("a", write, db, "book")
        db.rollback()
        return "a preview"

    async with durable(shop.app(handle)) as world:
        answer = await world.client.get("/")
        assert answer.json() == "a preview"
        assert await world.provider.wait()
        assert (await world.steps(answer))["a"]["status"] == "Completed"
    assert shop.items == []


# --- steps that are reported while the handler runs -----------------------------------------------


def reported(world: Durable) -> list[str]:
    """The names of the finished steps that the engine was told of, in this order."""
    names: list[str] = []
    for request in world.to_engine.requests:
        body = json.loads(request.content or b"{}")
        for one in [body, *body.get("batch", [])]:
            names += [op["displayName"] for op in one.get("steps", []) if op["op"] == "StepRun"]
    return [name for name in names if not name.startswith("stephttp")]


@pytest.mark.parametrize("commits", [True, False], ids=["commits", "rolls back"])
async def test_a_step_is_reported_after_its_commit(commits: bool, shop: Shop) -> None:
    seen: list[list[str]] = []
    worlds: list[Durable] = []

    async def look() -> None:
        await worlds[0].provider.wait()
        seen.append(reported(worlds[0]))

    async def handle_async(db: Session) -> str:
        await stephttp.step.run("a", write, db, "book")
        await stephttp.step.run("plain", int)
        await look()
        if commits:
            db.commit()
            await stephttp.step.run("next", int)
            await look()
        await stephttp.step.sleep("nap", NAP)
        return "done"

    def build(provider: Provider) -> Any:
        app = FastAPI()

        async def session() -> AsyncIterator[Session]:
            with contextmanager(shop.session)() as db:
                yield db

        @app.get("/")
        async def handler(db: Annotated[Session, Depends(session)]) -> str:
            return await handle_async(db)

        return provider.asgi(app)

    async with durable(build, checkpointing=Checkpointing.safe) as world:
        worlds.append(world)
        if commits:
            await completes(world)
            assert [sorted(names) for names in seen[:2]] == [["plain"], ["a", "next", "plain"]]
        else:
            await fails(world)
            assert seen == [["plain"]]
            assert "a" not in reported(world)


# --- the texts of statements ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("SELECT 1", False),
        (" -- insert\n /* update */ (select 1)", False),
        ("insert into a values (1)", True),
        ("WITH x AS (SELECT 1) SELECT * FROM x", False),
        ("WITH x AS (DELETE FROM a RETURNING *) SELECT * FROM x", True),
        ("REPLACE INTO a VALUES (1)", True),
        ("CALL pay()", True),
        ("TRUNCATE a", True),
        ("PRAGMA foreign_keys", False),
        ("BEGIN IMMEDIATE", False),
        ("BEGIN UPDATE a SET b = 1; END;", True),
        ("", True),
    ],
)
def test_what_writes(statement: str, expected: bool) -> None:
    assert writes(statement) is expected


@pytest.mark.parametrize(
    ("statements", "savepoints"),
    [
        (["SAVEPOINT a"], ["", "a"]),
        (["SAVEPOINT a", 'SAVEPOINT "B"', "RELEASE SAVEPOINT b"], ["", "a"]),
        (["SAVEPOINT a", "SAVEPOINT b", "RELEASE a"], [""]),
        (["SAVEPOINT a", "SAVEPOINT b", "ROLLBACK TO SAVEPOINT a"], ["", "a"]),
        (["SAVEPOINT a", "ROLLBACK TO a", "RELEASE SAVEPOINT a"], [""]),
        (["SAVEPOINT a", "ROLLBACK TO unknown"], ["", "a"]),
        (["SAVE TRANSACTION a", "ROLLBACK TRANSACTION a"], ["", "a"]),
    ],
)
def test_savepoints_are_followed(statements: list[str], savepoints: list[str]) -> None:
    transaction = Transaction("a transaction", None)
    for statement in statements:
        transaction.executed(statement)
    assert [level.savepoint for level in transaction.levels] == savepoints
