"""`POST /v1/stephttp/probe`: what is made of how an application answers."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from stephttp._wire.signatures import verify

from .support import DONE, KEY, RUN, Reply, world

OURS = {"x-inngest-sdk": "stephttp-py:v9"}
ORIGIN = "http://app.test"


async def probe(
    reply: Reply | None, sdk: str = "stephttp-py:v9", origin: str = ORIGIN, **settings: Any
) -> tuple[dict[str, Any], list[httpx2.Request]]:
    """What the engine tells, and the calls that it made for it."""
    async with world(script=[] if reply is None else [reply], **settings) as w:
        w.http.headers["x-inngest-sdk"] = sdk
        if settings.get("signing_keys"):
            w.http.headers["authorization"] = f"Bearer {KEY}"
        if sdk:
            await w.post(DONE)
        response = await w.http.post("/v1/stephttp/probe", json={"origin": origin})
        assert response.status_code == 200, response.text
        return response.json()["data"], w.calls


@pytest.mark.parametrize(
    ("reply", "verdict", "status"),
    [
        (httpx2.Response(404, headers=OURS), "ok", 404),
        (httpx2.Response(401, headers=OURS), "wrong_key", 401),
        (httpx2.Response(503, headers=OURS), "no_way_back", 503),
        (httpx2.Response(200, headers=OURS), "not_ours", 200),
        (httpx2.Response(599, headers=OURS), "not_ours", 599),
        (httpx2.Response(404), "not_ours", 404),
        (httpx2.ConnectError("refused"), "unreachable", None),
        (httpx2.ReadTimeout("slow"), "unreachable", None),
    ],
)
async def test_verdicts(reply: Reply, verdict: str, status: int | None) -> None:
    told, calls = await probe(reply)
    assert (told["verdict"], told["status"]) == (verdict, status)
    assert (told["detail"] is None) == (status is not None)
    assert len(calls) == 1


async def test_an_application_of_ours_is_called_for_a_run_that_is_not_there() -> None:
    _, (call,) = await probe(httpx2.Response(404, headers=OURS), signing_keys=(KEY,))
    assert (call.method, str(call.url)) == ("GET", f"{ORIGIN}/")
    assert call.headers["x-run-id"] != RUN
    signature = call.headers["x-inngest-signature"]
    assert verify(signature, b"", [KEY], int(signature[2:12]))


@pytest.mark.parametrize("sdk", ["inngest-js:v4.24.0", "go:0.16.0", ""])
async def test_others_are_only_asked_whether_they_are_there(sdk: str) -> None:
    told, (call,) = await probe(httpx2.Response(200), sdk, signing_keys=(KEY,))
    assert (told["verdict"], told["status"]) == ("answers", 200)
    assert not [name for name in call.headers if name.startswith("x-")]


async def test_nothing_is_called_that_endpoints_may_not_be() -> None:
    told, calls = await probe(None, "", "http://10.0.0.1", private_hosts=False)
    assert (told["verdict"], calls) == ("forbidden", [])
    assert "10.0.0.1" in told["detail"]


@pytest.mark.parametrize(
    "origin", ["", "no", "http://a.test/path", "ftp://a", "http://a@b", "http://a:0"]
)
async def test_what_is_no_origin_is_refused(origin: str) -> None:
    async with world() as w:
        response = await w.http.post("/v1/stephttp/probe", json={"origin": origin})
        assert response.status_code == 400
        assert response.json()["error"].startswith("origin: ")
