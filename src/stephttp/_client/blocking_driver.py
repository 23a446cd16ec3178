"""Carries out requests to the server (flows) in threads; for event loops, see `drivers`."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from concurrent.futures import wait as wait_for_futures
from contextlib import contextmanager
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from stephttp._client.drivers import (
    Receiving,
    Sending,
    Streamed,
    answer_of,
    raw_headers,
    request_of,
)
from stephttp._client.flow import (
    Answer,
    APICall,
    Flow,
    Invoke,
    Pause,
    T,
    Until,
    carry_out_blocking,
)
from stephttp._client.transport import sync_client

if TYPE_CHECKING:
    import httpx2


class SyncDriver:
    """Runs flows on the calling thread, with one connection pool for all threads.

    Args:
        base_url: the engine's or server's origin.
        transport: what carries requests instead of the network, for tests.
        pause: how to wait for so many seconds.
        headers: of every request.
    """

    def __init__(
        self,
        base_url: str,
        *,
        transport: httpx2.BaseTransport | None = None,
        pause: Callable[[float], Any] = time.sleep,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._base_url = base_url
        self._transport = transport
        self._pause = pause
        self._headers = dict(headers or {})
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Make new connections in a forked process: the open ones are its parent's."""
        self._lock = threading.Lock()
        self._made: httpx2.Client | None = None
        self._maker = 0
        """The thread that makes it now."""

    def run(self, flow: Flow[T]) -> T:
        """Drive `flow` to its end and return what it returns; raises what it raises."""
        return carry_out_blocking(flow, self._do)

    def _do(self, wanted: APICall | Pause | Invoke | Until) -> Any:
        if isinstance(wanted, APICall):
            return self._send(wanted)
        if isinstance(wanted, Pause):
            self._pause(wanted.seconds)
            return None
        if isinstance(wanted, Until):
            return bool(wait_for_futures((wanted.future,), wanted.timeout).done)
        value = wanted.function(wanted.argument)
        if not isawaitable(value):
            return value
        import asyncio

        return asyncio.run(_awaited(value))

    @contextmanager
    def stream(self, call: APICall) -> Generator[Streamed]:
        """Make one call, and read its answer as it comes.

        Raises:
            APIConnectionError: no answer.
        """
        client = self._client()
        with Sending(call, self._base_url):
            response = client.send(request_of(client, self._base_url, call), stream=True)
        try:
            with Receiving(call, self._base_url):
                yield Streamed(response.status_code, raw_headers(response), response.iter_raw())
        finally:
            response.close()

    def close(self) -> None:
        """Close the connections. They are made again when needed."""
        with self._lock:
            client, self._made = self._made, None
        if client is not None:
            client.close()

    def preload_before_fork(self) -> None:
        """Import the HTTP client and what it needs for a call now."""
        if self._maker == threading.get_ident():
            return  # it is these imports that fork: trio looks for a library, by a command
        "host".encode("idna")  # the codec by which sockets look up names
        self._client()

    def _client(self) -> httpx2.Client:
        with self._lock:
            if self._made is None:
                self._maker = threading.get_ident()
                try:
                    self._made = sync_client(self._base_url, self._transport, self._headers)
                finally:
                    self._maker = 0
            return self._made

    def _send(self, call: APICall) -> Answer:
        client = self._client()
        with Sending(call, self._base_url):
            response = client.send(request_of(client, self._base_url, call))
        return answer_of(response)


async def _awaited(value: Awaitable[T]) -> T:
    return await value
