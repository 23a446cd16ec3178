"""FastAPI, `def` routes: handlers that run in worker threads, with the blocking tools."""

from typing import Annotated

from fastapi import Cookie, Depends, FastAPI, Form, Header, Request, Response, UploadFile
from pydantic import BaseModel

import stephttp
from stephttp.sync import step
from tests.frameworks.apps.work import NAP, digest, flaky, greet, provider


class Order(BaseModel):
    item: str


async def whole_body(request: Request) -> bytes:
    return await request.body()


app = FastAPI()
app.add_middleware(stephttp.ASGIMiddleware, provider=provider)


@app.get("/hello/{name}")
def hello(name: str) -> dict[str, str]:
    return {"greeting": step.run("greet", greet, name)}


@app.post("/orders/{order_id}", status_code=201)
def place(order_id: int, order: Order, response: Response) -> dict[str, str | int]:
    step.sleep("nap", NAP)
    response.headers["location"] = f"/orders/{order_id}"
    response.set_cookie("cart", "empty")
    response.set_cookie("last", str(order_id))
    return {"order": order_id, "item": order.item}


@app.post("/forms")
def form(name: Annotated[str, Form()], city: Annotated[str, Form()]) -> dict[str, str]:
    step.sleep("nap", NAP)
    return {"name": name, "city": city}


@app.post("/uploads")
def upload(note: Annotated[str, Form()], file: UploadFile) -> dict[str, str | None]:
    step.sleep("nap", NAP)
    return {"note": note, "filename": file.filename, "sha256": digest(file.file.read())}


@app.post("/bytes")
def reverse(data: Annotated[bytes, Depends(whole_body)]) -> Response:
    step.sleep("nap", NAP)
    return Response(data[::-1], media_type="application/octet-stream")


@app.get("/me")
def me(
    authorization: Annotated[str, Header()], session: Annotated[str, Cookie()]
) -> dict[str, str]:
    step.sleep("nap", NAP)
    return {"authorization": authorization, "session": session}


@app.get("/bug/{when}")
def bug(when: str) -> None:
    step.run("greet", greet, when)
    if when == "later":
        step.sleep("nap", NAP)
    raise RuntimeError("bug")


@app.post("/flaky/{key}")
def retried(key: str) -> dict[str, int]:
    stephttp.configure(retries=2)
    return {"attempts": step.run("flaky", flaky, key)}
