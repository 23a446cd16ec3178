"""The HTTP protocol of the engine's server, with bounds: requests that arrive slowly or never,
large heads, dead peers.

uvicorn waits forever for the rest of a request. Here a head has a size and a time, a body has to
come at some pace, and what is left of a body after its answer is not read forever. A request that
arrives at once, as most do, costs two comparisons.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from stephttp.cli.write_coalescing import CoalescingProtocol

MAX_HEAD = 64 * 1024
"""Bytes of a request's line and headers."""
HEAD_SECONDS = 10.0
"""From the connection, or the first byte of a further request, to the end of its headers."""
BODY_SECONDS = 30.0
"""For a body of no size; see `BODY_PACE`."""
BODY_PACE = 16 * 1024
"""Bytes of a body that give it one more second."""
REST_SECONDS = 5.0
"""For what is still to come of a body that was answered before its end."""
_STREAMED = "/v1/realtime/publish"
"""Bodies of these paths last as long as what they report; their handlers bound them."""

_PHRASES = {
    400: b"Bad Request",
    408: b"Request Timeout",
    431: b"Request Header Fields Too Large",
}


def detect_dead_peers(listener: socket.socket) -> None:
    """Let the kernel find out about clients that vanished without a word, within two minutes.

    Connections inherit it from their listener.
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4),
        ("TCP_USER_TIMEOUT", 120_000),
    ):  # fmt: skip
        if hasattr(socket, name):  # what the platform has
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class BoundedProtocol(CoalescingProtocol):
    """Refuses heads that are too large or too slow, and bodies that are too slow."""

    _timer: asyncio.TimerHandle | None = None
    """Of the part that is being waited for, if it did not arrive at once."""
    _refused = False
    _upgraded = False
    _in_head = False
    _in_body = False
    _head_bytes = 0
    """Of a head that is not complete yet."""
    _head_status = 400
    """What a head that cannot be parsed is answered with."""
    _body_bytes = 0
    _body_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head."""
        super().connection_made(transport)
        self._start_timer(HEAD_SECONDS, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, and see what is still to come."""
        if not self._refused:
            super().data_received(data)
            self._wait_for_rest(len(data))

    def on_message_begin(self) -> None:
        """Note that a head begins."""
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Note that the body begins.

        Raises:
            ValueError: the head is too large, though it came at once.
        """
        self._in_head = False
        self._stop_timer()
        self._head_bytes = self._body_bytes = 0
        if len(self.url) + sum(len(n) + len(v) + 4 for n, v in self.headers) > MAX_HEAD:
            self._head_status = 431
            raise ValueError("the head is too large")
        self._in_body = True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that the body is complete."""
        self._in_body = False
        self._stop_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Do not read forever what is left of a body that nothing reads any more."""
        super().on_response_complete()
        if self._in_body and self._is_idle():
            self._stop_timer()
            self._start_timer(REST_SECONDS, self.transport.close)

    def handle_websocket_upgrade(self) -> None:
        """Leave the connection to the protocol of websockets."""
        self._upgraded = True
        self._in_body = False
        self._stop_timer()
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that cannot be parsed."""
        self._refuse(self._head_status)

    def _wait_for_rest(self, size: int) -> None:
        if self._refused:
            return
        if self._in_body:
            self._body_bytes += size
            if self._timer is None:
                self._wait_for_body()
        elif self._in_head or self._is_idle():
            self._head_bytes += size
            if self._head_bytes > MAX_HEAD:
                self._refuse(431)
            elif self._timer is None and not self._upgraded:
                self._start_timer(HEAD_SECONDS, self._head_is_late)

    def _is_idle(self) -> bool:
        cycle: Any = self.cycle  # `None` before the first
        return cycle is None or cycle.response_complete

    def _start_timer(self, seconds: float, late: Any) -> None:
        self._timer = self.loop.call_later(seconds, late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _head_is_late(self) -> None:
        self._timer = None
        if self._head_bytes:
            self._refuse(408)
        else:
            self.transport.close()

    def _wait_for_body(self) -> None:
        self._body_since = self.loop.time()
        if not self.scope["path"].startswith(_STREAMED):
            self._start_timer(BODY_SECONDS, self._check_body)

    def _check_body(self) -> None:
        """Refuse a body that comes too slowly, unless it is us who do not read it."""
        self._timer = None
        if self.flow.read_paused:
            self._body_since += BODY_SECONDS
            self._start_timer(BODY_SECONDS, self._check_body)
            return
        end = self._body_since + BODY_SECONDS + self._body_bytes / BODY_PACE
        left = end - self.loop.time()
        if left > 0:
            self._start_timer(left, self._check_body)
        else:
            self._refuse(408)

    def _refuse(self, status: int) -> None:
        """Answer, if nothing else was answered or is being answered, and close the connection."""
        if self._refused:
            return
        self._refused = True
        self._stop_timer()
        if self._is_idle() or (self._in_body and not self.cycle.response_started):
            phrase = _PHRASES[status]
            self.transport.write(
                b"HTTP/1.1 %d %s\r\ncontent-type: text/plain; charset=utf-8\r\n"
                b"content-length: %d\r\nconnection: close\r\n\r\n%s\n"
                % (status, phrase, len(phrase) + 1, phrase)
            )
        self.transport.close()
