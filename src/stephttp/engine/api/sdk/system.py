"""How others find out what this is: `/health`, `/dev`, and what it is not: `/fn/register`."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from stephttp.engine.model.run import Refused
from stephttp.engine.model.settings import VERSION
from stephttp.engine.web.requests import engine_of, json_response


async def health(request: Request) -> Response:
    """The engine is up, and its store answers."""
    await engine_of(request).store.read(lambda connection: connection.execute("SELECT 1").close())
    return json_response({"status": 200, "message": "OK"})


async def dev(request: Request) -> Response:
    """SDKs look here for a dev server."""
    if engine_of(request).settings.kind != "dev":
        raise HTTPException(404)
    return json_response({"version": f"stephttp-{VERSION}", "functions": [], "handlers": []})


async def register(request: Request) -> Response:
    """SDKs register here functions of `serve`, which are not endpoints (docs/protocol.md 9.1)."""
    raise Refused(
        "functions: this engine runs durable HTTP endpoints, which need not be registered; "
        "functions of `serve` need an Inngest server"
    )
