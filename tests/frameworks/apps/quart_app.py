"""Quart; one of its handlers runs in a worker thread."""

from quart import Quart, Response, jsonify, make_response, request

import stephttp
from stephttp import step
from stephttp.sync import step as blocking_step
from tests.frameworks.apps.work import NAP, digest, flaky, greet, provider

app = Quart(__name__)
app.asgi_app = provider.asgi(app.asgi_app)  # type: ignore[method-assign]


@app.get("/hello/<name>")
def hello(name: str) -> dict[str, str]:
    return {"greeting": blocking_step.run("greet", greet, name)}


@app.post("/orders/<int:order_id>")
async def place(order_id: int) -> Response:
    await step.sleep("nap", NAP)
    order = await request.get_json()
    body = jsonify({"order": order_id, "item": order["item"]})
    response = await make_response(body, 201, {"location": f"/orders/{order_id}"})
    assert isinstance(response, Response)
    response.set_cookie("cart", "empty")
    response.set_cookie("last", str(order_id))
    return response


@app.post("/forms")
async def form() -> dict[str, str]:
    fields = await request.form
    await step.sleep("nap", NAP)
    return {"name": fields["name"], "city": fields["city"]}


@app.post("/uploads")
async def upload() -> dict[str, str | None]:
    await step.sleep("nap", NAP)
    note, file = (await request.form)["note"], (await request.files)["file"]
    return {"note": note, "filename": file.filename, "sha256": digest(file.read())}


@app.post("/bytes")
async def reverse() -> Response:
    await step.sleep("nap", NAP)
    data = await request.get_data(as_text=False)
    return Response(data[::-1], mimetype="application/octet-stream")


@app.get("/me")
async def me() -> dict[str, str]:
    await step.sleep("nap", NAP)
    return {
        "authorization": request.headers["authorization"],
        "session": request.cookies["session"],
    }


@app.get("/bug/<when>")
async def bug(when: str) -> str:
    await step.run("greet", greet, when)
    if when == "later":
        await step.sleep("nap", NAP)
    raise RuntimeError("bug")


@app.post("/flaky/<key>")
async def retried(key: str) -> dict[str, int]:
    stephttp.configure(retries=2)
    return {"attempts": await step.run("flaky", flaky, key)}
