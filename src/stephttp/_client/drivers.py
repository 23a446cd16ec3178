"""Carries out flows over HTTP. The only module that names the HTTP client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from stephttp._client.flow import Answer, Call, Pause
from stephttp.errors import APIConnectionError

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")
Flow = Generator[Call | Pause, Answer | None, T]

TIMEOUT = 15.0
"""Seconds for one attempt; connecting alone gets a third of it."""


class AsyncDriver:
    """Runs flows on the running event loop, with one connection pool per loop.

    Args:
        base_url: the engine's or server's origin.
        transport: what carries requests instead of the network, for tests.
        pause: how to wait for so many seconds; an argument so that tests need not.
    """

    def __init__(
        self,
        base_url: str,
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
        pause: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        self._base_url = base_url
        self._transport = transport
        self._pause = pause
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx2.AsyncClient]
        self._clients = WeakKeyDictionary()

    async def run(self, flow: Flow[T]) -> T:
        """Drive `flow` to its end and return what it returns; raises what it raises."""
        try:
            wanted = next(flow)
            while True:
                if isinstance(wanted, Pause):
                    await self._pause(wanted.seconds)
                    wanted = next(flow)
                    continue
                try:
                    answer = await self._send(wanted)
                except APIConnectionError as error:
                    wanted = flow.throw(error)
                else:
                    wanted = flow.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            flow.close()

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    async def _send(self, call: Call) -> Answer:
        import httpx2  # here, because importing it takes longer than all of stephttp

        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = httpx2.AsyncClient(
                base_url=self._base_url,
                transport=self._transport,
                timeout=httpx2.Timeout(TIMEOUT, connect=TIMEOUT / 3),
            )
        try:
            response = await client.request(
                call.method, call.path, content=call.body, headers=call.headers
            )
        except httpx2.RequestError as error:
            raise APIConnectionError(
                f"{call} ({self._base_url}): {type(error).__name__}: {error}"
            ) from error
        return Answer(response.status_code, dict(response.headers.items()), response.content)


class SyncDriver:
    """Runs flows on the calling thread.

    Args:
        base_url: the engine's or server's origin.
        transport: what carries requests instead of the network, for tests.
        pause: how to wait for so many seconds.
    """

    def __init__(
        self,
        base_url: str,
        *,
        transport: httpx2.BaseTransport | None = None,
        pause: Callable[[float], Any] = time.sleep,
    ) -> None:
        self._base_url = base_url
        self._transport = transport
        self._pause = pause
        self._client: httpx2.Client | None = None

    def run(self, flow: Flow[T]) -> T:
        """Drive `flow` to its end and return what it returns; raises what it raises."""
        try:
            wanted = next(flow)
            while True:
                if isinstance(wanted, Pause):
                    self._pause(wanted.seconds)
                    wanted = next(flow)
                    continue
                try:
                    answer = self._send(wanted)
                except APIConnectionError as error:
                    wanted = flow.throw(error)
                else:
                    wanted = flow.send(answer)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            flow.close()

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _send(self, call: Call) -> Answer:
        import httpx2

        if self._client is None:
            self._client = httpx2.Client(
                base_url=self._base_url,
                transport=self._transport,
                timeout=httpx2.Timeout(TIMEOUT, connect=TIMEOUT / 3),
            )
        try:
            response = self._client.request(
                call.method, call.path, content=call.body, headers=call.headers
            )
        except httpx2.RequestError as error:
            raise APIConnectionError(
                f"{call.method} {self._base_url}{call.path}: {type(error).__name__}: {error}"
            ) from error
        return Answer(response.status_code, dict(response.headers.items()), response.content)
