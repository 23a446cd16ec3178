"""`always_replay`: each step of a handler in a call of its own, and each call compared with the one
before it.

A handler is called again after each wait and each crash, so whatever it does has to come out the
same. In a test one call usually does all; here every call runs one step and is ended at the next
one, which the following call has to come to as well, with the same arguments. When a run has
completed, its history is replayed once more, and has to give the same answer.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

from msgspec.structs import replace

from stephttp._run.current import HandlerCall
from stephttp._run.runtime import Runtime
from stephttp._run.scope import RunScope
from stephttp.testing.compared_calls import Trace, compared, mutated
from stephttp.testing.findings import NOWHERE, Finding, Place
from stephttp.testing.given_values import Given, Values
from stephttp.testing.handler_watch import Act, Acts, acts_watched
from stephttp.testing.places_in_code import Returns, handlers_frames, known_origins, place_of
from stephttp.testing.set_order import set_orders
from stephttp.testing.watched_call import RACE, LoggedErrors, Look, Met, WatchedCall

_ENOUGH = 10
"""Findings of one kind at one line after which a test does not wait for more."""
Watched = Callable[[HandlerCall, RunScope], WatchedCall]


class ReplayError(AssertionError):
    """A handler that does not do the same in each call.

    Attributes:
        findings: what differs, and where.
    """

    def __init__(self, findings: list[Finding]) -> None:
        lines = "\n".join(f"  {one}" for one in findings)
        super().__init__(f"the handler does not do the same in each call:\n{lines}")
        self.findings = findings


class AlwaysReplay:
    """Watches all runs of the providers of an application.

    Args:
        ignored: kinds of findings that do not fail the test.
    """

    def __init__(self, ignored: Collection[str] = ()) -> None:
        self.findings: list[Finding] = []
        """What was found so far, each once."""
        self._ignored = frozenset(ignored)
        self._last: dict[str, Trace] = {}
        self._code: dict[str, set[CodeType]] = {}
        self._modules: dict[str, dict[int, dict[str, Any]]] = {}
        self._environment: dict[str, dict[str, tuple[str | None, Act]]] = {}
        self._acts = Acts()
        self._values = Values()
        self._logged = LoggedErrors()
        self._lock = threading.Lock()
        self._raised = 0
        self._alike: Counter[tuple[str, Place, str]] = Counter()
        self.given_up: Future[None] = Future()
        """Done when so much alike was found that the run may have no end."""
        self.returned = NOWHERE
        """The line with which the handler that was replayed last has returned."""
        self._whole: set[str] = set()
        """The runs that were replayed as a whole."""

    @contextmanager
    def watching(self, runtimes: Collection[Runtime]) -> Generator[None]:
        """Watch the runs of these providers while the block runs."""
        with known_origins(), self._logged, acts_watched(self._acts):
            for runtime in runtimes:
                runtime.watch = self.watch
            yield

    def watch(self, call: HandlerCall, scope: RunScope) -> None:
        """Let a call run one step, and see what it does."""
        run_id = scope.run.run_id
        with self._lock:
            self._logged.last = None
            self._acts.read.pop(run_id, None)
            self._values.next_call()
        WatchedCall(call, scope, self._looker(run_id), self._ended, self._changed)
        scope.run.expire()

    def again(self, call: HandlerCall, scope: RunScope) -> WatchedCall:
        """Compare a call that replays a run as a whole, and runs no step."""
        run_id = scope.run.run_id
        returns = Returns(self._code.get(run_id, set()))

        def ended(call: WatchedCall) -> None:
            self.returned = returns.stop()
            self._ended(call)

        watched = WatchedCall(call, scope, self._looker(run_id), ended)
        returns.start()
        return watched

    def read_by(self, run_id: str) -> list[tuple[str, str | None]]:
        """Return the environment variables that the handler of a run has read, and their values."""
        with self._lock:
            read = self._environment.get(run_id, {})
            code = self._code.get(run_id, set())
            return [(name, value) for name, (value, act) in read.items() if act.code & code]

    def modules_of(self, run_id: str) -> list[dict[str, Any]]:
        """Return the global names of the modules in which the handler of a run is written."""
        with self._lock:
            return list(self._modules.get(run_id, {}).values())

    def with_variable(self, name: str) -> Watched:
        """Return what watches a replay in which an environment variable has another value."""
        return self._otherwise(
            lambda found, run_id: _dependent(name, found, self._environment[run_id][name][1])
        )

    def later(self) -> Watched:
        """Return what watches a replay that is a day later."""
        return self._otherwise(lambda found, run_id: _timely(found))

    def _otherwise(self, finding: Callable[[Finding, str], Finding]) -> Watched:
        """Return what watches a replay in which something is not as it was.

        Args:
            finding: makes the finding of the first difference in a run.
        """

        def watch(call: HandlerCall, scope: RunScope) -> WatchedCall:
            return WatchedCall(call, scope, self._looker(scope.run.run_id), ended)

        def ended(call: WatchedCall) -> None:
            run_id = call.run.run_id
            before, now = self._last[run_id], self._trace(call, self._last[run_id])
            found = None if now.error else next(compared(before, now), None)
            if found is not None:  # an error may come of a value that cannot be
                self.note([finding(found, run_id)])

        return watch

    def completed(self, run_ids: Collection[str]) -> list[str]:
        """Return which of these runs, which have completed, are still to be replayed as a whole."""
        new = [run_id for run_id in run_ids if run_id in self._last and run_id not in self._whole]
        self._whole.update(new)
        return new

    def note(self, findings: Collection[Finding]) -> None:
        """Add findings that are new, and not ignored."""
        with self._lock:
            for one in findings:
                if one.kind not in self._ignored and one not in self.findings:
                    self.findings.append(one)
                    alike = one.kind, one.place, one.tool
                    self._alike[alike] += 1
                    if self._alike[alike] >= _ENOUGH and not self.given_up.done():
                        self.given_up.set_result(None)

    def note_ends(self, findings: Collection[Finding]) -> None:
        """Add findings about how a handler ends that was replayed as a whole."""
        self.note(
            [replace(one, place=one.place if one.line else self.returned) for one in findings]
        )

    def taken_problems(self) -> list[Exception]:
        """Return what was found since this was called last, as an error if anything was."""
        with self._lock:
            new, self._raised = self.findings[self._raised :], len(self.findings)
        return [ReplayError(new)] if new else []

    def _looker(self, run_id: str) -> Look:
        def look(frame: FrameType) -> tuple[Given, Callable[[], Given]]:
            frames = list(handlers_frames(frame))
            with self._lock:
                self._code.setdefault(run_id, set()).update(one.f_code for one in frames)
                modules = self._modules.setdefault(run_id, {})
                modules.update({id(one.f_globals): one.f_globals for one in frames})
            for one in frames:
                self.note(list(set_orders(one)))
            return self._values.given_here(frame)

        return look

    def _changed(self, met: Met, given: Given) -> None:
        """Note what the body of a step has changed of what it was given."""
        self.note([mutated(met, name, text) for name, text in given.items()
                   if met.given.get(name, text) != text])  # fmt: skip

    def _ended(self, call: WatchedCall) -> None:
        """Compare a call that has ended with the one before it."""
        run_id = call.run.run_id
        before = self._last.get(run_id)
        now = self._last[run_id] = self._trace(call, before)
        if before is not None:
            self.note(list(compared(before, now)))
        self._judge_acts(run_id, now)

    def _trace(self, call: WatchedCall, before: Trace | None) -> Trace:
        error = call.error or (self._logged.last if call.responded else None)
        return Trace(
            1 if before is None else before.number + 1,
            tuple(call.met),
            call.responded,
            not (call.cut_short or call.left_branches or _raced(call)),
            "" if error is None else f"{type(error).__name__}: {error}",
            NOWHERE if error is None else place_of(error.__traceback__),
        )

    def _judge_acts(self, run_id: str, now: Trace) -> None:
        with self._lock:
            done = self._acts.done.pop(run_id, [])
            read = self._acts.read.pop(run_id, {})
            code = self._code.get(run_id, set())
            before = self._environment.setdefault(run_id, {})
        found = [_unstepped(act) for act in done if act.code & code]
        for name, (value, act) in read.items():
            if name in before and before[name][0] != value and act.code & code:
                found.append(_environment(name, before[name][0], value, act, now))
            before[name] = value, act
        self.note(found)


def _raced(call: WatchedCall) -> bool:
    return any(one.kind == RACE for one in call.met)


def _unstepped(act: Act) -> Finding:
    message = (
        f"the handler does {act.what} outside of a step, so every call does it again; put it into "
        "a step"
    )
    return Finding("unstepped_io", message, place=act.place, now=act.what)


def _timely(found: Finding) -> Finding:
    return replace(found, message=f"if a call is a day later: {found.message}")


def _dependent(name: str, found: Finding, act: Act) -> Finding:
    message = (
        f"the environment variable {name} decides what happens to step {found.step!r}, and a later "
        "call may be in a process that has another value; read it in a step, or once when the "
        "application starts"
    )
    return Finding(
        "environment_differs", message, found.step, found.tool, act.place, found.before, found.now
    )


def _environment(name: str, before: str | None, value: str | None, act: Act, now: Trace) -> Finding:
    message = (
        f"the environment variable {name} is {value!r} in call {now.number}, and was {before!r} in "
        "an earlier call"
    )
    return Finding(
        "environment_differs", message, place=act.place, before=repr(before), now=repr(value)
    )
