"""One call of a handler that is watched, for replays and `always_replay`: the steps that it comes
to, and how it ends.

The methods of the run that are watched are replaced on the run itself, so that no other run, and no
run outside of tests, pays for it.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from stephttp._client.background import running_loop
from stephttp._core.remembered import title_of
from stephttp._core.run import Run
from stephttp._core.step_kinds import KINDS
from stephttp._core.steps import EXECUTE, Step, Verdict
from stephttp._run.current import HandlerCall
from stephttp._run.reentry import Reentry
from stephttp._run.scope import RunScope
from stephttp._wire.opcodes import OpCode
from stephttp.testing.findings import Place
from stephttp.testing.given_values import Given
from stephttp.testing.places_in_code import place_here, texts_in

Look = Callable[[FrameType], tuple[Given, Callable[[], Given]]]

RACE = "race"
"""The kind of the step that keeps who has won a race."""


class Met(Struct, frozen=True):
    """A step that a handler has come to.

    Attributes:
        kind: its tool.
        known: whether the server remembers it, or waits for it.
        place: the line of the user's code.
        given: what it is given, as far as that was looked at; see `given_values`.
        task: what tells the task, or the thread, from others of the same call.
        texts: of a new step, the texts that stand in the code that comes to it.
    """

    step: Step
    kind: str
    known: bool
    place: Place
    given: Given = {}
    task: int = 0
    texts: frozenset[str] = frozenset()

    @property
    def title(self) -> str:
        """Its id, with the number of the use where it is not the first."""
        return title_of(self.step.step_id, self.step.index)


class WatchedCall:
    """One call of a handler.

    Args:
        call: a first call or a re-entry.
        scope: of its run.
        look: is called at each step with the frame of the tool; returns what the step is given,
            and what returns that again.
        ended: is called when the handler has ended.
        changed: is called when the body of a step has changed what it was given.
    """

    def __init__(
        self,
        call: HandlerCall,
        scope: RunScope,
        look: Look = lambda frame: ({}, dict),
        ended: Callable[[WatchedCall], None] = lambda call: None,
        changed: Callable[[Met, Given], None] = lambda met, given: None,
    ) -> None:
        self._look, self._ended, self._changed = look, ended, changed
        self._again: dict[str, tuple[Met, Callable[[], Given]]] = {}
        self.call = call
        self.run: Run = scope.run
        self.met: list[Met] = []
        self.error: BaseException | None = None
        """What the handler has raised, if that is its own."""
        self._cut_short: bool | None = None
        self.left_branches = False
        """Whether a branch was left that is not at a step."""
        self._scope: RunScope | None = scope
        self._lock = threading.Lock()
        self._resolve, self._meet_race = scope.run.resolve, scope.run.meet_race
        self._own_error, self._complete = scope.own_error, scope.run.complete
        self._unwind = scope.run.unwind
        # Replacing them here costs runs that are not watched nothing.
        vars(scope.run).update(
            resolve=self._watch_step,
            meet_race=self._watch_race,
            complete=self._watch_body,
            unwind=self._watch_unwinding,
        )
        vars(scope).update(own_error=self._watch_end)

    def _watch_step(
        self,
        step_id: str,
        retries: int | None = None,
        branch: str = "",
        op: OpCode = OpCode.STEP_RUN,
    ) -> Step:
        step = self._resolve(step_id, retries, branch, op)
        self._note(step, KINDS[op], sys._getframe(1))
        return step

    def _watch_race(self, step_id: str) -> Step:
        before = len(self.met)
        step = self._meet_race(step_id)
        with self._lock:
            self.met[before:] = [
                replace(one, kind=RACE) if one.step is step else one for one in self.met[before:]
            ]
        return step

    def _watch_body(self, step: Step, *args: Any) -> Verdict:
        met, again = self._again.pop(step.hash, (None, None))
        if met is not None and again is not None:
            self._changed(met, again())
        return self._complete(step, *args)

    def _watch_unwinding(self) -> None:
        if self._cut_short is None:  # what is given up from now on, we end
            self._cut_short = self.run.cut_short
        self._unwind()

    def _watch_end(self, error: BaseException | None) -> BaseException | None:
        scope, self._scope = self._scope, None
        if scope is not None:
            self.left_branches = self.run.suspended and scope.left_branches()
        self.error = self._own_error(error)
        self._ended(self)
        return self.error

    def _note(self, step: Step, kind: str, frame: FrameType) -> None:
        known = step.verdict is not EXECUTE or step.memo is not None
        given, again = self._look(frame)
        texts = frozenset[str]() if known else texts_in(frame)
        met = Met(step, kind, known, place_here(frame), given, _task(), texts)
        with self._lock:
            self.met.append(met)
            if not known:
                self._again[step.hash] = met, again

    @property
    def cut_short(self) -> bool:
        """Whether the handler gave up a branch that was at a step."""
        return self.run.cut_short if self._cut_short is None else self._cut_short

    @property
    def responded(self) -> bool:
        """Whether the handler has responded, and not been ended."""
        return not self.run.suspended

    @property
    def answer(self) -> tuple[int, bytes]:
        """Status and body of the handler's response in a re-entry."""
        assert isinstance(self.call, Reentry)
        response = self.call.response
        return response.status, response.body or self.call.body.join()


def _task() -> int:
    task = None
    if running_loop() is not None:
        from asyncio import current_task

        task = current_task()
    return threading.get_ident() if task is None else id(task)


class LoggedErrors(logging.Handler):
    """Keeps the exceptions that frameworks log, since some answer with a 500 and do not raise."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.last: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Take the exception of a record."""
        if record.exc_info:
            self.last = record.exc_info[1]

    def __enter__(self) -> LoggedErrors:
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_: Any) -> None:
        logging.getLogger().removeHandler(self)
