"""The transaction of an exactly-once step with SQLAlchemy, for
`stephttp.integrations.sqlalchemy`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

from sqlalchemy import (
    Column,
    DateTime,
    MetaData,
    String,
    Table,
    Text,
    bindparam,
    event,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.dialects.mysql import LONGTEXT
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    OperationalError,
    ProgrammingError,
    UnboundExecutionError,
)
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session

from stephttp.errors import ConfigurationError, UsageError
from stephttp.integrations._step_rows import (
    TABLE,
    CurrentStep,
    Flow,
    StepBody,
    current_step,
    is_async,
    is_transient,
    pauses,
    run_async,
    run_blocking,
)

T = TypeVar("T")

_pause, _pause_async = time.sleep, asyncio.sleep

steps_table = Table(
    TABLE,
    MetaData(),
    Column("run_id", String(64), primary_key=True),
    Column("step_hash", String(40), primary_key=True),
    Column("step_id", Text, nullable=False),
    Column("result", Text().with_variant(LONGTEXT(), "mysql", "mariadb")),
    Column("types", Text().with_variant(LONGTEXT(), "mysql", "mariadb")),
    Column("created_at", DateTime(timezone=True), nullable=False),
    mysql_charset="utf8mb4",
    mysql_engine="InnoDB",
)
"""The table `stephttp_steps`: one row for each step that is a transaction. Alembic sees it if it is
in your metadata: `steps_table.to_metadata(Base.metadata)`."""

_THIS = (
    steps_table.c.run_id == bindparam("this_run"),
    steps_table.c.step_hash == bindparam("this"),
)

# Made once: building a statement takes longer than executing it.
_INSERT = insert(steps_table)
_UPDATE = (
    update(steps_table).where(*_THIS).values(result=bindparam("_result"), types=bindparam("_types"))
)
_SELECT = select(steps_table.c.result, steps_table.c.types).where(*_THIS)


class TransactionBody(StepBody, Generic[T]):
    """The body of a step that is a transaction, once for sessions of both kinds.

    The row is inserted before the function runs. So the primary key lets one of two calls of the
    same step wait for the other, and SQLite starts a transaction that may write.
    """

    kind: type[Session] | type[AsyncSession]

    def __init__(self, step_id: str, sessions: Callable[[], Any], fn: Callable[..., Any]) -> None:
        super().__init__(fn, own_arguments=1)
        self._step_id = step_id
        self._sessions = sessions

    def flow(self, pause: Callable[[float], Any], args: Any, kwargs: Any) -> Flow:
        """Run the function in a transaction, again and again if that is of use."""
        current = current_step()
        waits = pauses()
        while True:
            session = self._new_session()
            try:
                result = yield from self._attempt(session, current, args, kwargs)
            except DBAPIError as error:
                yield session.close()
                seconds = next(waits, None) if self._again(error) else None
                if seconds is None:
                    raise
            except BaseException:
                yield session.close()
                raise
            else:
                yield session.close()
                return result
            yield pause(seconds)

    def _new_session(self) -> Any:
        session = self._sessions()
        if not isinstance(session, self.kind):
            raise UsageError(
                f"step {self._step_id!r}: its session factory made {type(session).__name__}; an "
                "`async def` function needs an async_sessionmaker, a `def` function a sessionmaker"
            )
        if session.in_transaction():
            raise UsageError(
                f"step {self._step_id!r}: its session is in a transaction already, so the step "
                "could not commit its own; give a factory that makes a new session each time, such "
                "as sessionmaker(engine)"
            )
        return session

    def _attempt(self, session: Any, current: CurrentStep | None, args: Any, kwargs: Any) -> Flow:
        yield session.begin()
        if current is None:
            result = yield self._fn(session, *args, **kwargs)
            yield session.commit()
            return result
        found = yield from self._claim(session, current)
        if found is not None:
            return current.value(found)
        with _Uncommitted(session, current):
            value = yield self._fn(session, *args, **kwargs)
            yield session.flush()
            row = current.row(value)
            values = {**_this(current), "_result": row.result, "_types": row.types}
            stored = yield session.execute(_UPDATE, values)
            if stored.rowcount != 1:
                raise current.refuse_end()
        try:
            yield session.commit()
        except Exception as error:
            # Whether it was committed is not known: the connection may be lost, or the error be
            # that of an event handler of the user's.
            yield session.close()
            found = yield from self._look(session, current)
            if found is None:
                raise
            current.log_committed(error)
        return current.value(row)

    def _claim(self, session: Any, current: CurrentStep) -> Flow:
        """Insert the row of a step. Returns the one that another call has committed, if any."""
        row = {**current.key, "step_id": current.step_id, "created_at": current.now()}
        try:
            yield session.execute(_INSERT, row)
        except IntegrityError:
            yield session.rollback()
            found = yield from self._look(session, current)
            if found is None:
                raise
            return found
        except UnboundExecutionError as error:
            raise ConfigurationError(
                f"step {self._step_id!r}: its sessions do not know where {TABLE} is; add "
                f"steps_table to their binds: sessionmaker(binds={{steps_table: engine, ...}})"
            ) from error
        except (OperationalError, ProgrammingError) as error:
            if self._again(error):
                raise
            yield session.rollback()
            if (yield _run_sync(session, _has_table)):
                raise
            raise ConfigurationError(
                f"step {self._step_id!r}: the database has no table {TABLE}; create it with "
                "stephttp.integrations.sqlalchemy.create_table(engine), or with a migration "
                "(docs/databases.md)"
            ) from error
        return None

    def _look(self, session: Any, current: CurrentStep) -> Flow:
        """Return the row that was committed for a step; `None` if there is no such row."""
        yield session.begin()
        found = yield session.execute(_SELECT, _this(current))
        row = found.one_or_none()
        yield session.rollback()
        return None if row is None else current.found(*row)

    @staticmethod
    def _again(error: DBAPIError) -> bool:
        """Whether a new transaction may well succeed."""
        lost: bool = error.connection_invalidated
        driver = error.orig  # asyncpg's own error is the cause of SQLAlchemy's
        return lost or is_transient(driver) or is_transient(driver and driver.__cause__)


class BlockingBody(TransactionBody[T]):
    kind = Session

    def __call__(self, *args: Any, **kwargs: Any) -> T:
        return cast(T, run_blocking(self.flow(_pause, args, kwargs)))


class AsyncBody(TransactionBody[T]):
    kind = AsyncSession

    async def __call__(self, *args: Any, **kwargs: Any) -> T:
        return cast(T, await run_async(self.flow(_pause_async, args, kwargs)))


def new_body(step_id: str, sessions: Any, fn: Any) -> AsyncBody[Any] | BlockingBody[Any]:
    """Return the body of a step, of the kind of its sessions."""
    if not callable(sessions) or not callable(fn):
        raise TypeError(
            f"step {step_id!r}: transaction takes a session factory and a function, not "
            f"{sessions!r} and {fn!r}; write transaction('add', sessionmaker(engine), add, item)"
        )
    if isinstance(sessions, scoped_session | async_scoped_session):
        raise TypeError(
            f"step {step_id!r}: its session factory is a {type(sessions).__name__}, whose session "
            "others use, too; give one that makes a new session each time, such as "
            "sessionmaker(engine)"
        )
    if isinstance(sessions, async_sessionmaker) or is_async(fn):
        return AsyncBody(step_id, sessions, fn)
    return BlockingBody(step_id, sessions, fn)


class _Uncommitted:
    """Keeps a function from committing the transaction of its step."""

    def __init__(self, session: Any, current: CurrentStep) -> None:
        self._session: Session = getattr(session, "sync_session", session)
        self._current = current

    def __enter__(self) -> None:
        event.listen(self._session, "before_commit", self._refuse)

    def __exit__(self, *_: object) -> None:
        event.remove(self._session, "before_commit", self._refuse)

    def _refuse(self, session: Session) -> None:
        if not session.in_nested_transaction():
            raise self._current.refuse_end()


def _this(current: CurrentStep) -> dict[str, str]:
    return {"this_run": current.key["run_id"], "this": current.key["step_hash"]}


def _run_sync(session: Any, look: Callable[[Session], Any]) -> Any:
    return session.run_sync(look) if isinstance(session, AsyncSession) else look(session)


def _has_table(session: Session) -> bool:
    return inspect(session.connection()).has_table(TABLE)
