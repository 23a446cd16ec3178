"""An HTTP proxy on loopback that does to exchanges what networks, balancers and gateways do.

One connection to a client may have many exchanges, as from a pool; each has its own connection to
the server behind. Bodies are passed on whole.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random
from typing import NamedTuple

PAGE_MARK = b"FAULT-PAGE"
_PAGES = (200, 403, 404, 429, 500, 502, 503, 504)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_FRAMING = re.compile(
    rb"\r\n(?:content-length|transfer-encoding|connection|keep-alive):[^\r]*", re.IGNORECASE
)


class Message(NamedTuple):
    """A request or an answer: its head without what frames the body, and the body."""

    head: bytes
    body: bytes

    @property
    def status(self) -> int:
        return int(self.head.split(b" ", 2)[1])

    def encode(self, *, keep: bool = False) -> bytes:
        connection = b"keep-alive" if keep else b"close"
        length = b"\r\ncontent-length: %d\r\nconnection: %s\r\n\r\n" % (len(self.body), connection)
        return self.head + length + self.body


Observer = Callable[[Message, Message], None]


class Proxy:
    """A proxy in front of `target`, a port of this machine.

    What it may do to an exchange (with a chance of `rate`, if named in `faults`):

    - `delay`: it takes up to half a second more.
    - `drop`: the connection is closed; the request goes nowhere.
    - `lost`: the server answers, and the connection is closed before that arrives.
    - `reset`, `truncate`: half of the answer arrives, then a reset, or the end of the connection.
    - `truncate-request`: half of the request reaches the server.
    - `corrupt`, `corrupt-request`: bytes of the body are overwritten with 0xff, which no JSON has.
    - `duplicate`, `duplicate-later`: the server gets the request twice, at once or one after the
      other; the client gets the later answer.
    - `page`, `page-after`: a page of a gateway's own (`PAGE_MARK`), instead of the request, or
      instead of its answer.

    Attributes:
        exchanges, spoilt: how many there were, and to how many of them something was done.
        passed: called with request and answer when an answer went out whole and unchanged.
    """

    def __init__(self, target: int, passed: Observer = lambda request, answer: None) -> None:
        self.target = target
        self.passed = passed
        self.rate = 0.0
        self.faults: Sequence[str] = ()
        self.rng = Random(0)
        self.port = 0
        self.exchanges = self.spoilt = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._whole = asyncio.Event()
        self._whole.set()

    @property
    def parted(self) -> bool:
        """Whether nothing comes through in either direction; it does once that is over."""
        return not self._whole.is_set()

    @parted.setter
    def parted(self, parted: bool) -> None:
        (self._whole.clear if parted else self._whole.set)()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 26)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(OSError, EOFError, asyncio.LimitOverrunError, asyncio.CancelledError):
                while await self._exchange(reader, writer):
                    pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Carry one exchange; return whether the connection may have another."""
        request = await _read(reader)
        self.exchanges += 1
        fault = self.rng.choice(self.faults) if self._hit() else ""
        self.spoilt += bool(fault)
        await self._whole.wait()
        answer = await self._ask(request, fault)
        await self._whole.wait()
        if answer is None:
            return False
        if fault == "lost":
            return False
        if fault in ("page", "page-after"):
            answer = self._page()
        elif fault == "corrupt":
            answer = _corrupted(answer, self.rng)
        data = answer.encode(keep=True)
        if fault in ("reset", "truncate"):
            writer.write(data[: len(data) // 2])
            await writer.drain()
            if fault == "reset":
                linger = struct.pack("ii", 1, 0)
                sock: socket.socket = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            return False
        if fault in ("", "delay", "duplicate", "duplicate-later"):
            self.passed(request, answer)
        writer.write(data)
        await writer.drain()
        return True

    def _hit(self) -> bool:
        return bool(self.faults) and self.rng.random() < self.rate

    async def _ask(self, request: Message, fault: str) -> Message | None:
        """Send a request on, as the fault wants it, and return the answer if there is one."""
        if fault == "delay":
            await asyncio.sleep(self.rng.uniform(0, 0.5))
        if fault in ("drop", "page"):
            return None if fault == "drop" else self._page()
        if fault == "truncate-request":
            data = request.encode()
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.target)
                writer.write(data[: len(data) - 1 - len(request.body) // 2])
                await writer.drain()
                writer.close()
            return None
        if fault == "corrupt-request":
            request = _corrupted(request, self.rng)
        try:
            if fault == "duplicate":
                return (await asyncio.gather(self._forward(request), self._forward(request)))[1]
            if fault == "duplicate-later":
                await self._forward(request)
            return await self._forward(request)
        except (OSError, EOFError):
            return None

    async def _forward(self, request: Message) -> Message:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.target, limit=1 << 26)
        try:
            writer.write(request.encode())
            await writer.drain()
            return await _read(reader, request.head.startswith(b"HEAD "))
        finally:
            writer.close()

    def _page(self) -> Message:
        status = self.rng.choice(_PAGES)
        head = b"HTTP/1.1 %d Gateway\r\ncontent-type: text/html\r\nretry-after: 0" % status
        return Message(head, b"<html>" + PAGE_MARK + b"</html>")


async def _read(reader: asyncio.StreamReader, bodiless: bool = False) -> Message:
    head = (await reader.readuntil(b"\r\n\r\n"))[:-4]
    status = head.split(b" ", 2)[1] if head.startswith(b"HTTP/") else b""
    bodiless = bodiless or status in (b"204", b"304")
    body = b""
    if bodiless:
        pass
    elif found := _LENGTH.search(head):
        body = await reader.readexactly(int(found[1]))
    elif _CHUNKED.search(head):
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
    elif status:
        body = await reader.read()
    return Message(_FRAMING.sub(b"", head), body)


def _corrupted(message: Message, rng: Random) -> Message:
    if not message.body:
        return message
    body = bytearray(message.body)
    for _ in range(3):
        body[rng.randrange(len(body))] = 0xFF
    return Message(message.head, bytes(body))
