"""FastAPI, `async def` routes, on a router with a prefix of its own."""

from typing import Annotated

from fastapi import (
    APIRouter,
    BackgroundTasks,
    Cookie,
    FastAPI,
    Form,
    Header,
    Request,
    Response,
    UploadFile,
)
from pydantic import BaseModel

import stephttp
from stephttp import step
from tests.frameworks.apps.work import NAP, behind, digest, flaky, greet, provider


class Order(BaseModel):
    item: str


orders = APIRouter(prefix="/orders")
app = FastAPI()
app.add_middleware(stephttp.ASGIMiddleware, provider=provider)


@app.get("/hello/{name}")
async def hello(name: str) -> dict[str, str]:
    return {"greeting": await step.run("greet", greet, name)}


@orders.post("/{order_id}", status_code=201)
async def place(order_id: int, order: Order, response: Response) -> dict[str, str | int]:
    await step.sleep("nap", NAP)
    response.headers["location"] = f"/orders/{order_id}"
    response.set_cookie("cart", "empty")
    response.set_cookie("last", str(order_id))
    return {"order": order_id, "item": order.item}


@app.post("/forms")
async def form(name: Annotated[str, Form()], city: Annotated[str, Form()]) -> dict[str, str]:
    await step.sleep("nap", NAP)
    return {"name": name, "city": city}


@app.post("/uploads")
async def upload(note: Annotated[str, Form()], file: UploadFile) -> dict[str, str | None]:
    await step.sleep("nap", NAP)
    return {"note": note, "filename": file.filename, "sha256": digest(await file.read())}


@app.post("/bytes")
async def reverse(request: Request) -> Response:
    await step.sleep("nap", NAP)
    data = await request.body()
    return Response(data[::-1], media_type="application/octet-stream")


@app.get("/me")
async def me(
    authorization: Annotated[str, Header()], session: Annotated[str, Cookie()]
) -> dict[str, str]:
    await step.sleep("nap", NAP)
    return {"authorization": authorization, "session": session}


@app.get("/bug/{when}")
async def bug(when: str) -> None:
    await step.run("greet", greet, when)
    if when == "later":
        await step.sleep("nap", NAP)
    raise RuntimeError("bug")


@app.post("/flaky/{key}")
async def retried(key: str) -> dict[str, int]:
    stephttp.configure(retries=2)
    return {"attempts": await step.run("flaky", flaky, key)}


@app.get("/behind")
async def behind_response(gate: str, tasks: BackgroundTasks) -> str:
    await step.sleep("nap", NAP)
    tasks.add_task(behind, gate)
    return "answered"


app.include_router(orders)
