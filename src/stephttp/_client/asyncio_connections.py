"""TCP and TLS connections of the asynchronous HTTP client, on asyncio's own transports.

The library's are on anyio, and serve trio as well: with a cancel scope, a lock and turns of the
event loop for each read and write. Measured on the application of benchmarks/bench_end_to_end.py,
these take a tenth less of its processor time. The head and the body of a request are sent in one
write: each is a system call, and a packet.
"""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
from collections.abc import Callable, Coroutine, Generator, Iterable
from contextlib import contextmanager
from functools import partial
from itertools import chain, zip_longest
from typing import Any

import httpcore2

_HEAD_START = 0.25
"""Seconds that a connection gets before the next address is tried beside it (RFC 8305)."""
_MOST_HELD = 64 * 1024
"""Bytes that are held back at most, to be sent with others."""
_MOST_UNREAD = 256 * 1024
"""Bytes that wait to be read before the other side has to wait."""

_Address = tuple[Any, ...]


class AsyncioBackend(httpcore2.AsyncNetworkBackend):
    """Makes connections on the running event loop."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> Connection:
        """Connect to whichever address of a host answers first.

        Raises:
            ConnectError: none did.
            ConnectTimeout: that took more than `timeout` seconds.
        """
        local = None if local_address is None else (local_address, 0)
        with _raising(httpcore2.ConnectTimeout, httpcore2.ConnectError):
            async with asyncio.timeout(timeout):
                connection = await _connect_to_any(host, port, local)
        for option in socket_options or ():
            connection.get_extra_info("socket").setsockopt(*option)
        return connection

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Connection(asyncio.Protocol, httpcore2.AsyncNetworkStream):
    """One connection, to be read and written by one task at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._held = b""
        self._unread = bytearray()
        self._ended = False
        self._lost: Exception | None = None
        self._reading_paused = False
        self._writing_paused = False
        self._waiter: asyncio.Future[None] | None = None
        """Of the task that waits for bytes, or until it may write more."""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Send what is held back, and return what comes next; at the end, nothing.

        Raises:
            ReadError: the connection broke.
            ReadTimeout: nothing came for `timeout` seconds.
        """
        if self._held:
            self._send_held()
        if not self._unread and not self._ended:
            try:
                async with asyncio.timeout(timeout):
                    while not self._unread and not self._ended:
                        await self._woken()
            except TimeoutError as error:
                raise httpcore2.ReadTimeout(f"nothing came for {timeout:g} s") from error
        if not self._unread and self._lost is not None:
            raise httpcore2.ReadError(str(self._lost)) from self._lost
        data = bytes(self._unread[:max_bytes])
        del self._unread[:max_bytes]
        if self._reading_paused and len(self._unread) <= _MOST_UNREAD:
            self._reading_paused = False
            if not self._ended:
                self._transport.resume_reading()
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send bytes, small ones with those that follow.

        Raises:
            WriteError: the connection broke.
            WriteTimeout: the other side took nothing for `timeout` seconds.
        """
        if self._lost is not None:
            raise httpcore2.WriteError(str(self._lost)) from self._lost
        self._held += buffer
        if len(self._held) <= _MOST_HELD:
            return
        self._send_held()
        try:
            async with asyncio.timeout(timeout):
                while self._writing_paused and not self._ended:
                    await self._woken()
        except TimeoutError as error:
            raise httpcore2.WriteTimeout(f"nothing was taken for {timeout:g} s") from error

    async def aclose(self) -> None:
        self.abort()
        await asyncio.sleep(0)  # the event loop closes the socket in its next turn

    def abort(self) -> None:
        """Close the connection soon."""
        self._transport.abort()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> Connection:
        """Secure the connection.

        Raises:
            ConnectError: a certificate, a name or a version of TLS does not fit.
            ConnectTimeout: that took more than `timeout` seconds.
        """
        try:
            with _raising(httpcore2.ConnectTimeout, httpcore2.ConnectError):
                async with asyncio.timeout(timeout):
                    self._transport = await self._loop.start_tls(
                        self._transport, self, ssl_context, server_hostname=server_hostname
                    )
        except BaseException:
            self.abort()
            raise
        return self

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            # What a server sends to an idle connection can only be its end.
            return self._ended or bool(self._unread) or _is_readable(self._transport)
        name = {"client_addr": "sockname", "server_addr": "peername"}.get(info, info)
        return self._transport.get_extra_info(name)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._unread += data
        if len(self._unread) > _MOST_UNREAD and not self._reading_paused:
            self._reading_paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self._ended = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended = True
        self._lost = exc
        self._wake()

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._wake()

    def _send_held(self) -> None:
        held, self._held = self._held, b""
        if not self._transport.is_closing():
            self._transport.write(held)

    async def _woken(self) -> None:
        """Wait until something has happened."""
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


async def _connect_to_any(host: str, port: int, local: _Address | None) -> Connection:
    """Connect to the addresses of a host, one a little after the other; the first counts."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    places = _by_turns([(family, address) for family, _, _, _, address in found])
    if len(places) == 1:
        return await _connect(*places[0], local)
    return await _first([partial(_connect, *place, local) for place in places])


async def _connect(family: int, address: _Address, local: _Address | None) -> Connection:
    loop = asyncio.get_running_loop()
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if local is not None:
            sock.bind(local)
        await loop.sock_connect(sock, address)
        _, connection = await loop.create_connection(Connection, sock=sock)
    except BaseException:
        sock.close()
        raise
    return connection


def _by_turns(found: list[tuple[int, _Address]]) -> list[tuple[int, _Address]]:
    """Put addresses of both families by turns, beginning with the one that is preferred."""
    preferred = [place for place in found if place[0] == found[0][0]]
    others = [place for place in found if place[0] != found[0][0]]
    mixed = chain.from_iterable(zip_longest(preferred, others))
    return list(dict.fromkeys(place for place in mixed if place is not None))


async def _first(attempts: list[Callable[[], Coroutine[Any, Any, Connection]]]) -> Connection:
    """Return what the first attempt brings that succeeds; if all fail, raise an `OSError`."""
    waiting = iter(attempts)
    attempt = next(waiting, None)
    tasks: set[asyncio.Task[Connection]] = set()
    errors: list[str] = []
    try:
        while attempt is not None or tasks:
            if attempt is not None:
                tasks.add(asyncio.create_task(attempt()))
                attempt = next(waiting, None)
            head_start = None if attempt is None else _HEAD_START
            done, _ = await asyncio.wait(
                tasks, timeout=head_start, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                tasks.discard(task)
                try:
                    return task.result()
                except OSError as error:
                    errors.append(str(error))
    finally:
        for task in tasks:
            task.add_done_callback(_close)
            task.cancel()
    raise OSError("; ".join(errors))


def _close(task: asyncio.Task[Connection]) -> None:
    """Close a connection that came too late."""
    if not task.cancelled() and task.exception() is None:
        task.result().abort()


@contextmanager
def _raising(timeout: type[Exception], broken: type[Exception]) -> Generator[None]:
    try:
        yield
    except TimeoutError as error:
        raise timeout(str(error)) from error
    except (OSError, UnicodeError) as error:  # one of TLS; a name that cannot be looked up
        raise broken(str(error)) from error


def _is_readable(transport: asyncio.Transport) -> bool:
    """Whether there is something to read that the event loop has not seen yet."""
    number = transport.get_extra_info("socket").fileno()
    if number < 0:
        return True
    if not hasattr(select, "poll"):  # on Windows
        return bool(select.select([number], [], [], 0)[0])
    poll = select.poll()
    poll.register(number, select.POLLIN)
    return bool(poll.poll(0))
