"""An engine and an application in the process of a test, on a clock that the test moves.

The engine is the real one, on SQLite in memory. The SDK reaches it, and it the application, by
calls in this process; nothing is on the network, and nothing waits for real.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import httpx2

from stephttp.engine.app import create_app
from stephttp.engine.engine import Engine
from stephttp.engine.model.clock import VirtualClock
from stephttp.engine.model.settings import Backoff, Settings
from stephttp.errors import UsageError
from stephttp.provider import Provider
from stephttp.testing.always_replay import AlwaysReplay
from stephttp.testing.asgi_calls import ASGICaller, Lifespan
from stephttp.testing.beside_requests import OnLoop, beside_requests
from stephttp.testing.completed_runs import replay_completed
from stephttp.testing.crashes import Crashes
from stephttp.testing.engine_in_test import EngineInTest
from stephttp.testing.findings import NOWHERE, Place
from stephttp.testing.problems import INTERRUPTIONS, add_problems, add_runs, raise_problems
from stephttp.testing.process_traffic import ToApp, ToEngine
from stephttp.testing.stand_ins import stand_ins
from stephttp.testing.stubs import Stubs
from stephttp.testing.takeover import is_wsgi, runtimes_of, taken_over
from stephttp.testing.transports import ENGINE, FromApp, ToBoth
from stephttp.testing.wsgi_calls import FromThreads, InThread, WSGICaller

T = TypeVar("T")

_LEASES_END = timedelta(minutes=1)
"""After that time the engine takes over the runs of a process that has died."""

_FOREVER = timedelta(days=100_000).total_seconds()
"""How long a stream can be followed: a wait of days passes at once, and no client comes again."""


class WaitFor(Protocol):
    """Waits for a future, in a thread."""

    def __call__(self, future: Future[T], /) -> T: ...


class World(EngineInTest):
    """The engine and the application of one client, on one event loop.

    Args:
        app: the application, of ASGI or WSGI.
        providers: its providers, where they cannot be found in it.
        base_url: the origin at which the application is called.
        start: the first time that the clock shows; `None`: the present.
        database: the engine's file; `None`: in memory.
        raises: whether what the application raises in a first call is raised in the test.
        stubs: take the place of steps' functions, and of hosts.
        in_thread: calls WSGI applications.
        wait: waits in their threads.
        always_replay: compares the calls of handlers.
        opening: how the client is opened, in code.

    Raises:
        ConfigurationError: the application is not one, or has no durable middleware.
    """

    def __init__(
        self,
        app: Any,
        *,
        providers: Iterable[Provider],
        base_url: str,
        start: datetime | None,
        database: Path | None,
        raises: bool,
        stubs: Stubs,
        in_thread: InThread,
        wait: WaitFor,
        always_replay: AlwaysReplay | None,
        opening: str,
    ) -> None:
        super().__init__()
        self.app = app
        self.is_wsgi = is_wsgi(app)
        self.runtimes = runtimes_of(app, providers)
        self.base_url = base_url
        began = datetime.now(UTC) if start is None else start
        self.clock = VirtualClock(round(began.timestamp() * 1000))
        self._database = database
        self._raises = raises
        self._in_thread = in_thread
        self._wait = wait
        self.always_replay = always_replay
        self.app_state: dict[str, Any] = {}
        self.crashes: Crashes | None = None
        """The process of the application, where it is to die."""
        self._exits = AsyncExitStack()
        self._stubs = stubs
        self._opening = opening
        self._opened_at = NOWHERE
        self._has_been_open = False
        self._client: httpx2.AsyncClient | None = None
        self._engine: Engine | None = None
        self._from_test: httpx2.AsyncBaseTransport | None = None

    @property
    def calls_under_way(self) -> bool:
        """Whether the application is at work on a request of the test."""
        caller = self._from_test
        caller = caller.caller if isinstance(caller, ToApp) else caller
        return isinstance(caller, ASGICaller) and caller.under_way

    @property
    def engine(self) -> Engine:
        """The engine, while the world is open."""
        if self._engine is None:
            raise self.not_open()
        return self._engine

    @property
    def client(self) -> httpx2.AsyncClient:
        """What sends requests to the application, and to the engine's public addresses."""
        if self._client is None:
            raise self.not_open()
        return self._client

    def not_open(self) -> UsageError:
        """Return the error of what needs an open client."""
        if self._has_been_open:
            return UsageError(
                f"the client is closed, and its engine with it; use it inside of `{self._opening}`"
            )
        return UsageError(f"the client is not open; use it as a context manager: `{self._opening}`")

    async def open(self, opened_at: Place) -> None:
        """Start the engine, take over the application's providers, and start the application.

        Args:
            opened_at: the line of the test that wants it.
        """
        self._opened_at = opened_at
        try:
            await self._open()
            self._has_been_open = True
        except BaseException:
            await self.close()
            raise

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        lifespan = None if self.is_wsgi else Lifespan(self.app)
        state = self.app_state = {} if lifespan is None else lifespan.state
        from_engine = self._caller(state, raises=False)
        engine_app = create_app(
            Settings(
                db_path=":memory:" if self._database is None else str(self._database),
                retry=Backoff(jitter=0.0),
                unreachable=Backoff(longest=30.0, jitter=0.0),
                stream_lifetime=_FOREVER,
                stream_keep_alive=_FOREVER,
            ),
            clock=self.clock,
            rng=random.Random(2),
            transport=from_engine,
            gateway=httpx2.MockTransport(self._stubs.respond),
        )
        engine: Engine = engine_app.state.engine
        await engine.start()
        self._engine = engine
        self._exits.push_async_callback(engine.stop)
        to_engine = ASGICaller(engine_app, state={})
        from_app: httpx2.AsyncBaseTransport = FromApp(to_engine, self)
        if self.crashes is not None:
            from_app = ToEngine(self.crashes, from_app)
        self._exits.push_async_callback(to_engine.aclose)
        self._exits.push_async_callback(from_engine.aclose)
        self._exits.enter_context(
            taken_over(
                self.runtimes,
                ENGINE,
                self.clock.now,
                self._opened_at,
                transport=from_app,
                sync_transport=FromThreads(from_app, loop, self._wait),
                now_ns=lambda: self.clock.now_ms() * 1_000_000,
                pause=self._pause,
                sync_pause=lambda seconds: self._wait(
                    asyncio.run_coroutine_threadsafe(self._pause(seconds), loop)
                ),
                rng=random.Random(1),
                background=partial(OnLoop, loop),
            )
        )
        self._exits.enter_context(stand_ins(self.runtimes, self._stubs))
        self._exits.push_async_callback(self._drain)
        if self.always_replay is not None:
            self._exits.enter_context(self.always_replay.watching(self.runtimes))
        if self.crashes is not None:
            advance = partial(self.advance, _LEASES_END)
            watching = self.crashes.watching(self.runtimes, advance, self.clock.advance)
            self._exits.enter_context(watching)
        if lifespan is not None:
            await lifespan.start()
            self._exits.push_async_callback(lifespan.stop)
        self._from_test = self._caller(state, raises=self._raises)
        self._client = httpx2.AsyncClient(
            transport=ToBoth(to_engine, self._from_test), base_url=self.base_url
        )
        self._exits.push_async_callback(self._client.aclose)

    async def close(self) -> None:
        """End the application, deliver what is left, stop the engine, and give all back."""
        await self._exits.aclose()
        self._engine = self._client = None

    def check(self) -> None:
        """Raise what went wrong beside the test.

        Raises:
            AssertionError: for example a request to the network.
        """
        raise_problems(self.taken_problems())

    def taken_problems(self) -> list[Exception]:
        """Return what went wrong beside the test since this was called last."""
        always = self.always_replay
        found = [] if always is None else always.taken_problems()
        return [*self._stubs.taken_problems(), *found]

    async def explain(self, error: BaseException) -> None:
        """Add to what a test has raised: what went wrong beside it, and the runs as text."""
        if not isinstance(error, INTERRUPTIONS):
            add_problems(error, self.taken_problems())
            with suppress(Exception):  # what it raised counts
                add_runs(error, await self.runs())

    async def settle(self) -> None:
        """Return once everything is done that can be done without letting time pass."""
        while True:
            for runtime in self.runtimes:
                await runtime.outbox.wait()
            if not await self._idle():
                self.check()
                return
            if not any(runtime.outbox.depth for runtime in self.runtimes):
                break
        if self.always_replay is not None:
            caller = self._caller(self.app_state, raises=True)
            await replay_completed(self.always_replay, self.engine, self.runtimes, caller)

    async def _idle(self) -> bool:
        """Return once the engine has nothing to do. Return whether that was to be waited for: not
        if each call of a handler differs from the one before, as it may do so forever."""
        if self.always_replay is None:
            await self.engine.idle()
            return True
        idle = asyncio.ensure_future(self.engine.idle())
        given_up = asyncio.wrap_future(self.always_replay.given_up)
        try:
            await asyncio.wait((idle, given_up), return_when=asyncio.FIRST_COMPLETED)
            if idle.done():
                await idle
                return True
            return False
        finally:
            idle.cancel()

    def _caller(self, state: dict[str, Any], *, raises: bool) -> httpx2.AsyncBaseTransport:
        if (crashes := self.crashes) is not None:
            return ToApp(crashes, self._dying(crashes, state), raises=raises)
        if self.is_wsgi:
            return WSGICaller(self.app, self._in_thread, raises=raises)
        return ASGICaller(self.app, raises=raises, state=state)

    def _dying(self, crashes: Crashes, state: dict[str, Any]) -> httpx2.AsyncBaseTransport:
        """Return what calls the application in a process that dies."""
        if self.is_wsgi:
            return WSGICaller(self.app, crashes.in_thread(self._in_thread), raises=True)
        return ASGICaller(crashes.app(self.app), raises=True, state=state)

    async def _pause(self, seconds: float) -> None:
        """Let time pass that the SDK waits, but not for its work beside the requests."""
        if beside_requests.get():
            await asyncio.sleep(0)
        else:
            await self.let_pass(seconds)

    async def _drain(self) -> None:
        for runtime in self.runtimes:
            await runtime.outbox.wait(1.0)
