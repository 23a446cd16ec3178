"""The death of the process at one boundary of a test, for `crash_everywhere`.

A first run of the test notes the boundaries: the ends of steps, what the SDK sends to the engine,
and the answers of the application. Then the test runs once for each of them, and there the process
dies: its handler does not continue, what it was about to send is not sent, and what it knew is
gone. The engine, the clock and the test's own services live on.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Collection, Coroutine, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

from msgspec import Struct

from stephttp._core.remembered import title_of
from stephttp._core.run import Run
from stephttp._core.steps import Step, Verdict
from stephttp._run.current import HandlerCall
from stephttp._run.runtime import Runtime
from stephttp._run.scope import RunScope
from stephttp.testing.quiet_deaths import (
    Died,
    ProcessDied,
    forget_errors_here,
    quiet_deaths,
)
from stephttp.testing.wsgi_calls import InThread

T = TypeVar("T")

_GLANCE, _SHORT = 0.002, 0.25
"""Seconds of real time after which the clock moves by so many seconds, while the engine lets a new
process wait."""
process_number: ContextVar[int] = ContextVar("stephttp_process", default=0)
"""The number of the process that the current code belongs to."""


class Boundary(Struct, frozen=True):
    """A moment at which the process may die.

    Attributes:
        number: its place among all of a test, from 0.
        what: what has just happened, or is about to.
        first_call: whether the caller of the request still waits for its first answer.
    """

    number: int
    what: str
    first_call: bool

    def __str__(self) -> str:
        return f"boundary {self.number + 1}, {self.what}"


class Crashes:
    """The process of the application in one run of a test, and when it dies.

    Args:
        at: the boundary at which it does; `None`: at no one.
    """

    def __init__(self, at: int | None = None) -> None:
        self.seen: list[Boundary] = []
        """The boundaries so far, in their order."""
        self.died_at: Boundary | None = None
        self.has_met_step = False
        """Whether a handler has come to a step."""
        self._at = at
        self._number = 1
        self._end: Future[None] = Future()
        """Done when the process dies."""
        self._dying = threading.RLock()
        """Held while it does, and while it changes an outbox."""
        self._runtimes: Collection[Runtime] = ()
        self._advance: Callable[[], Awaitable[None]] | None = None

    @contextmanager
    def watching(
        self,
        runtimes: Collection[Runtime],
        advance: Callable[[], Awaitable[None]],
        tick: Callable[[float], object],
    ) -> Generator[None]:
        """See the runs of these providers while the block runs.

        Args:
            runtimes: of the providers.
            advance: lets so much time pass that the engine takes over the runs of a process that
                has died.
            tick: moves the clock by so many seconds.
        """
        self._runtimes, self._advance, self._tick = runtimes, advance, tick
        for runtime in runtimes:
            runtime.watch = self._watch
            outbox = runtime.outbox
            guards = {"put": self._if_alive(outbox.put), "remove": self._if_alive(outbox.remove)}
            vars(outbox).update(guards)
        try:
            with quiet_deaths(self.is_dead):
                yield
        finally:
            for runtime in runtimes:
                for name in ("put", "remove"):
                    del vars(runtime.outbox)[name]

    def in_thread(self, call: InThread) -> InThread:
        """Return what calls a WSGI application in a thread of the process."""

        def carried(work: Callable[[], T]) -> Awaitable[T]:
            context = copy_context()
            return call(lambda: context.run(lambda: _as_exception(work)))

        return carried

    def app(self, app: Any) -> Any:
        """Return an ASGI application that lives in a process."""

        async def in_process(scope: Any, receive: Any, send: Any) -> None:
            try:
                await app(scope, receive, send)
            except ProcessDied:
                raise Died from None

        return in_process

    @property
    def number(self) -> int:
        """The number of the process that is alive."""
        return self._number

    async def while_alive(self, answer: Coroutine[Any, Any, T]) -> T:
        """Wait for an answer of the process, which does not come if it dies.

        Raises:
            ProcessDied: it does.
        """
        end = asyncio.wrap_future(self._end)
        answering = asyncio.ensure_future(answer)
        try:
            await asyncio.wait((answering, end), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not answering.done():
                answering.cancel()
                await asyncio.wait((answering,))
        if answering.cancelled():
            raise ProcessDied
        return answering.result()

    async def patiently(self, answer: Coroutine[Any, Any, T]) -> T:
        """Wait for the engine. It lets a new process wait until the old one has surely ended."""
        waiting = asyncio.ensure_future(answer)
        try:
            while not (await asyncio.wait((waiting,), timeout=_GLANCE))[0]:
                self._tick(_SHORT)
        except BaseException:
            waiting.cancel()
            raise
        return await waiting

    async def before_request(self) -> None:
        """Let time pass before the first request after the death: its caller had to notice it."""
        advance, self._advance = self._advance, None if self.died_at else self._advance
        if self.died_at is not None and advance is not None:
            await advance()

    def is_dead(self, number: int | None = None) -> bool:
        """Return whether a process has died: that of the current code, if none is given."""
        number = process_number.get() if number is None else number
        return bool(number) and number != self._number

    def check_alive(self) -> None:
        """Let the current code go no further if its process has died.

        Raises:
            ProcessDied: it has.
        """
        if self.is_dead():
            raise _death()

    def boundary(self, what: str, *, first_call: bool) -> None:
        """Note a boundary; the process dies if it is the one.

        Raises:
            ProcessDied: it does, or has done so.
        """
        self.check_alive()
        found = Boundary(len(self.seen), what, first_call)
        self.seen.append(found)
        if found.number == self._at:
            with self._dying:
                self.died_at = found
                self._number += 1
                self._end, end = Future(), self._end
                end.set_result(None)
                for runtime in self._runtimes:
                    _forget(runtime)
            raise _death()

    def _if_alive(self, work: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return what does something with an outbox, unless the process that asks is dead: the
        outbox is that of the next one."""

        def if_alive(given: Any) -> Any:
            with self._dying:
                return not self.is_dead() and work(given)

        return if_alive

    def _watch(self, call: HandlerCall, scope: RunScope) -> None:
        self.has_met_step = True
        run: Run = scope.run
        complete, resolve, first_call = run.complete, run.resolve, not run.resumed

        def resolve_alive(*args: Any) -> Step:
            self.check_alive()
            return resolve(*args)

        def complete_and_die(step: Step, *args: Any) -> Verdict:
            verdict = complete(step, *args)
            name = title_of(step.step_id, step.index)
            self.boundary(f"behind the function of step {name!r}", first_call=first_call)
            return verdict

        vars(run).update(complete=complete_and_die, resolve=resolve_alive)


def _death() -> ProcessDied:
    forget_errors_here()
    return ProcessDied()


def _forget(runtime: Runtime) -> None:
    """Lose what a process knew, as one that begins."""
    with runtime.outbox.lock:  # or a waiter comes between the two, and waits for what is lost
        drained = runtime.outbox._drained
        runtime.reset_after_fork()
    runtime.waited.clear()
    runtime.checkpoints.keys.features = None
    if drained is not None and not drained.done():
        drained.set_result(None)  # the client waits for what will not be delivered


def _as_exception(work: Callable[[], T]) -> T:
    try:
        return work()
    except ProcessDied:
        raise Died from None
