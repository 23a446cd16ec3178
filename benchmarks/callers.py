"""Callers on raw sockets: they send a request, follow the redirect to the engine, and wait there.

wrk cannot follow a redirect to another server. This client does only that, so that it takes little
of the machine that it shares with the servers.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
_LOCATION = re.compile(rb"\r\nlocation: (\S+)", re.IGNORECASE)


@dataclass(frozen=True)
class Result:
    """A caller's final status and body, and their time (seconds since the epoch)."""

    run_id: str
    status: int
    body: bytes
    at: float


class Connection:
    """One keep-alive connection."""

    def __init__(self, origin: str) -> None:
        parts = urlsplit(origin)
        assert parts.hostname
        assert parts.port
        self._address = (parts.hostname, parts.port)
        self._host = parts.netloc
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(self, method: str, target: str) -> tuple[int, bytes, bytes]:
        """Send a request; return status, head and body of the answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        length = "content-length: 0\r\n" if method == "POST" else ""
        writer.write(f"{method} {target} HTTP/1.1\r\nhost: {self._host}\r\n{length}\r\n".encode())
        head = await reader.readuntil(_HEAD_END)
        found = _LENGTH.search(head)
        assert found is not None, head
        body = await reader.readexactly(int(found[1]))
        if b"\r\nconnection: close" in head.lower():
            self.close()
        return int(head[9:12]), head, body

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class Caller:
    """A client that makes one request after the other, and waits for each result."""

    def __init__(self, app: str, engine: str) -> None:
        self._app = Connection(app)
        self._engine = Connection(engine)

    async def call(self, path: str) -> Result:
        """Send a POST, and follow the redirect."""
        status, head, body = await self._app.request("POST", path)
        assert status == 303, (status, body)
        found = _LOCATION.search(head)
        assert found is not None, head
        location = urlsplit(found[1].decode())
        status, head, body = await self._engine.request("GET", f"{location.path}?{location.query}")
        assert status == 200, (status, body)
        return Result(location.path.split("/")[4], status, body, time.time())

    def close(self) -> None:
        self._app.close()
        self._engine.close()


async def crowd(
    app: str, engine: str, path: str, callers: int, goes_on: Callable[[], bool]
) -> list[Result]:
    """Run so many callers, each again and again, as long as `goes_on`."""
    results: list[Result] = []

    async def one() -> None:
        caller = Caller(app, engine)
        try:
            while goes_on():
                results.append(await caller.call(path))
        finally:
            caller.close()

    await asyncio.gather(*(one() for _ in range(callers)))
    return results
