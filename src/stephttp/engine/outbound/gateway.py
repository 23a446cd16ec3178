"""Makes the HTTP requests of `fetch` and `ai.infer`, and the result of the step from their answers.

`gateway_request` makes the stored `RequestSpec` of what a step asks for. `Gateway.fetch` sends it
and always returns a memo: any answer is a result, and if there is no answer the step has failed.
`gateway_answer` decides whether the request is made again instead.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw

from stephttp._wire.json import UNREADABLE
from stephttp.engine.model.settings import Settings
from stephttp.engine.model.urls import read_url
from stephttp.engine.outbound.client import Client, Sender
from stephttp.engine.outbound.connection import ExchangeError, HTTPRequest, TooLarge, decoded
from stephttp.engine.outbound.egress import Egress
from stephttp.engine.rules.answers import HTTPResponse
from stephttp.engine.rules.gateway_answer import GatewayOutcome, is_temporary
from stephttp.engine.rules.gateway_request import RequestSpec
from stephttp.engine.rules.results import error_json

if TYPE_CHECKING:
    import httpx2


class _Unwanted(Exception):
    """The request must not be made, or its answer cannot be used."""


class Gateway:
    """Makes the requests. One for the life of an engine.

    Args:
        settings: limits, and where requests may go.
        transport: what carries the requests; by default real connections, to where the settings
            allow them.
    """

    def __init__(
        self, settings: Settings, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self._settings = settings
        self._sender: Sender
        if transport is None:
            self._sender = Client(
                Egress.of(settings), settings.connect_timeout, ca_file=settings.ca_file
            )
        else:
            from stephttp.engine.outbound.in_process import InProcess  # httpx2 is slow to import

            self._sender = InProcess(transport)

    async def close(self) -> None:
        """Close the connections."""
        await self._sender.close()

    async def fetch(self, spec: bytes) -> GatewayOutcome:
        """Make the request of a stored `RequestSpec`, once."""
        wanted = msgspec.json.decode(spec, type=RequestSpec)
        limit = self._settings.max_step_output
        try:
            request = _request(wanted)
            async with asyncio.timeout(self._settings.gateway_timeout):
                answer = decoded(await self._sender.send(request, limit), limit)
            memo = _ai_memo(answer) if wanted.ai else _memo(wanted, answer)
            if len(memo) > limit:
                raise TooLarge(f"the answer is larger than {limit} bytes")
        except TimeoutError:
            detail = f"no answer within {self._settings.gateway_timeout:g} s"
            return _failure(wanted, detail, temporary=True)
        except (ExchangeError, OSError, ValueError, _Unwanted) as error:
            detail = str(error) or type(error).__name__
            temporary = isinstance(error, OSError) or getattr(error, "temporary", False)
            return _failure(wanted, detail, temporary=temporary)
        if not is_temporary(answer.status):
            return GatewayOutcome(memo)
        reason = error_json("GatewayError", f"the answer has the status {answer.status}")
        return GatewayOutcome(memo, reason, answer.header("retry-after"))


def _request(spec: RequestSpec) -> HTTPRequest:
    url = read_url(spec.url)
    headers = {"accept": "*/*", "accept-encoding": "gzip", **spec.headers}
    if url.userinfo:
        pair = f"{url.username}:{url.password}".encode()
        headers["authorization"] = f"Basic {b64encode(pair).decode()}"
    origin = f"{url.scheme}://{url.netloc.decode()}"
    named = {_capitalized(name): value for name, value in headers.items()}
    return HTTPRequest(spec.method, origin, url.raw_path.decode(), named, spec.body.encode())


def _capitalized(name: str) -> str:
    """Return the name of a header as the Inngest server writes it: `X-Api-Key`."""
    return "-".join(part.capitalize() for part in name.split("-"))


def _memo(spec: RequestSpec, answer: HTTPResponse) -> bytes:
    headers: dict[str, str] = {}
    for name, value in answer.headers:
        shown = _capitalized(name)
        headers[shown] = f"{headers[shown]},{value}" if shown in headers else value
    data = {
        "body": answer.body.decode("utf-8", "replace"),
        "headers": headers,
        "status_code": answer.status,
        "url": spec.url,
    }
    return msgspec.json.encode({"data": data})


def _ai_memo(answer: HTTPResponse) -> bytes:
    good = HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES
    try:
        msgspec.json.decode(answer.body)
        data = Raw(answer.body)
    except UNREADABLE:
        if good:
            raise _Unwanted("the answer is not JSON") from None
        data = Raw(b"null")
    if good:
        return msgspec.json.encode({"data": data})
    error = {
        "name": "AIGatewayError",
        "message": f"Error making AI request: unsuccessful status code: {answer.status}",
        "data": data,
        "stack": answer.body.decode("utf-8", "replace"),
    }
    return msgspec.json.encode({"error": error})


def _failure(spec: RequestSpec, detail: str, *, temporary: bool) -> GatewayOutcome:
    name, what = ("AIGatewayError", "AI") if spec.ai else ("GatewayError", "gateway")
    message = f"Error making {what} request: {detail}"
    memo = msgspec.json.encode({"error": {"name": name, "message": message, "data": None}})
    return GatewayOutcome(memo, error_json(name, message) if temporary else None)
