"""Where requests go in a test: to the engine, or to the application; time passes while one
waits for a result.
"""

from __future__ import annotations

import re

import httpx2

from stephttp._wire.result_address import HOLD
from stephttp.testing.passing_time import PassingTime

ENGINE = "http://engine.stephttp.test"
"""The origin of the engine in a test. Nothing listens there."""

_OUTPUT = re.compile("/v1/http/runs/([^/]+)/output")
_WAIT = re.compile(r"\bwait=([0-9]{1,6})")


class FromApp(httpx2.AsyncBaseTransport):
    """Requests of the application to the engine. While one waits for a run, time passes."""

    def __init__(self, to_engine: httpx2.AsyncBaseTransport, time: PassingTime) -> None:
        self._to_engine = to_engine
        self._time = time

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if (found := _OUTPUT.fullmatch(request.url.path)) is not None:
            said = _WAIT.search(request.headers.get("prefer", ""))
            seconds = HOLD if said is None else float(said[1])
            await self._time.let_pass(seconds, found[1])
        return await self._to_engine.handle_async_request(request)


class ToBoth(httpx2.AsyncBaseTransport):
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
