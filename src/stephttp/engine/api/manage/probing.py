"""`POST /v1/stephttp/probe`: for `stephttp doctor`."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from stephttp.engine.api.sdk.checkpoint import check_origin
from stephttp.engine.web.fields import GivenOrigin
from stephttp.engine.web.requests import engine_of, read_json
from stephttp.engine.web.responses import wrapped


class ProbeRequest(msgspec.Struct):
    """The application to call, such as `https://app.example.com`."""

    origin: GivenOrigin


_PROBE = msgspec.json.Decoder(ProbeRequest)


async def probe(request: Request) -> Response:
    """Call an application, as far as this engine may."""
    engine = engine_of(request)
    message = await read_json(request, _PROBE)
    check_origin(message.origin, "origin")
    found = await engine.probe(message.origin.rstrip("/"))
    return wrapped(found, engine.clock.now_ms())
