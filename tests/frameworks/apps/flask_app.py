"""Flask; one of its views is `async def`."""

from typing import Any

from flask import Flask, Response, jsonify, request

import stephttp
from stephttp import step as async_step
from stephttp.sync import step
from tests.frameworks.apps.work import NAP, behind, digest, flaky, greet, provider

app = Flask(__name__)
app.wsgi_app = provider.wsgi(app.wsgi_app)  # type: ignore[method-assign]


@app.get("/hello/<name>")
def hello(name: str) -> dict[str, str]:
    return {"greeting": step.run("greet", greet, name)}


@app.post("/orders/<int:order_id>")
def place(order_id: int) -> Response:
    order = request.get_json()
    step.sleep("nap", NAP)
    response = jsonify({"order": order_id, "item": order["item"]})
    response.status_code = 201
    response.location = f"/orders/{order_id}"
    response.set_cookie("cart", "empty")
    response.set_cookie("last", str(order_id))
    return response


@app.post("/forms")
def form() -> dict[str, str]:
    step.sleep("nap", NAP)
    return {"name": request.form["name"], "city": request.form["city"]}


@app.post("/uploads")
def upload() -> dict[str, Any]:
    note, file = request.form["note"], request.files["file"]
    step.sleep("nap", NAP)
    return {"note": note, "filename": file.filename, "sha256": digest(file.read())}


@app.post("/bytes")
def reverse() -> Response:
    step.sleep("nap", NAP)
    return Response(request.get_data()[::-1], mimetype="application/octet-stream")


@app.get("/me")
async def me() -> dict[str, Any]:
    await async_step.sleep("nap", NAP)
    return {
        "authorization": request.headers["authorization"],
        "session": request.cookies["session"],
    }


@app.get("/bug/<when>")
def bug(when: str) -> str:
    step.run("greet", greet, when)
    if when == "later":
        step.sleep("nap", NAP)
    raise RuntimeError("bug")


@app.post("/flaky/<key>")
def retried(key: str) -> dict[str, int]:
    stephttp.configure(retries=2)
    return {"attempts": step.run("flaky", flaky, key)}


@app.get("/behind")
def behind_response() -> Response:
    step.sleep("nap", NAP)
    gate = request.args["gate"]
    response = jsonify("answered")
    response.call_on_close(lambda: behind(gate))
    return response
