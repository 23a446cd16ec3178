"""An application and a real engine in one process, on a virtual clock, without ports.

The SDK reaches the engine, and the engine the application, through ASGI transports; everything in
between is what runs in production.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2

from stephttp.engine.app import create_app
from stephttp.engine.model.clock import VirtualClock
from stephttp.engine.model.settings import Settings as EngineSettings
from stephttp.options import resolve
from stephttp.provider import Provider
from tests.wsgi import Blocking, WSGITransport

APP, ENGINE = "http://app.test", "http://engine.test"
KEY = "ab" * 16


class Late(httpx2.AsyncBaseTransport):
    """Hands requests to an application (ASGI, or WSGI) that is set later, and counts them, but for
    the question what the server is, which a process asks before its first run waits."""

    def __init__(self, *, wsgi: bool = False) -> None:
        self.app: Any = None
        self.wsgi = wsgi
        self.down = False
        self.requests: list[httpx2.Request] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path != "/health":
            self.requests.append(request)
        if self.down:
            raise httpx2.ConnectError("connection refused", request=request)
        return await self.inner().handle_async_request(request)

    def inner(self, **options: Any) -> httpx2.AsyncBaseTransport:
        """The application itself, not counted."""
        if self.wsgi:
            return WSGITransport(self.app)
        return httpx2.ASGITransport(**{"app": self.app, "raise_app_exceptions": False} | options)


class Durable:
    """A durable application under test.

    Args:
        build: makes the wrapped application from a provider.
        wsgi: whether it is one of WSGI; it is then called in worker threads.
        key: signing key of both sides; empty means development.
        dev: whether the application is in development; by default without a key.
        path: the engine's database, where it is not in memory only.
        gateway: carries the HTTP requests of steps, where they may not go out.
        monotonic: seconds of the SDK's clock that never jumps, of the virtual clock; by default
            those of the machine.
        options: further options of the SDK, as `setup` takes them. With a key, the engine accepts
            the `event_key`.
    """

    def __init__(
        self,
        build: Callable[[Provider], Any],
        *,
        key: str = "",
        dev: bool | None = None,
        wsgi: bool = False,
        path: Path | None = None,
        gateway: httpx2.AsyncBaseTransport | None = None,
        monotonic: Callable[[VirtualClock], float] | None = None,
        **options: Any,
    ) -> None:
        self.clock = VirtualClock()
        self.to_engine, self.to_app = Late(), Late(wsgi=wsgi)
        self._key = key
        self._gateway = gateway
        self._environ = {"INNGEST_SIGNING_KEY": key} if key else {}
        self._environ |= {"INNGEST_DEV": "1"} if (not key if dev is None else dev) else {}
        self._settings = EngineSettings(
            db_path=str(path) if path else ":memory:",
            signing_keys=(key,) if key else (),
            event_keys=(options["event_key"],) if key and "event_key" in options else (),
        )
        self._monotonic = monotonic
        self._build = build
        self._options = options
        self._make_engine()
        self._make_app()

    def provide(self, **options: Any) -> Provider:
        """A provider on the SDK's side, as another process would have it."""
        blocking = Blocking(self.to_engine)
        blocking.loop = asyncio.get_running_loop()
        monotonic = self._monotonic
        clock: dict[str, Any] = {}
        if monotonic is not None:
            clock["monotonic_ns"] = lambda: round(monotonic(self.clock) * 1_000_000_000)
        return Provider(
            resolve(APP, base_url=ENGINE, environ=self._environ, **options),
            transport=self.to_engine,
            sync_transport=blocking,
            now_ns=lambda: self.clock.now_ms() * 1_000_000,
            pause=self._pause,
            sync_pause=lambda seconds: time.sleep(0),
            rng=random.Random(1),
            **clock,
        )

    def _make_app(self) -> None:
        self.provider = self.provide(**self._options)
        self.to_app.app = self._build(self.provider)
        self.client = httpx2.AsyncClient(
            transport=self.to_app.inner(raise_app_exceptions=True), base_url=APP
        )

    async def restart_app(self) -> None:
        """End the process of the application, and start another one, which knows no server yet."""
        assert await self.provider.aclose()
        await self.client.aclose()
        self._make_app()

    def _make_engine(self) -> None:
        engine_app = create_app(
            self._settings,
            clock=self.clock,
            rng=random.Random(2),
            transport=self.to_app,
            gateway=self._gateway,
        )
        self.engine = engine_app.state.engine
        self.to_engine.app = engine_app
        headers = {"authorization": f"Bearer {self._key}"} if self._key else {}
        self.api = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=engine_app), base_url=ENGINE, headers=headers
        )

    async def restart_engine(self) -> None:
        """Stop the engine, and start another one on its database."""
        await self.api.aclose()
        await self.engine.stop()
        self._make_engine()
        await self.engine.start()

    def lacks(self, feature: str) -> None:
        """From now on the engine is one that does not announce an extra."""
        send = self.to_engine.handle_async_request

        async def older(request: httpx2.Request) -> httpx2.Response:
            response = await send(request)
            told = response.headers.get("x-stephttp-features", "").split(", ")
            response.headers["x-stephttp-features"] = ", ".join(t for t in told if t != feature)
            return response

        self.to_engine.handle_async_request = older  # type: ignore[method-assign]

    @property
    def reentries(self) -> list[httpx2.Request]:
        """What the engine sent to the application."""
        return self.to_app.requests

    async def follow(self, response: httpx2.Response) -> httpx2.Response:
        """The final answer behind a redirect, turning the clock as far as it takes."""
        assert response.status_code == 303, (response.status_code, response.text)
        waiting = asyncio.ensure_future(self.result(response.headers["location"]))
        for _ in range(100):
            await self.engine.idle()
            if await self.status(response) != "Running":
                return await waiting
            await self.turn()
        raise AssertionError("the run does not end")

    async def result(self, location: str) -> httpx2.Response:
        """The answer at the engine's address of a result, however often that says: not yet."""
        while True:
            answer = await self.api.get(location)
            if answer.headers.get("x-stephttp-result") != "pending":
                return answer
            location = str(answer.url.join(answer.headers["location"]))

    async def turn(self) -> None:
        """Turn the clock to when the engine has something to do next."""
        due_ms = await self.due_ms()
        assert due_ms is not None, "nothing will ever happen"
        self.clock.advance(max(0, due_ms - self.clock.now_ms()) / 1000)
        await self.engine.idle()

    async def due_ms(self) -> int | None:
        """When the engine has something to do next, in milliseconds; `None`: never."""
        due_ms: int | None = await self.engine.store.read(
            lambda connection: connection.execute("SELECT min(due_ms) FROM timers").fetchone()[0]
        )
        return due_ms

    async def status(self, response: httpx2.Response) -> str:
        """Whether the run of a response is running, completed or failed."""
        answer = await self.api.get(f"/v1/runs/{response.headers['x-run-id']}")
        status: str = answer.json()["data"]["status"]
        return status

    async def steps(self, response: httpx2.Response) -> dict[str, dict[str, Any]]:
        """The steps of the run of a response, by the ids that the user wrote."""
        answer = await self.api.get(f"/v1/runs/{response.headers['x-run-id']}/steps")
        return {step["name"]: step for step in answer.json()["data"]}

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(0)


@asynccontextmanager
async def durable(
    build: Callable[[Provider], Any],
    *,
    key: str = "",
    wsgi: bool = False,
    path: Path | None = None,
    gateway: httpx2.AsyncBaseTransport | None = None,
    monotonic: Callable[[VirtualClock], float] | None = None,
    **options: Any,
) -> AsyncGenerator[Durable]:
    """Start and stop a `Durable`, and see that it leaves no task behind."""
    before = asyncio.all_tasks()
    world = Durable(
        build, key=key, wsgi=wsgi, path=path, gateway=gateway, monotonic=monotonic, **options
    )
    await world.engine.start()
    try:
        yield world
        assert await world.provider.aclose()
    finally:
        await world.client.aclose()
        await world.api.aclose()
        await world.engine.stop()
    for _ in range(5):
        await asyncio.sleep(0)
    own = asyncio.current_task()  # a fixture may end in another one
    new = asyncio.all_tasks() - before - {own}
    left = {task for task in new if "WorkerThread" not in repr(task)}
    assert not left, left
