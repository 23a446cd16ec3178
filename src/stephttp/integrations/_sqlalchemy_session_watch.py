"""Watches SQLAlchemy's sessions: what a step changes there and leaves, to be written later by a
flush outside of the step, or never; see `_run.transactions`.
"""

from __future__ import annotations

from typing import Any, cast
from weakref import WeakSet

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

from stephttp._run import database_watch
from stephttp._run.current import current_call
from stephttp._run.places import enclosing_step
from stephttp._run.step_call import StepCall
from stephttp._run.transactions import FLUSHED_FOR_OTHERS, Transaction, began

_KEY = "stephttp.transaction"
"""Where a session's changes are kept: in its `info`."""

Changes = dict[int, set[int]]
"""The changed objects of each session, by identity."""


def watch() -> None:
    """Listen to the events of all sessions."""
    for name, listener in _SESSION.items():
        event.listen(Session, name, cast("Any", listener))
    database_watch.STEP_WATCH = SessionWatch()


class SessionWatch:
    """Compares the sessions of a call before and after a step."""

    def began(self) -> Changes:
        """Return what has changed before the step."""
        return {id(session): _changes(session) for session in _sessions()}

    def ended(self, call: StepCall, before: Changes) -> None:
        """Note what has changed since, and is not flushed."""
        for session in _sessions():
            if _changes(session) - before.get(id(session), set()):
                found: Transaction | None = session.info.get(_KEY)
                if found is None:
                    found = session.info[_KEY] = began("a session of SQLAlchemy")
                found.wrote(call)


def _sessions() -> list[Session]:
    """Return the sessions that began to work in the current call of a handler."""
    call = current_call.get()
    return [] if call is None or call.sessions is None else list(call.sessions)


def _changes(session: Session) -> set[int]:
    try:
        changed = {id(one) for one in session.dirty if session.is_modified(one)}
        return changed | set(map(id, session.new)) | set(map(id, session.deleted))
    except RuntimeError:  # a branch in another thread is at work with it, and has its own steps
        return set()


def _created(session: Session, transaction: SessionTransaction) -> None:
    call = current_call.get()
    if call is not None and transaction.parent is None:
        if call.sessions is None:
            call.sessions = WeakSet()
        call.sessions.add(session)


def _committed(session: Session) -> None:
    found: Transaction | None = session.info.get(_KEY)
    if found is not None and not session.in_nested_transaction():
        found.commit()


def _rolled_back(session: Session, _: SessionTransaction) -> None:
    _flushed()  # or not, because the flush failed
    found: Transaction | None = session.info.pop(_KEY, None)
    if found is not None:
        found.roll_back()


def _ended(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        _rolled_back(session, transaction)  # nothing is left of it if it was committed


def _flushing(session: Session, *_: Any) -> None:
    call = enclosing_step()
    if call is not None and not _changes(session) - getattr(call, "before", {}).get(
        id(session), set()
    ):
        # A query of the step flushes what the handler has changed before, and will change again.
        FLUSHED_FOR_OTHERS.add(call)


def _flushed(*_: Any) -> None:
    call = enclosing_step()
    if call is not None:
        FLUSHED_FOR_OTHERS.discard(call)


_SESSION = {
    "after_transaction_create": _created,
    "after_transaction_end": _ended,
    "after_commit": _committed,
    "after_soft_rollback": _rolled_back,
    "before_flush": _flushing,
    "after_flush": _flushed,
}
