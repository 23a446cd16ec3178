"""The engine's HTTP server: one write for each answer, instead of uvicorn's two.

uvicorn writes head and body separately, and each write is a system call: for short answers that is
a quarter of what a request costs.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_MOST = 64 * 1024
"""Bytes that are held at most; the transport's own limits do not count them."""


class CoalescingProtocol(HttpToolsProtocol):
    """Writes the parts of an answer together."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Put a coalescing transport before the connection's own."""
        self._coalescing = CoalescingTransport(transport, self.loop)
        super().connection_made(cast(asyncio.Transport, self._coalescing))

    def eof_received(self) -> None:
        """Write what is held before the transport closes: the client will send nothing more."""
        self._coalescing.flush()
        super().eof_received()


class CoalescingTransport:
    """A transport that sends all writes of one iteration of the event loop together.

    Args:
        transport: sends them.
        loop: the event loop.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []
        self._size = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._held:
            self._loop.call_soon(self.flush)
        self._held.append(data)
        self._size += len(data)
        if self._size > _MOST:
            self.flush()

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.flush()
        self._transport.set_protocol(protocol)

    def flush(self) -> None:
        """Send what is held."""
        if self._held:
            data = b"".join(self._held)
            self._held.clear()
            self._size = 0
            if not self._transport.is_closing():
                self._transport.write(data)
