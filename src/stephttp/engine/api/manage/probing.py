"""`POST /v1/stephttp/probe`: for `stephttp doctor`."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from stephttp.engine.api.sdk.checkpoint import check_origin
from stephttp.engine.rules.decoding import decode
from stephttp.engine.web.requests import Origin, engine_of, read_body, wrapped


class ProbeRequest(msgspec.Struct):
    """The application to call, such as `https://app.example.com`."""

    origin: Origin


_PROBE = msgspec.json.Decoder(ProbeRequest)


async def probe(request: Request) -> Response:
    """Call an application, as far as this engine may."""
    engine = engine_of(request)
    message = decode(_PROBE, await read_body(request, engine.settings.max_body))
    check_origin(message.origin, "origin")
    found = await engine.probe(message.origin.rstrip("/"))
    data = {
        "verdict": found.verdict.value,
        "status": found.status,
        "took_ms": found.took_ms,
        "detail": found.detail,
    }
    return wrapped(data, engine.clock.now_ms())
