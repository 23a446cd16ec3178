"""Starlette, with a mounted part."""

from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

import stephttp
from stephttp import step
from tests.frameworks.apps.work import NAP, digest, flaky, greet, provider


async def hello(request: Request) -> Response:
    return JSONResponse({"greeting": await step.run("greet", greet, request.path_params["name"])})


async def place(request: Request) -> Response:
    order_id = request.path_params["order_id"]
    await step.sleep("nap", NAP)
    order = await request.json()
    response = JSONResponse(
        {"order": order_id, "item": order["item"]}, 201, {"location": f"/orders/{order_id}"}
    )
    response.set_cookie("cart", "empty")
    response.set_cookie("last", str(order_id))
    return response


async def form(request: Request) -> Response:
    async with request.form() as fields:
        await step.sleep("nap", NAP)
        return JSONResponse({"name": fields["name"], "city": fields["city"]})


async def upload(request: Request) -> Response:
    await step.sleep("nap", NAP)
    async with request.form() as fields:
        file = fields["file"]
        assert isinstance(file, UploadFile)
        sha256 = digest(await file.read())
        return JSONResponse({"note": fields["note"], "filename": file.filename, "sha256": sha256})


async def reverse(request: Request) -> Response:
    await step.sleep("nap", NAP)
    data = await request.body()
    return Response(data[::-1], media_type="application/octet-stream")


async def me(request: Request) -> Response:
    await step.sleep("nap", NAP)
    return JSONResponse(
        {
            "authorization": request.headers["authorization"],
            "session": request.cookies["session"],
        }
    )


async def bug(request: Request) -> Response:
    await step.run("greet", greet, "bug")
    if request.path_params["when"] == "later":
        await step.sleep("nap", NAP)
    raise RuntimeError("bug")


async def retried(request: Request) -> Response:
    stephttp.configure(retries=2)
    return JSONResponse({"attempts": await step.run("flaky", flaky, request.path_params["key"])})


app = Starlette(
    routes=[
        Route("/hello/{name}", hello),
        Mount("/orders", routes=[Route("/{order_id:int}", place, methods=["POST"])]),
        Route("/forms", form, methods=["POST"]),
        Route("/uploads", upload, methods=["POST"]),
        Route("/bytes", reverse, methods=["POST"]),
        Route("/me", me),
        Route("/bug/{when}", bug),
        Route("/flaky/{key}", retried, methods=["POST"]),
    ],
    middleware=[Middleware(stephttp.ASGIMiddleware, provider=provider)],
)
