"""The engine's HTTP client: sends requests only to where `egress` lets them, on connections that
are used again.

The engine has a client of its own, because this is its hottest path. Measured side by side on one
machine (benchmarks/bench_client.py: a POST with 1 KB each way on kept connections), aiohttp's
client with the same egress rules takes 2.4 times as much processor time a call with one call at a
time, and 2.7 to 3.3 times as much with 50 at a time (about 310 µs instead of 100). A whole run with
a sleep costs the engine about 1.1 ms. httpx2 (h11 and anyio, in Python) takes still more. This
client differs from a general one in that requests and answers are whole, redirects are not
followed, and no proxy is used.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Awaitable
from functools import cache, lru_cache
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from stephttp._wire.http import TOKEN
from stephttp.engine.model.urls import read_url
from stephttp.engine.outbound.connection import (
    ConnectError,
    ConnectTimeout,
    ExchangeError,
    HTTPConnection,
    HTTPRequest,
    TLSError,
    Unanswered,
)
from stephttp.engine.outbound.egress import Egress, EgressError, UnknownHostError
from stephttp.engine.rules.answers import HTTPResponse

_RACE = 1.0
"""Seconds. A kept connection that is closed without an answer in this time was most likely being
closed already when the request was sent, and the request is sent once more. That is safe: calls of
endpoints may be repeated, that is what steps are for."""
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_NOT_IN_HEADERS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_NOT_IN_TARGETS = re.compile(r"[^\x21-\x7e]")
_PORTS = {"http": 80, "https": 443}


class Sender(Protocol):
    """What sends requests: a `Client`, or a stand-in for the network."""

    def send(self, request: HTTPRequest, limit: int) -> Awaitable[HTTPResponse]: ...

    async def close(self) -> None: ...


class OriginAddress(NamedTuple):
    """The place of an origin; `authority` is the value of `Host`."""

    host: str
    port: int
    tls: bool
    authority: str


@lru_cache(maxsize=1024)
def place_of(origin: str) -> OriginAddress:
    """Read an origin.

    Raises:
        ValueError: it is not an origin.
    """
    parts = urlsplit(origin)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError(f"{origin!r} is not an http or https origin")
    host = parts.hostname
    if not host.isascii():
        host = read_url(f"http://{host}").raw_host.decode()
    default = _PORTS[parts.scheme]
    port = default if parts.port is None else parts.port
    authority = f"[{host}]" if ":" in host else host
    if port != default:
        authority = f"{authority}:{port}"
    if _NOT_IN_TARGETS.search(authority):
        raise ValueError(f"{authority!r} is not a host")
    return OriginAddress(host, port, parts.scheme == "https", authority)


class Client:
    """Real connections.

    Args:
        egress: where they may go.
        connect_timeout: seconds that connecting may take.
        most_idle: how many are kept for further requests.
        keep_alive: seconds for which they are.
        ca_file: certificates to trust beside those of the system.
    """

    def __init__(
        self,
        egress: Egress,
        connect_timeout: float,
        most_idle: int = 0,
        keep_alive: float = 0.0,
        ca_file: str = "",
    ) -> None:
        self._ca_file = ca_file
        self._egress = egress
        self._connect_timeout = connect_timeout
        self._most_idle = most_idle
        self._keep_alive = keep_alive
        # Where to, and since when; the one that has been idle longest comes first.
        self._idle: dict[HTTPConnection, tuple[OriginAddress, float]] = {}
        self._sweeping: asyncio.TimerHandle | None = None

    async def send(self, request: HTTPRequest, limit: int) -> HTTPResponse:
        """Send a request, and return its answer, whose body has at most `limit` bytes.

        Raises:
            ExchangeError: there is no answer, or it is too large.
            ValueError: the request cannot be sent.
        """
        place = place_of(request.origin)
        message = _message(request, place)
        now = asyncio.get_running_loop().time
        kept, began, again = self._take(place, now()) if request.resend else None, now(), False
        if kept is not None:
            try:
                return await self._exchange(kept, place, message, request.method, limit)
            except Unanswered:
                if now() - began > _RACE:
                    raise
                again = True
                if request.again is not None:  # the first one may have been received
                    message = _message(await request.again(), place)
        try:
            connection = await self._connect(place)
            return await self._exchange(connection, place, message, request.method, limit)
        except ExchangeError as error:
            # The first connection may have been accepted as well, and have broken for the request.
            error.broken += again and error.broken > 0
            raise

    async def close(self) -> None:
        """Close idle connections now, and the others after their answers."""
        self._most_idle = 0
        if self._sweeping is not None:
            self._sweeping.cancel()
        for connection in list(self._idle):
            connection.close()
        self._idle.clear()

    async def _exchange(
        self,
        connection: HTTPConnection,
        place: OriginAddress,
        message: bytes,
        method: str,
        limit: int,
    ) -> HTTPResponse:
        answer = await connection.send(message, is_head=method == "HEAD", limit=limit)
        if connection.is_open:
            self._put(connection, place)
        return answer

    def _take(self, place: OriginAddress, now: float) -> HTTPConnection | None:
        kept = next((one for one in reversed(self._idle) if self._idle[one][0] == place), None)
        if kept is None:
            return None
        _, since = self._idle.pop(kept)
        if kept.is_open and now - since <= self._keep_alive:
            return kept
        kept.close()
        return None  # Older ones are hardly any better.

    def _put(self, connection: HTTPConnection, place: OriginAddress) -> None:
        loop = asyncio.get_running_loop()
        self._idle[connection] = (place, loop.time())
        if len(self._idle) > self._most_idle:
            oldest = next(iter(self._idle))
            del self._idle[oldest]
            oldest.close()
        elif self._sweeping is None:
            self._sweeping = loop.call_later(self._keep_alive, self._sweep)

    def _sweep(self) -> None:
        """Close what has been idle for too long."""
        self._sweeping = None
        loop = asyncio.get_running_loop()
        for connection, (_, since) in list(self._idle.items()):
            if loop.time() - since < self._keep_alive:
                self._sweeping = loop.call_later(self._keep_alive, self._sweep)
                return
            del self._idle[connection]
            connection.close()

    def _forget(self, connection: HTTPConnection) -> None:
        self._idle.pop(connection, None)

    async def _connect(self, place: OriginAddress) -> HTTPConnection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout):
                addresses = await self._egress.addresses(place.host, place.port)
        except TimeoutError:
            raise ConnectTimeout(f"looking up {place.host} took too long") from None
        except EgressError as error:
            refusal = ConnectError(str(error))
            refusal.temporary = isinstance(error, UnknownHostError)
            raise refusal from error
        failure: ConnectError | ConnectTimeout | None = None
        for address in addresses:
            try:
                async with asyncio.timeout(self._connect_timeout / len(addresses)):
                    _, connection = await loop.create_connection(
                        lambda: HTTPConnection(self._forget),
                        address,
                        place.port,
                        ssl=_ssl_context(self._ca_file) if place.tls else None,
                        server_hostname=place.host if place.tls else None,
                    )
            except TimeoutError:
                failure = ConnectTimeout(f"connecting to {address} took too long")
            except ssl.SSLError as error:
                failure = TLSError(f"no secure connection (TLS): {error}")
            except OSError as error:
                failure = ConnectError(str(error) or type(error).__name__)
            else:
                return connection
        assert failure is not None
        raise failure


@cache
def _ssl_context(ca_file: str) -> ssl.SSLContext:
    """Make one context for all, at first use, since reading the trusted certificates takes longer
    than starting the rest of the engine."""
    import httpx2  # slow to import; it knows where this system keeps its certificates

    context = httpx2.create_ssl_context()  # reads SSL_CERT_FILE and SSL_CERT_DIR
    if ca_file:
        context.load_verify_locations(ca_file)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _message(request: HTTPRequest, place: OriginAddress) -> bytes:
    """Write a request as bytes.

    Raises:
        ValueError: something in it cannot be sent.
    """
    headers = [f"{name}: {value}" for name, value in request.headers.items()]
    if not TOKEN.fullmatch(request.method):
        raise ValueError(f"{request.method[:64]!r} is not an HTTP method")
    if _NOT_IN_TARGETS.search(request.target):
        raise ValueError("the path or the query holds what cannot be sent")
    if any(map(_NOT_IN_HEADERS.search, headers)):
        raise ValueError("a header holds characters that headers cannot")
    if request.body or request.method in _WITH_BODY:
        headers.append(f"content-length: {len(request.body)}")
    start = f"{request.method} {request.target} HTTP/1.1\r\nhost: {place.authority}\r\n"
    head = start + "\r\n".join(headers) + "\r\n\r\n"
    return head.encode("latin-1") + request.body
