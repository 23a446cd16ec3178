"""Requests that the real Inngest server sent, word for word, against the SDK.

`data/reentries.jsonl` holds the re-entries of app, goapp, goapp2, goapp3 and deapp of the captured
traffic, each with the memo that the server gave for it. All must be accepted, and answered in a
form that the server understands (docs/protocol.md 6.3).
"""

import asyncio
import json
import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, Request, Response

from stephttp import StepError, step
from stephttp._wire.ids import CAPSULE
from stephttp.options import resolve
from stephttp.provider import Provider

ROWS = [
    json.loads(line)
    for line in (Path(__file__).parent / "data" / "reentries.jsonl").read_text().splitlines()
]
# Of the throw-away server with keys; its Go client sent it in the clear.
KEY = "signkey-prod-6b2f9d0c4a5e7f8192a3b4c5d6e7f80112233445566778899aabbccddeeff001"
ASYNC_OPS = {"Sleep", "StepError", "DiscoveryRequest"}


class Server(httpx2.AsyncBaseTransport):
    """Gives the recorded memo, and takes steps."""

    def __init__(self, actions: str) -> None:
        memos = json.loads(actions)
        # Of another SDK's run; ours has kept the request.
        memos[CAPSULE] = {"data": {}}
        self.actions = json.dumps(memos)
        self.taken: list[dict[str, Any]] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET":
            return httpx2.Response(200, content=self.actions.encode())
        self.taken += json.loads(request.content)["steps"]
        return httpx2.Response(200)


def handler_app(bodies: list[str]) -> FastAPI:
    """The steps of the recorded applications, all in one handler."""
    app = FastAPI()

    @app.api_route("/", methods=["GET", "POST"])
    async def handler(request: Request) -> Response:
        if request.query_params.get("k") == "par":
            await asyncio.gather(
                *(step.run(name, bodies.append, name) for name in ("p1", "p2")),
                step.sleep("ps", timedelta(seconds=1)),
            )
        else:
            await step.run("a", bodies.append, "a")
            try:
                await step.run("bad", bodies.append, "bad")
            except StepError as error:
                bodies.append(f"caught {error.name}: {error.message}")
            await step.sleep("zzz", timedelta(seconds=1))
        await step.run("b", bodies.append, "b")
        return Response("done", 418, {"x-own": "yes"})

    return app


def test_the_rows_are_there() -> None:
    assert len(ROWS) == 42
    assert {row["row"].split()[0] for row in ROWS} == {"app", "goapp", "goapp2", "goapp3", "deapp"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["row"].replace(" ", "-"))
async def test_the_real_servers_request_is_accepted_and_answered(row: dict[str, Any]) -> None:
    sent = row["req"]
    signed = bool(sent["headers"]["x-inngest-signature"])
    environ = {"INNGEST_SIGNING_KEY": KEY} if signed else {"INNGEST_DEV": "1"}
    server, bodies = Server(row["actions"]), list[str]()
    provider = Provider(
        resolve("http://app.test", base_url="http://server.test", environ=environ),
        transport=server,
        now_ns=lambda: row["t"] * 1_000_000,
        rng=random.Random(1),
    )
    app = provider.asgi(handler_app(bodies))
    transport = httpx2.ASGITransport(app=app)
    headers = {k: v for k, v in sent["headers"].items() if k != "content-length"}
    async with httpx2.AsyncClient(transport=transport, base_url="http://app.test") as client:
        answer = await client.request(
            sent["method"], sent["url"], headers=headers, content=sent["body"].encode()
        )
    assert await provider.aclose()

    assert answer.status_code == 206
    assert answer.headers["x-inngest-sdk"].startswith("stephttp-py:v")
    assert answer.headers["x-inngest-req-version"] == "1"
    assert answer.headers["x-run-id"] == sent["headers"]["x-run-id"], "the run's own, not a new one"
    value = answer.json()
    target = sent["headers"].get("x-inngest-step-id")
    if target is not None:
        assert [(op["op"], op["id"]) for op in value] == [("StepRun", target)]
        return
    if isinstance(value, list):
        assert any(op["op"] in ASYNC_OPS for op in value), "[] or only steps would hang or race"
    else:
        assert value["op"] == "RunComplete"
        data = value["data"]
        assert (data["status"], data["body"], data["headers"]["x-own"]) == (418, "done", "yes")
    remembered = json.loads(row["actions"])
    if "86f7e437faa5a7fce15d1ddcb9eaeaea377667b8" in remembered:
        assert "a" not in bodies, "a remembered step runs no more"
    elif "k=par" not in sent["url"]:
        assert "a" in bodies
    if "error" in (remembered.get("1902e3d6fc4e78a0bcc50ba12b882769afbf4a8c") or {}):
        assert any(body.startswith("caught ") for body in bodies)


async def test_the_recorded_signature_holds_for_this_body_and_key_only() -> None:
    from stephttp._wire.signatures import verify

    (row, _) = [row for row in ROWS if row["row"].startswith("goapp2")]
    header, now = row["req"]["headers"]["x-inngest-signature"], row["t"] / 1000
    assert verify(header, b"", [KEY], now)
    assert not verify(header, b" ", [KEY], now)
    assert not verify(header, b"", ["ab" * 16], now)
    assert not verify(header, b"", [KEY], now + 301)
