"""`engine.outbound.client.Client`, done with aiohttp and a resolver of its own."""

from __future__ import annotations

import socket

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from stephttp.engine.outbound.connection import (
    ConnectError,
    ConnectTimeout,
    DecodingError,
    HTTPRequest,
    ReadError,
    RemoteProtocolError,
    TooLarge,
    Unanswered,
)
from stephttp.engine.outbound.egress import Egress, EgressError
from stephttp.engine.rules.answers import HTTPResponse

_SKIPPED = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class EgressResolver(AbstractResolver):
    """Resolves a name to those of its addresses that may be connected to."""

    def __init__(self, egress: Egress) -> None:
        self._egress = egress

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        try:
            addresses = await self._egress.addresses(host, port)
        except EgressError as error:
            raise OSError(None, str(error)) from error
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        pass


class Client:
    """See `stephttp.engine.outbound.client.Client`.

    It does less: a request that met a closing connection is not repeated, because aiohttp says only
    to a tracer whether the connection was a new one.
    """

    def __init__(
        self, egress: Egress, connect_timeout: float, call_timeout: float, keep_alive: float
    ) -> None:
        self._egress = egress
        connector = aiohttp.TCPConnector(
            resolver=EgressResolver(egress),
            use_dns_cache=False,
            happy_eyeballs_delay=None,
            limit=0,
            keepalive_timeout=keep_alive,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=call_timeout, sock_connect=connect_timeout),
            skip_auto_headers=_SKIPPED,
        )

    async def send(self, request: HTTPRequest, limit: int) -> HTTPResponse:
        """See `stephttp.engine.outbound.client.Client.send`."""
        # aiohttp does not ask its resolver about a literal address.
        refusal = self._egress.refuse_origin(request.origin)
        if refusal:
            raise ConnectError(refusal)
        url = URL(request.origin + request.target, encoded=True)
        try:
            async with self._session.request(
                request.method,
                url,
                data=request.body or None,
                headers=request.headers,
                allow_redirects=False,
            ) as response:
                chunks, size = [], 0
                while chunk := await response.content.readany():
                    chunks.append(chunk)
                    size += len(chunk)
                    if size > limit:
                        response.close()
                        raise TooLarge(f"the answer is larger than {limit} bytes")
        except aiohttp.ConnectionTimeoutError as error:
            raise ConnectTimeout(str(error)) from error
        except aiohttp.ClientConnectorError as error:
            raise ConnectError(str(error)) from error
        except aiohttp.ServerDisconnectedError as error:
            raise Unanswered(str(error)) from error
        except aiohttp.ClientPayloadError as error:
            raise DecodingError(str(error)) from error
        except aiohttp.ClientOSError as error:
            raise ReadError(str(error)) from error
        except aiohttp.ClientError as error:
            raise RemoteProtocolError(str(error)) from error
        headers = [
            (name.decode("ascii").lower(), value.decode("utf-8", "surrogateescape"))
            for name, value in response.raw_headers
        ]
        return HTTPResponse(response.status, headers, b"".join(chunks))

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()
