"""What every answer carries, unexpected errors included; rate limits; what is logged."""

from __future__ import annotations

import logging
from typing import Any

import httpx2
import pytest

from stephttp.engine.api.sdk import run_state
from stephttp.engine.live.rate_limit import _MOST_CLIENTS, Buckets

from .support import DONE, KEY, RUN, SDK, answer, complete, sleep, step, world

OURS = {
    "x-inngest-server-kind",
    "x-stephttp-engine",
    "x-stephttp-features",
    "cache-control",
    "referrer-policy",
    "x-content-type-options",
    "content-security-policy",
    "x-frame-options",
}


async def test_unexpected_errors_look_like_all_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("secret detail")

    async with world() as w:
        monkeypatch.setattr(run_state, "parse_run_id", broken)
        transport = httpx2.ASGITransport(app=w.app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://e.test") as client:
            response = await client.get(f"/v1/runs/{RUN}")
        assert response.status_code == 500
        assert response.json() == {
            "error": "internal error of the engine",
            "data": None,
            "status": 500,
        }
        assert set(response.headers) >= OURS
        (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert record.__dict__["event"] == "request.refused"
        assert record.__dict__["fields"]["run_id"] == RUN


@pytest.mark.parametrize("path", ["/health", "/nowhere", "/v1/runs", "/v1/runs/x"])
async def test_headers_of_every_answer(path: str) -> None:
    async with world(signing_keys=(KEY,)) as w:
        response = await w.http.get(path)
        assert set(response.headers) >= OURS
        assert response.headers["x-inngest-server-kind"] == "cloud"


async def test_outputs_stay_what_the_handler_made() -> None:
    async with world() as w:
        own = "img-src 'self'"
        head = {"cache-control": "max-age=60", "content-type": "text/html"}
        head["content-security-policy"] = own
        token = (await w.post(complete({"status": 200, "headers": head, "body": "<p>"})))["token"]
        response = await w.output(token)
        assert response.headers["cache-control"] == "max-age=60"
        assert response.headers["referrer-policy"] == "no-referrer"
        policies = response.headers.get_list("content-security-policy")
        assert policies[0] == own
        assert "x-frame-options" not in response.headers


@pytest.mark.parametrize("prefix", ["/v1/http/runs", "/v1/checkpoint"])
async def test_scripts_in_outputs_cannot_act_as_the_dashboard(prefix: str) -> None:
    async with world(signing_keys=(KEY,)) as w:
        for method in ("GET", "HEAD", "POST"):
            response = await w.http.request(method, f"{prefix}/{RUN}/output?token=x")
            (policy,) = response.headers.get_list("content-security-policy")
            name, *allowed = policy.split()
            assert name == "sandbox"
            assert "allow-scripts" in allowed
            assert "allow-same-origin" not in allowed
        passed_on = await w.http.get(f"{prefix}/{RUN}/output?token=x", headers=SDK)
        assert "content-security-policy" not in passed_on.headers


async def test_public_routes_are_limited_for_each_client() -> None:
    async with world(rate_limit=0.5, rate_burst=3) as w:
        token = (await w.post(step(), DONE))["token"]
        assert [(await w.output(token)).status_code for _ in range(5)] == [201] * 3 + [429] * 2
        refused = await w.output(token)
        assert refused.headers["retry-after"] == "2"
        assert refused.headers["access-control-allow-origin"] == "*"
        assert refused.json()["status"] == 429
        assert (await w.http.post("/e/key", json={})).status_code == 429
        # What needs a signing key is not limited, and neither is another client.
        assert (await w.http.get(f"/v1/runs/{RUN}")).status_code == 200
        transport = httpx2.ASGITransport(app=w.app, client=("192.0.2.9", 1))
        async with httpx2.AsyncClient(transport=transport, base_url="http://e.test") as other:
            answered = await other.get(f"/v1/http/runs/{RUN}/output?token={token}")
        assert answered.status_code == 201
        w.clock.advance(2)
        assert [(await w.output(token)).status_code for _ in range(2)] == [201, 429]


def test_buckets() -> None:
    buckets = Buckets(rate=1, burst=2)
    assert [buckets.take("a", 0) for _ in range(3)] == [0, 0, 1]
    assert buckets.take("a", 500) == 0.5
    assert buckets.take("a", 1000) == 0
    assert buckets.take("a", 100) == 1, "a clock that goes back gives nothing"
    # An IPv6 client has a whole network of addresses.
    assert [buckets.take(f"2001:db8::{n}", 0) for n in range(3)] == [0, 0, 1]
    assert buckets.take("2001:db8:0:1::", 0) == 0
    for number in range(_MOST_CLIENTS + 10):
        buckets.take(f"client-{number}", 0)
    assert len(buckets._buckets) == _MOST_CLIENTS
    assert all(Buckets(0, 1).take("a", 0) == 0 for _ in range(9))


async def test_what_is_logged_holds_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    script = [httpx2.Response(500, headers={"x-inngest-sdk": "t"}, text="secret-of-endpoint")]
    script.append(answer([DONE]))
    async with world(script=script, signing_keys=(KEY,), event_keys=("secret-key",)) as w:
        w.http.headers["authorization"] = f"Bearer {KEY}"
        data = {"query_params": "q=secret-query"}
        token = (await w.post(step(), sleep(), retries=1, data=data))["token"]
        await w.after(5)
        await w.after(2)
        assert (await w.output(token)).status_code == 201
        await w.http.get(f"/v1/http/runs/{RUN}/output?token=secret-token")
        await w.http.post("/e/secret-event-key", json=[])
        w.http.headers["authorization"] = "Bearer secret-bearer"
        await w.http.get(f"/v1/runs/{RUN}")
    ours = [record for record in caplog.records if record.name.startswith("stephttp")]
    text = "\n".join(f"{record.getMessage()} {record.__dict__['fields']}" for record in ours)
    assert "secret" not in text
    assert token not in text
    assert KEY not in text
    events = [(r.__dict__["event"], r.__dict__["fields"].get("run_id")) for r in ours]
    assert events == [
        ("run.start", RUN),
        ("reentry", RUN),
        ("reentry", RUN),
        ("run.end", RUN),
        ("request.refused", RUN),
        ("request.refused", None),
        ("request.refused", RUN),
        ("engine.drain", None),
    ]
    assert [r.levelname for r in ours][1:3] == ["WARNING", "INFO"]


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),
        ("http://localhost:3000", 200),
        ("http://127.0.0.1:8000", 200),
        ("http://[::1]:8000", 200),
        ("https://evil.example", 403),
        ("http://localhost.evil.example", 403),
        ("null", 403),
        ("http://[", 403),
    ],
)
async def test_an_open_engine_takes_nothing_from_pages_of_other_sites(
    origin: str | None, status: int
) -> None:
    headers = {} if origin is None else {"origin": origin}
    async with world() as w:
        sent = await w.http.post("/e/key", json={"name": "a"}, headers=headers)
        assert sent.status_code == status
        read = await w.http.get("/v1/runs", headers=headers)
        assert read.status_code == status
        if status == 403:
            assert "other sites" in read.json()["error"]


async def test_an_engine_with_keys_asks_for_the_key_wherever_a_page_comes_from() -> None:
    async with world(signing_keys=(KEY,)) as w:
        response = await w.http.get("/health", headers={"origin": "https://evil.example"})
        assert response.status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8288", 200),
        ("LOCALHOST.:8288", 200),
        ("app.localhost", 200),
        ("127.0.0.1:8288", 200),
        ("[::1]:8288", 200),
        ("192.0.2.7", 200),
        ("engine.internal:8288", 200),
        ("docker.internal", 200),
        ("host.docker.internal:8288", 200),
        ("evil.example:8288", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("[", 403),
        ("", 403),
    ],
)
async def test_an_open_engine_answers_to_names_of_its_own_only(host: str, status: int) -> None:
    """A page whose name leads to this machine all of a sudden says that name."""
    async with world(host="engine.internal", trusted_hosts=("docker.internal",)) as w:
        w.http.headers["host"] = host
        for path in ("/v1/runs", "/health", "/dev", "/openapi.json"):
            response = await w.http.get(path)
            assert response.status_code == status, path
            assert set(response.headers) >= OURS
            if status == 403:
                assert response.json()["error"].startswith(f"host: {host!r} is not a name")
                assert "--trust-host" in response.json()["error"]
        sent = await w.http.post("/e/key", json={"name": "a"})
        assert sent.status_code == status


@pytest.mark.parametrize("settings", [{"trusted_hosts": ("*",)}, {"signing_keys": (KEY,)}])
async def test_any_name_will_do_if_that_is_wanted_or_a_key_is_asked_for(
    settings: dict[str, Any],
) -> None:
    async with world(**{"trusted_hosts": (), **settings}) as w:
        assert (await w.http.get("/health", headers={"host": "any.example"})).status_code == 200
