"""Litestar; one of its handlers runs in a worker thread."""

from dataclasses import dataclass
from typing import Annotated, Any

from litestar import Litestar, Request, Response, get, post
from litestar.datastructures import UploadFile
from litestar.params import (
    CookieParameter,
    FromPath,
    HeaderParameter,
    JSONBody,
    MultipartBody,
    URLEncodedBody,
)

import stephttp
from stephttp import step
from stephttp.sync import step as blocking_step
from tests.frameworks.apps.work import NAP, digest, flaky, greet, provider


@dataclass
class Order:
    item: str


@dataclass
class Contact:
    name: str
    city: str


@dataclass
class Upload:
    note: str
    file: UploadFile


@get("/hello/{name:str}", sync_to_thread=True)
def hello(name: FromPath[str]) -> dict[str, str]:
    return {"greeting": blocking_step.run("greet", greet, name)}


@post("/orders/{order_id:int}", status_code=201)
async def place(order_id: FromPath[int], data: JSONBody[Order]) -> Response[dict[str, str | int]]:
    await step.sleep("nap", NAP)
    response = Response[dict[str, str | int]](
        {"order": order_id, "item": data.item}, headers={"location": f"/orders/{order_id}"}
    )
    response.set_cookie("cart", "empty")
    response.set_cookie("last", str(order_id))
    return response


@post("/forms", status_code=200)
async def form(
    data: URLEncodedBody[Contact],
) -> dict[str, str]:
    await step.sleep("nap", NAP)
    return {"name": data.name, "city": data.city}


@post("/uploads", status_code=200)
async def upload(
    data: MultipartBody[Upload],
) -> dict[str, str]:
    await step.sleep("nap", NAP)
    file = data.file
    return {"note": data.note, "filename": file.filename, "sha256": digest(await file.read())}


@post("/bytes", status_code=200, media_type="application/octet-stream")
async def reverse(request: Request[Any, Any, Any]) -> bytes:
    await step.sleep("nap", NAP)
    return (await request.body())[::-1]


@get("/me")
async def me(
    authorization: Annotated[str, HeaderParameter(name="authorization")],
    session: Annotated[str, CookieParameter(name="session")],
) -> dict[str, str]:
    await step.sleep("nap", NAP)
    return {"authorization": authorization, "session": session}


@get("/bug/{when:str}")
async def bug(when: FromPath[str]) -> None:
    await step.run("greet", greet, when)
    if when == "later":
        await step.sleep("nap", NAP)
    raise RuntimeError("bug")


@post("/flaky/{key:str}", status_code=200)
async def retried(key: FromPath[str]) -> dict[str, int]:
    stephttp.configure(retries=2)
    return {"attempts": await step.run("flaky", flaky, key)}


app = provider.asgi(Litestar([hello, place, form, upload, reverse, me, bug, retried]))
