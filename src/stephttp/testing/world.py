"""An engine and an application in the process of a test, on a clock that the test moves.

The engine is the real one, on SQLite in memory. The SDK reaches it, and it the application, by
calls in this process; nothing is on the network, and nothing waits for real.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import msgspec

from stephttp.engine.app import create_app
from stephttp.engine.engine import Engine
from stephttp.engine.model.clock import VirtualClock
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.settings import Backoff, Settings
from stephttp.engine.reading import EventFilter, Paging, RunFilter
from stephttp.errors import UsageError
from stephttp.provider import Provider
from stephttp.testing.asgi_calls import ASGICaller, Lifespan
from stephttp.testing.recorded import RecordedEvent, RecordedRun, recorded, recorded_event
from stephttp.testing.stand_ins import stand_ins
from stephttp.testing.stubs import Stubs
from stephttp.testing.takeover import is_wsgi, runtimes_of, taken_over
from stephttp.testing.wsgi_calls import FromThreads, InThread, OnLoop, WSGICaller

ENGINE = "http://engine.stephttp.test"
"""The origin of the engine in a test. Nothing listens there."""

_MOST_TURNS = 10_000
"""How often one call of a client moves the clock to the next due time."""

_MOST_SHOWN = 5
"""Runs that are shown with an error."""

WaitFor = Callable[[Future[httpx2.Response]], httpx2.Response]


class Stuck(AssertionError):
    """A run that a test waits for makes no progress, however much time passes."""


class World:
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

    Raises:
        ConfigurationError: the application is not one, or has no durable middleware.
    """

    def __init__(
        self,
        app: Any,
        *,
        providers: Iterable[Provider] = (),
        base_url: str,
        start: datetime | None = None,
        database: Path | None = None,
        raises: bool = True,
        stubs: Stubs,
        in_thread: InThread = asyncio.to_thread,
        wait: WaitFor = Future.result,
    ) -> None:
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
        self._exits = AsyncExitStack()
        self._stubs = stubs
        self._client: httpx2.AsyncClient | None = None
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        """The engine, while the world is open."""
        if self._engine is None:
            raise UsageError(
                "the client is not open; use it as a context manager: "
                "`with DurableClient(app) as client:`"
            )
        return self._engine

    @property
    def client(self) -> httpx2.AsyncClient:
        """What sends requests to the application, and to the engine's public addresses."""
        assert self.engine is not None
        assert self._client is not None
        return self._client

    @property
    def now(self) -> datetime:
        """What the clock shows."""
        return datetime.fromtimestamp(self.clock.now(), UTC)

    async def open(self) -> None:
        """Start the engine, take over the application's providers, and start the application."""
        try:
            await self._open()
        except BaseException:
            await self.close()
            raise

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        lifespan = None if self.is_wsgi else Lifespan(self.app)
        state = {} if lifespan is None else lifespan.state
        from_engine = self._caller(state, raises=False)
        engine_app = create_app(
            Settings(
                db_path=":memory:" if self._database is None else str(self._database),
                retry=Backoff(jitter=0.0),
                unreachable=Backoff(longest=30.0, jitter=0.0),
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
        self._exits.push_async_callback(to_engine.aclose)
        self._exits.push_async_callback(self._close_app, from_engine)
        self._exits.enter_context(
            taken_over(
                self.runtimes,
                ENGINE,
                transport=to_engine,
                sync_transport=FromThreads(to_engine, loop, self._wait),
                now_ns=lambda: self.clock.now_ms() * 1_000_000,
                pause=lambda seconds: asyncio.sleep(0),
                sync_pause=lambda seconds: None,
                rng=random.Random(1),
                background=partial(OnLoop, loop),
            )
        )
        self._exits.enter_context(stand_ins(self.runtimes, self._stubs))
        self._exits.push_async_callback(self._drain)
        if lifespan is not None:
            await lifespan.start()
            self._exits.push_async_callback(lifespan.stop)
        self._client = httpx2.AsyncClient(
            transport=_Both(to_engine, self._caller(state, raises=self._raises)),
            base_url=self.base_url,
        )
        self._exits.push_async_callback(self._client.aclose)

    async def close(self) -> None:
        """End the application, deliver what is left, stop the engine, and give all back."""
        await self._exits.aclose()
        self._engine = None

    def check(self) -> None:
        """Raise what went wrong beside the test.

        Raises:
            AssertionError: for example a request to the network.
        """
        if self._stubs.problems:
            raise self._stubs.problems.pop(0)

    async def explain(self, error: Exception) -> None:
        """Add the runs as text to what a test has raised."""
        with suppress(Exception):  # what it raised counts
            for run in (await self.runs())[-_MOST_SHOWN:]:
                error.add_note(f"\n{run}")

    async def settle(self) -> None:
        """Return once everything is done that can be done without letting time pass."""
        while True:
            for runtime in self.runtimes:
                await runtime.outbox.wait()
            await self.engine.idle()
            if not any(runtime.outbox.depth for runtime in self.runtimes):
                return

    async def next_due(self) -> int | None:
        """Return when the engine has something to do next, in milliseconds since the epoch."""
        return await self.engine.store.read(_next_due)

    async def turn(self) -> bool:
        """Move the clock to when the engine has something to do next, and let it do that.

        Returns:
            Whether there is such a time.
        """
        due_ms = await self.next_due()
        if due_ms is None:
            return False
        self.clock.advance(max(0, due_ms - self.clock.now_ms()) / 1000)
        await self.settle()
        return True

    async def advance(self, time: timedelta) -> None:
        """Let time pass; what falls due meanwhile happens at its time.

        Raises:
            ValueError: the time is negative.
        """
        if time < timedelta(0):
            raise ValueError(f"time runs forward only, not by {time}")
        await self.settle()
        end_ms = self.clock.now_ms() + round(time.total_seconds() * 1000)
        for _ in range(_MOST_TURNS):
            due_ms = await self.next_due()
            if due_ms is None or due_ms > end_ms:
                break
            await self.turn()
        self.clock.advance(max(0, end_ms - self.clock.now_ms()) / 1000)
        await self.settle()

    async def until(self, run_id: str, reached: Callable[[RecordedRun], bool], what: str) -> None:
        """Let time pass until a run has come somewhere.

        Args:
            run_id: the run.
            reached: whether it has.
            what: names that, for the message.

        Raises:
            Stuck: it does not come there.
        """
        await self.settle()
        for _ in range(_MOST_TURNS):
            self.check()
            run = await self.run(run_id)
            if reached(run):
                return
            if run.ended:
                raise Stuck(f"the run ended before it {what}:\n\n{run}")
            if not await self.turn():
                waits = "; ".join(map(str, run.waits)) or "its handler"
                raise Stuck(
                    f"nothing is due any more, and the run never {what}. It waits for: {waits}. "
                    f"Send what it waits for: client.send_event(...)\n\n{run}"
                )
        raise Stuck(f"after {_MOST_TURNS} waits the run has not {what}; does it loop forever?")

    async def run(self, run_id: str) -> RecordedRun:
        """Return a run as it stands now.

        Raises:
            LookupError: the engine does not have it.
        """
        try:
            return recorded(await self.engine.reader.run(run_id))
        except Refused as refused:
            raise LookupError(f"the engine has no run {run_id}: {refused}") from None

    async def runs(self) -> list[RecordedRun]:
        """Return all runs, in the order in which they began."""
        await self.settle()
        ids: list[str] = []
        cursor: str | None = None
        while True:
            page = await self.engine.reader.runs(RunFilter(), Paging(limit=100, cursor=cursor))
            ids += [row.run_id for row in page.items]
            cursor = page.older
            if cursor is None:
                return [await self.run(run_id) for run_id in reversed(ids)]

    async def events(self) -> list[RecordedEvent]:
        """Return all events, in the order in which they came."""
        await self.settle()
        found: list[RecordedEvent] = []
        cursor: str | None = None
        while True:
            page = await self.engine.reader.events(EventFilter(), Paging(limit=100, cursor=cursor))
            found += map(recorded_event, page.items)
            cursor = page.older
            if cursor is None:
                return found[::-1]

    async def send_event(self, name: str, data: Any, event_id: str | None) -> None:
        """Send an event, as one from outside."""
        event: dict[str, Any] = {"name": name, "data": {} if data is None else data}
        if event_id is not None:
            event["id"] = event_id
        await self.settle()
        await self.engine.send_event(msgspec.json.encode(event))
        await self.settle()

    async def send_signal(self, name: str, data: Any) -> str:
        """Send a signal; return the id of the run that waited for it.

        Raises:
            AssertionError: no run waits for it.
        """
        await self.settle()
        try:
            run_id = await self.engine.signal(name, msgspec.json.encode(data))
        except Refused as refused:
            raise AssertionError(f"signal {name!r}: {refused}") from None
        await self.settle()
        return run_id

    async def cancel(self, run_id: str) -> None:
        """End a run as cancelled."""
        await self.settle()
        await self.engine.cancel(run_id)
        await self.settle()

    async def save(self, path: Path) -> None:
        """Write the engine's database to a file, for `stephttp start --db` and its dashboard."""
        await self.settle()

        # Not `backup`, which waits for the transaction in which it is called.
        content = await self.engine.store.read(sqlite3.Connection.serialize)
        await asyncio.to_thread(path.write_bytes, content)

    def _caller(self, state: dict[str, Any], *, raises: bool) -> httpx2.AsyncBaseTransport:
        if self.is_wsgi:
            return WSGICaller(self.app, self._in_thread, raises=raises)
        return ASGICaller(self.app, raises=raises, state=state)

    async def _drain(self) -> None:
        for runtime in self.runtimes:
            await runtime.outbox.wait(1.0)

    async def _close_app(self, caller: httpx2.AsyncBaseTransport) -> None:
        await caller.aclose()


class _Both(httpx2.AsyncBaseTransport):
    """Requests to the engine and to the application, which has every other address."""

    def __init__(
        self, to_engine: httpx2.AsyncBaseTransport, to_app: httpx2.AsyncBaseTransport
    ) -> None:
        self._to_engine = to_engine
        self._to_app = to_app

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        at_engine = str(request.url).startswith(ENGINE)
        return await (self._to_engine if at_engine else self._to_app).handle_async_request(request)

    async def aclose(self) -> None:
        await self._to_app.aclose()


def _next_due(connection: sqlite3.Connection) -> int | None:
    found: int | None = connection.execute("SELECT min(due_ms) FROM timers").fetchone()[0]
    return found
