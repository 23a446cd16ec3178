"""Requests to an application in this process, for tests: through one of httpx2's transports."""

from __future__ import annotations

import httpx2

from stephttp.engine.outbound.connection import (
    ConnectError,
    ConnectTimeout,
    CutOff,
    DecodingError,
    HTTPRequest,
    ReadError,
    TooLarge,
)
from stephttp.engine.rules.answers import HTTPResponse

_OURS: dict[type[httpx2.HTTPError], type[Exception]] = {
    httpx2.ConnectError: ConnectError,
    httpx2.ConnectTimeout: ConnectTimeout,
    httpx2.DecodingError: DecodingError,
    httpx2.ReadTimeout: TimeoutError,
    httpx2.RemoteProtocolError: CutOff,
}


class InProcess:
    """Sends requests through a transport, as `Client` does over the network."""

    def __init__(self, transport: httpx2.AsyncBaseTransport) -> None:
        self._transport = transport

    async def send(self, request: HTTPRequest, limit: int) -> HTTPResponse:
        """See `Client.send`."""
        try:
            url = httpx2.URL(request.origin).copy_with(raw_path=request.target.encode())
        except httpx2.InvalidURL as error:
            raise ValueError(str(error)) from None
        body = request.body or None
        made = httpx2.Request(request.method, url, headers=request.headers, content=body)
        try:
            response = await self._transport.handle_async_request(made)
            chunks, size = [], 0
            try:
                assert isinstance(response.stream, httpx2.AsyncByteStream)
                async for chunk in response.stream:
                    chunks.append(chunk)
                    size += len(chunk)
                    if size > limit:
                        raise TooLarge(f"the answer is larger than {limit} bytes")
            finally:
                await response.aclose()
        except httpx2.HTTPError as error:
            raise _OURS.get(type(error), ReadError)(str(error) or type(error).__name__) from error
        headers = [(name.lower(), value) for name, value in response.headers.multi_items()]
        return HTTPResponse(response.status_code, headers, b"".join(chunks))

    async def close(self) -> None:
        """Close the transport."""
        await self._transport.aclose()
