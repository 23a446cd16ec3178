"""Secrets stay out of logs, the database and answers; callers who leave are no errors."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import httpx2
import pytest

from stephttp.engine.outbound.in_process import InProcess

from .support import KEY, RUN, A, B, answer, sleep, step, world

EVENT_KEY = "an-event-key-8cd1"


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (f"/event/{EVENT_KEY}", "/event/…"),
        (f"/e/{EVENT_KEY}/", "/e/…/"),
        (f"/e//{EVENT_KEY}", "/e//…"),
        (f"//e/{EVENT_KEY}", "//e/…"),
        (f"/{EVENT_KEY}", "/…"),
        (f"/E/{EVENT_KEY}", "/E/…"),
        (f"/v1/events/{EVENT_KEY}/more", "/v1/events/…/…"),
        (f"/v1/event{EVENT_KEY}", "/v1/…"),
        (f"/x/e/{EVENT_KEY}", "/…/e/…"),
        (f"/e/%61{EVENT_KEY}", "/e/…"),
        (f"/v1/runs/{RUN}", f"/v1/runs/{RUN}"),
        (f"/v1/runs/{RUN}/step", f"/v1/runs/{RUN}/step"),
        (f"/v1/runs/{EVENT_KEY}", "/v1/runs/…"),
        ("/v1/stephttp/run", "/v1/stephttp/run"),
        ("/" + "a" * 3000, "/…"),
        ("/e" * 3000, "/e" * 100),
    ],
)
async def test_a_key_in_a_path_is_not_logged(
    path: str, shown: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with world(signing_keys=(KEY,), event_keys=("another-event-key",)) as w:
        with caplog.at_level(logging.WARNING, "httpx2"), caplog.at_level(logging.DEBUG):
            response = await w.http.post("http://engine.test" + path, json={"name": "x"})
        assert response.status_code in (401, 404, 405)
        records = [r for r in caplog.records if r.__dict__.get("event") == "request.refused"]
        assert [record.__dict__["fields"]["path"] for record in records] == [shown]
        assert EVENT_KEY not in caplog.text + response.text


@pytest.mark.parametrize("path", ["/v1/runs/", f"/v1/runs/{RUN}/", "/health/", "//evil.test/"])
async def test_a_slash_too_many_redirects_nowhere(path: str) -> None:
    async with world() as w:
        response = await w.http.get("http://evil.test" + path)
        assert response.status_code == 404
        assert "location" not in response.headers
        assert "evil" not in response.text


@pytest.mark.parametrize("route", ["/v1/checkpoint", "/e/key", "/v1/signals"])
async def test_a_client_who_leaves_is_no_error(
    route: str, caplog: pytest.LogCaptureFixture
) -> None:
    sent: list[Any] = []
    messages = iter(
        [
            {"type": "http.request", "body": b"{", "more_body": True},
            {"type": "http.disconnect"},
        ]
    )

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": route, "raw_path": route.encode(),
        "query_string": b"", "headers": [(b"content-type", b"application/json")],
        "client": ("10.0.0.1", 1), "server": ("engine.test", 80), "scheme": "http",
        "http_version": "1.1", "root_path": "",
    }  # fmt: skip
    async with world() as w:
        with caplog.at_level(logging.INFO):
            await w.app(scope, receive, send)
    assert caplog.records == []
    assert [m["status"] for m in sent if m["type"] == "http.response.start"] == [400]


def fetch_step(url: str, **opts: Any) -> dict[str, Any]:
    return {"op": "Gateway", "id": A, "name": "get", "opts": {"url": url, "method": "GET", **opts}}


async def test_credentials_in_an_address_are_used_and_shown_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[httpx2.Request] = []

    def remote(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, text="pong")

    with caplog.at_level(logging.DEBUG):
        async with world(path=tmp_path / "db") as w:
            w.engine.executor._gateway._sender = InProcess(httpx2.MockTransport(remote))
            w.script = [answer([sleep(text="1h")])] * 2
            await w.post(fetch_step("https://user:p%40ss-5ecret@api.test/x?y=1#z"))
            await w.engine.idle()
            assert seen[0].headers["authorization"] == "Basic dXNlcjpwQHNzLTVlY3JldA=="
            assert "5ecret" not in str(seen[0].url)
            answers = [
                (await w.http.get(f"/v1/runs/{RUN}{more}")).text for more in ("", "/steps")
            ] + [
                (await w.http.get(f"/v1/stephttp/runs/{RUN}{more}")).text
                for more in ("", f"/steps/{A}")
            ]
            memo = json.loads((await w.http.get(f"/v0/runs/{RUN}/actions")).text or "{}")
            assert memo[A]["data"]["url"] == "https://api.test/x?y=1#z"
            rows = await w.engine.store.read(lambda connection: [*connection.iterdump()])
    for text in [*answers, caplog.text, json.dumps(memo), *rows]:
        assert "5ecret" not in text
        assert "user:" not in text


@pytest.mark.parametrize(
    "url", ["ftp://user:5ecret@api.test/", "https://user:5ecret@/", "//user:5ecret@api.test"]
)
async def test_credentials_in_an_address_that_is_refused_are_not_repeated(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with world() as w:
        with caplog.at_level(logging.DEBUG):
            w.script = [answer([sleep(text="1h")])]
            await w.post(step(B))
            response = await w.report(fetch_step(url))
            await w.engine.idle()
        memo = json.dumps((await w.memos())[A])
        assert "opts.url" in memo
        assert "5ecret" not in response.text + caplog.text + memo
