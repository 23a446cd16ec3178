"""Steps that have written in a database transaction that is still open: they are held back until it
is committed (`UncommittedStepError`).

A finished step never runs again, so its writes must last. If code around it holds the transaction,
they do not last yet when it returns, and the end of a handler that has to wait may roll them back.
Such a step is held back until its transaction ends. If it ends without a commit, and the run is to
continue, the step is not reported as finished: a run that would wait fails instead.

The watchers of `stephttp.integrations` say what happens on a connection. Only an explicit commit
counts; a transaction that is still open when the handler has ended does not. Those that began
outside of the handler's call, as in tests that roll everything back, are not its business.
"""

from __future__ import annotations

import re

from stephttp._run.current import CurrentCall, current_call
from stephttp._run.echoes import echoes_suspension
from stephttp._run.places import enclosing_step
from stephttp._run.scope import RunScope
from stephttp._run.step_call import StepCall
from stephttp.errors import UncommittedStepError

_FIRST_WORD = re.compile(r"(?:\s|\(|--[^\n]*\n|/\*.*?\*/)*([A-Za-z]+)", re.DOTALL)
_CHANGE = re.compile(r"\b(insert|update|delete|merge|call)\b", re.IGNORECASE)
_READS = frozenset(
    """
    abort analyze close commit desc describe discard end fetch listen pragma release
    reset rollback save savepoint select set show start table unlisten use values
    """.split()  # noqa: SIM905
)
"""First words of statements that write nothing themselves."""
_AROUND = frozenset({"begin", "declare", "explain", "with"})
"""First words of statements that may have others inside."""
_SAVEPOINT = re.compile(
    r"\s*(?:(?P<begin>SAVEPOINT|SAVE\s+TRAN\w*)|(?P<release>RELEASE(?:\s+SAVEPOINT)?)"
    r"|(?P<undo>ROLLBACK(?:\s+WORK)?\s+TO(?:\s+SAVEPOINT)?|ROLLBACK\s+TRAN\w*))\s+(?P<name>[^\s;]+)",
    re.IGNORECASE,
)


FLUSHED_FOR_OTHERS: set[StepCall] = set()
"""Steps in which a session flushes what was changed outside of them."""


def writes(statement: str) -> bool:
    """Whether an SQL statement writes, as far as its text shows it."""
    found = _FIRST_WORD.match(statement)
    word = "" if found is None else found[1].lower()
    return bool(_CHANGE.search(statement)) if word in _AROUND else word not in _READS


class StepWrites:
    """The writes of one step that no commit has made last.

    Args:
        call: of the step.
    """

    __slots__ = ("levels", "lost", "open", "scope", "step")

    def __init__(self, call: StepCall) -> None:
        self.scope = call.scope
        self.step = call.step
        self.levels: set[Level] = set()
        """Where they are."""
        self.lost = ""
        """The transaction that was rolled back; empty while none was."""
        self.open = ""
        """The transaction that was still open when the handler had ended."""

    def left(self, level: Level, *, lost: str = "") -> None:
        """Note that a level with writes of this step has ended."""
        self.levels.discard(level)
        current = enclosing_step()
        # What a step rolls back itself is its own affair.
        if lost and (current is None or current.step is not self.step):
            self.lost = lost
        self.settle_if_safe()

    def settle_if_safe(self) -> None:
        """Let the step be reported, once all that it wrote lasts."""
        if not self.levels and not self.lost:
            with self.scope.lock:
                self.scope.run.unreported.settle(self.step.hash)
            self.scope.recorded()


class Level:
    """A transaction, or a savepoint in one, and the steps that have written in it."""

    __slots__ = ("savepoint", "steps", "transaction")

    def __init__(self, transaction: Transaction, savepoint: str = "") -> None:
        self.transaction = transaction
        self.savepoint = savepoint
        self.steps: set[StepWrites] = set()

    def add(self, step: StepWrites) -> None:
        """Note that a step has written here."""
        self.steps.add(step)
        step.levels.add(self)

    def end(self, *, lost: str = "") -> None:
        """Note that this was committed, or that it is lost."""
        steps, self.steps = self.steps, set()
        for step in steps:
            step.left(self, lost=lost)


class Transaction:
    """What is written on one connection since a transaction began there.

    Args:
        name: of the transaction, for people.
        owner: the call of a handler in which it began; `None`: outside of any.
    """

    __slots__ = ("broken", "committing", "levels", "name", "owner")

    def __init__(self, name: str, owner: CurrentCall | None) -> None:
        self.name = name
        self.owner = owner
        self.levels = [Level(self)]
        self.committing = False
        """Whether its commit has begun; nothing has shown yet that it failed."""
        self.broken = False
        """Whether an error has made it one that can only be rolled back, even by a commit."""

    def executed(self, statement: str) -> None:
        """Note that a statement was executed."""
        if (found := _SAVEPOINT.match(statement)) is not None:
            self._moved(found)
            return
        call = enclosing_step()
        if call is not None and call not in FLUSHED_FOR_OTHERS and writes(statement):
            self.wrote(call)

    def wrote(self, call: StepCall) -> None:
        """Note that a step has written."""
        self.levels[-1].add(writes_of(call))

    def commit(self) -> None:
        """Note that all of it was committed, unless it is broken."""
        lost = self.name if self.broken else ""
        for level in self._ended():
            level.end(lost=lost)

    def roll_back(self) -> None:
        """Note that all of it was rolled back."""
        for level in self._ended():
            level.end(lost=self.name)

    def _ended(self) -> list[Level]:
        levels, self.levels = self.levels, [Level(self)]
        self.committing = self.broken = False
        return levels

    def _moved(self, found: re.Match[str]) -> None:
        """Follow a statement that sets, releases or goes back to a savepoint."""
        name = found["name"].strip('"`[]').lower()
        if found["begin"]:
            self.levels.append(Level(self, name))
            return
        at = max((i for i, level in enumerate(self.levels) if level.savepoint == name), default=0)
        if not at:
            return
        ended, self.levels = self.levels[at:], self.levels[:at]
        if found["release"]:
            for level in ended:
                for step in [*level.steps]:
                    self.levels[-1].add(step)
                    step.levels.discard(level)
            return
        self.broken = False
        self.levels.append(Level(self, name))  # it can be gone back to again
        for level in ended:
            level.end(lost=f"{self.name} (to savepoint {name})")


def breaks(database: str) -> bool:
    """Whether an error of a statement breaks its transaction: PostgreSQL then takes a commit for a
    rollback, and does not say so.

    Args:
        database: its kind, as the library calls it.
    """
    return database in ("postgresql", "cockroachdb", "redshift")


def writes_of(call: StepCall) -> StepWrites:
    """Return the writes of a step, which is not reported from now on until they last."""
    scope = call.scope
    with scope.lock:
        if scope.writes is None:
            scope.writes = {}
        found = scope.writes.get(call.step.hash)
        if found is None or found.step is not call.step:
            found = scope.writes[call.step.hash] = StepWrites(call)
        scope.run.unreported.hold_back(call.step.hash)
    return found


def began(name: str) -> Transaction:
    """Return a transaction that begins now."""
    return Transaction(name, current_call.get())


def conclude(scope: RunScope, error: BaseException | None) -> BaseException | None:
    """Decide about steps whose writes do not last, now that the handler has ended.

    Args:
        error: the application's own, if it was ended by one.

    Returns:
        `error`, or what a run fails with that would have to wait otherwise.
    """
    run = scope.run
    for step in [*(scope.writes or {}).values()]:
        for level in [*step.levels]:
            transaction = level.transaction
            if transaction.committing:  # and nothing was heard of a failure
                transaction.commit()
            elif transaction.owner is None or transaction.owner.so_far is not scope:
                step.levels.discard(level)
                level.steps.discard(step)
            else:
                step.open = transaction.name
        step.settle_if_safe()
    lost = [
        step for step in (scope.writes or {}).values() if run.unreported.holds_back(step.step.hash)
    ]
    _let_go(scope)
    if not lost:
        run.unreported.release_held()
    elif run.suspended:
        first = lost[0]
        run.fail_instead()
        failure = UncommittedStepError(first.step.step_id, first.lost or first.open)
        if error is not None and not echoes_suspension(error):
            failure.__cause__ = error
        return failure
    elif not run.resumed:
        run.unreported.release_held()  # it has ended, and nothing relies on its steps
    return error


def _let_go(scope: RunScope) -> None:
    """Let transactions that continue after the call know nothing of its steps."""
    for step in [*(scope.writes or {}).values()]:
        for level in step.levels:
            level.steps.discard(step)
    scope.writes = None
