"""`crash_everywhere`: a test again and again, each time with the death of the process elsewhere.

A first run of the test notes the boundaries: the ends of steps, what the SDK sends to the engine,
and the answers of the application. Then the test runs once for each of them, and there the process
dies: its handler does not continue, what it was about to send is not sent, and what it knew is
gone. The engine, the clock and the test's own services live on.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Awaitable, Callable, Collection, Coroutine, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

import httpx2
from msgspec import Struct

from stephttp._core.remembered import title_of
from stephttp._core.run import Run
from stephttp._core.steps import Step, Verdict
from stephttp._run.current import HandlerCall
from stephttp._run.runtime import Runtime
from stephttp._run.scope import RunScope
from stephttp.testing.quiet_deaths import (
    DEATH,
    Died,
    ProcessDied,
    forget_errors_here,
    quiet_deaths,
)
from stephttp.testing.wsgi_calls import InThread

T = TypeVar("T")

_NAMES = re.compile("/[0-9A-HJKMNP-TV-Z]{26}(?=/|$)|(?<=^/e)/.+")
"""Ids of runs, and keys, in the paths of the engine."""
_REENTRY = "x-stephttp-attempt"
_GLANCE, _SHORT = 0.002, 0.25
"""Seconds of real time after which the clock moves by so many seconds, while the engine lets a new
process wait."""
_process: ContextVar[int] = ContextVar("stephttp_process", default=0)
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

    def to_app(self, caller: httpx2.AsyncBaseTransport, *, raises: bool) -> ToApp:
        """Return what calls the application, which lives in a process.

        Args:
            caller: calls it, and raises what it raises.
            raises: whether that is raised here as well; otherwise the answer is a 500.
        """
        return ToApp(self, caller, raises=raises)

    def to_engine(self, transport: httpx2.AsyncBaseTransport) -> httpx2.AsyncBaseTransport:
        """Return what carries requests of the SDK to the engine."""
        return _ToEngine(self, transport)

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
        number = _process.get() if number is None else number
        return bool(number) and number != self._number

    def boundary(self, what: str, *, first_call: bool) -> None:
        """Note a boundary; the process dies if it is the one.

        Raises:
            ProcessDied: it does, or has done so.
        """
        if self.is_dead():
            raise _death()
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
            if self.is_dead():
                raise _death()
            return resolve(*args)

        def complete_and_die(step: Step, *args: Any) -> Verdict:
            verdict = complete(step, *args)
            name = title_of(step.step_id, step.index)
            self.boundary(f"behind the function of step {name!r}", first_call=first_call)
            return verdict

        vars(run).update(complete=complete_and_die, resolve=resolve_alive)


class ToApp(httpx2.AsyncBaseTransport):
    """Calls an application in its process."""

    def __init__(
        self, crashes: Crashes, caller: httpx2.AsyncBaseTransport, *, raises: bool
    ) -> None:
        self._crashes = crashes
        self.caller = caller
        self._raises = raises

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Call the application, and return its whole response."""
        crashes, is_first = self._crashes, _REENTRY not in request.headers
        if is_first:
            await crashes.before_request()
        number = crashes.number
        token = _process.set(number)
        what = f"{request.method} {request.url.path}"
        asked = "the request" if is_first else "the engine's call"
        try:
            response = await crashes.while_alive(self._answer(request))
            if response.headers.get("x-run-id"):
                crashes.boundary(f"before the answer to {asked} {what}", first_call=is_first)
        except (Died, ProcessDied):
            raise httpx2.ReadError(DEATH, request=request) from None
        except Exception:
            if crashes.is_dead(number):
                raise httpx2.ReadError(DEATH, request=request) from None
            if self._raises:
                raise
            return httpx2.Response(500, request=request)
        finally:
            _process.reset(token)
        if crashes.is_dead(number):
            raise httpx2.ReadError(DEATH, request=request)
        return response

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        return await _whole(await self.caller.handle_async_request(request), request)

    async def aclose(self) -> None:
        """End the requests that are still under way."""
        await self.caller.aclose()


class _ToEngine(httpx2.AsyncBaseTransport):
    """Carries requests of a process to the engine."""

    def __init__(self, crashes: Crashes, transport: httpx2.AsyncBaseTransport) -> None:
        self._crashes = crashes
        self._transport = transport

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request, unless the process is dead by then."""
        crashes = self._crashes
        if not _process.get():  # the test itself asks
            return await self._transport.handle_async_request(request)
        what = f"{request.method} {_NAMES.sub('/…', request.url.path)}"
        first_call = request.method == "POST" and request.url.path == "/v1/http/runs"
        if request.method != "GET":
            crashes.boundary(f"before {what} is sent", first_call=first_call)
        answer = self._transport.handle_async_request(request)
        response = await (answer if crashes.died_at is None else crashes.patiently(answer))
        if request.method != "GET":
            response = await _whole(response, request)
            crashes.boundary(f"behind {what}, which the engine has", first_call=first_call)
        elif crashes.is_dead():
            raise ProcessDied
        return response

    async def aclose(self) -> None:
        """Close what carries them."""
        await self._transport.aclose()


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


async def _whole(response: httpx2.Response, request: httpx2.Request) -> httpx2.Response:
    """Return a response whose body is here, as it was sent."""
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    body = b"".join([chunk async for chunk in response.stream])
    headers, stream = response.headers.raw, httpx2.ByteStream(body)
    return httpx2.Response(response.status_code, headers=headers, stream=stream, request=request)


def _as_exception(work: Callable[[], T]) -> T:
    try:
        return work()
    except ProcessDied:
        raise Died from None
