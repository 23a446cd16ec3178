"""One HTTP/1.1 connection to an endpoint: a request, its answer, the next request; bounds on
answers.

llhttp (through httptools, in C) parses the answers. This module does what it leaves to its users:
answers that end with their connection, answers to HEAD, what may come before the answer (1xx), and
bounds on all of it (RFC 9112, RFC 9110 section 15.2).
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from stephttp.engine.rules.answers import HTTPResponse

_MOST_OVERHEAD = 100 * 1024
"""Bytes that may come without a byte of a body among them: heads, trailers and the like."""
_SUCCESS = 200
_ZLIB = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}


class ExchangeError(Exception):
    """There is no answer.

    Attributes:
        broken: how often the request was sent and its connection then broke.
        temporary: whether the same request may be answered later.
    """

    broken = 0
    temporary = True


class ConnectError(ExchangeError):
    """The endpoint cannot be connected to."""


class TLSError(ConnectError):
    """There is no secure connection: a certificate, a name or a version of TLS does not fit."""


class ConnectTimeout(ExchangeError):
    """Connecting took too long."""


class ReadError(ExchangeError):
    """The connection broke."""

    broken = 1


class RemoteProtocolError(ExchangeError):
    """The bytes that came are not a (whole) HTTP answer."""


class CutOff(RemoteProtocolError):
    """The connection was closed before the answer was complete."""

    broken = 1


class Unanswered(CutOff):
    """The connection was closed before a byte of the answer came."""


class DecodingError(ExchangeError):
    """The body does not match its `Content-Encoding`."""

    temporary = False


class TooLarge(ExchangeError):
    """The body is larger than it may be."""

    temporary = False


@dataclass(frozen=True, slots=True)
class HTTPRequest:
    """A request to send. `target` is sent as it is (RFC 9112, section 3.2).

    Attributes:
        origin: such as `https://app.example.com:8443`.
        headers: without those of the connection: `Host`, `Content-Length`.
        resend: whether it may be sent once more if a kept connection turns out to be closed.
        again: makes what is sent then, once that may be sent; `None`: the same.
    """

    method: str
    origin: str
    target: str
    headers: dict[str, str]
    body: bytes = field(default=b"", repr=False)
    resend: bool = True
    again: Callable[[], Awaitable[HTTPRequest]] | None = None


class HTTPConnection(asyncio.Protocol):
    """A connection. `closed` is called once it is closed."""

    def __init__(self, closed: Callable[[HTTPConnection], object]) -> None:
        self._closed = closed
        self._transport: asyncio.Transport | None = None
        self._parser: Any = HttpResponseParser(self)
        self._waiting: asyncio.Future[HTTPResponse] | None = None

    @property
    def is_open(self) -> bool:
        """Say whether another request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    async def send(self, request: bytes, *, is_head: bool, limit: int) -> HTTPResponse:
        """Send a request, and return its answer. A connection that cannot be kept is closed.

        Args:
            request: the whole of it.
            is_head: the answer has no body, whatever its headers say.
            limit: bytes that the answer's body may have.

        Raises:
            ExchangeError: there is no answer, or it is too large.
        """
        assert self._transport is not None
        self._waiting = asyncio.get_running_loop().create_future()
        self._is_head, self._limit = is_head, limit
        self._headers: list[tuple[str, str]] = []
        self._body: list[bytes] = []
        self._size = self._overhead = self._status = 0
        self._heard = self._whole = self._keep = self._framed = False
        self._transport.write(request)
        try:
            return await self._waiting
        except BaseException:
            self.close()
            raise
        finally:
            self._waiting = None

    def close(self) -> None:
        """Close it at once."""
        if self._transport is not None:
            self._transport.abort()

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._waiting is None or self._waiting.done():
            self.close()  # There was no request.
            return
        self._heard = True
        self._overhead += len(data)
        fault: object = "the head is too large"
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._keep, self._overhead, fault = False, _MOST_OVERHEAD + 1, error
        if self._size > self._limit:
            self._fail(TooLarge(f"the answer is larger than {self._limit} bytes"))
        elif self._whole:
            self._finish()
        elif self._overhead > _MOST_OVERHEAD:
            self._fail(RemoteProtocolError(f"not an HTTP answer: {fault}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = self._parser = None
        if self._waiting is not None and not self._waiting.done():
            if not self._heard:
                self._fail(Unanswered("the connection was closed without an answer"))
            elif exc is not None:
                self._fail(ReadError(str(exc) or type(exc).__name__))
            elif self._status and not self._framed:
                self._finish()
            else:
                self._fail(CutOff("the connection was closed amid the answer"))
        self._closed(self)

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._whole:
            self._keep = False  # A second answer to one request.

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._status:  # Later ones are trailers.
            self._headers.append((name.decode("ascii").lower(), _text(value)))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._whole:
            return
        if status < _SUCCESS:
            self._headers.clear()
            return
        self._status = status
        self._keep = self._parser.should_keep_alive() and not self._is_head
        self._whole = self._is_head
        for name, value in self._headers:
            if name == "transfer-encoding":
                self._framed = True
                if value.lower() != "chunked":
                    self._fail(RemoteProtocolError(f"Transfer-Encoding: {value[:64]!r}"))
            elif name == "content-length":
                self._framed = True

    def on_body(self, body: bytes) -> None:
        self._overhead = 0
        if not self._whole:
            self._size += len(body)
            if self._size <= self._limit:
                self._body.append(body)

    def on_message_complete(self) -> None:
        if self._status:
            self._whole = True

    def _finish(self) -> None:
        # A request that is not sent yet cannot be followed by another.
        if self._transport and not (self._keep and not self._transport.get_write_buffer_size()):
            self.close()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(
                HTTPResponse(self._status, self._headers, b"".join(self._body))
            )

    def _fail(self, error: ExchangeError) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)


def decoded(answer: HTTPResponse, limit: int) -> HTTPResponse:
    """Return an answer without the encoding of its body, if it is one that the engine asks for.

    Raises:
        DecodingError: it is not encoded so.
        TooLarge: it is larger than `limit` bytes.
    """
    coding = answer.header("content-encoding").strip().lower()
    if coding not in _ZLIB:
        return answer
    body = answer.body
    if body:
        decoder = zlib.decompressobj(_ZLIB[coding])
        try:
            body = decoder.decompress(body, limit + 1)
        except zlib.error as error:
            raise DecodingError(str(error)) from error
        if len(body) > limit:
            raise TooLarge(f"the answer is larger than {limit} bytes")
        if not decoder.eof:
            raise DecodingError(f"the {coding} body ends too early")
    gone = ("content-encoding", "content-length")
    headers = [pair for pair in answer.headers if pair[0] not in gone]
    return HTTPResponse(answer.status, headers, body)


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
