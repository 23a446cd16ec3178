"""An API for pages of another origin: results at its own path, and at the engine's."""

import os
from datetime import timedelta

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

import stephttp
from stephttp import step

ORIGIN = os.environ["SHOP_ORIGIN"]


async def report(request: Request) -> JSONResponse:
    """Answer with the session and the body of the request, after a wait."""
    await step.sleep("nap", timedelta(milliseconds=10))
    answer = [request.cookies.get("session"), await request.json()]
    return JSONResponse(answer, 201, {"x-report": "7"})


def api(result_path: str | None) -> stephttp.ASGIMiddleware:
    """Make an API that serves its results itself, or leaves that to the engine."""
    routes = [Route("/report", report, methods=["POST"])]
    return stephttp.setup(ORIGIN, result_path=result_path).asgi(Starlette(routes=routes))


app = Starlette(
    routes=[Mount("/own", api("/own/_stephttp/result")), Mount("/engine", api(None))],
    middleware=[
        # Around stephttp, so that its redirects may be followed as well.
        Middleware(
            CORSMiddleware,
            allow_origin_regex=r"http://127\.0\.0\.1:\d+",
            allow_methods=["POST"],
            allow_headers=["content-type"],
            allow_credentials=True,
        )
    ],
)
