"""The HTTP API: good answers, every kind of bad input, keys, and outputs."""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
from typing import Any

import httpx2
import jwt
import pytest

from stephttp._wire.signatures import hash_key
from stephttp.engine import Settings
from stephttp.engine.model.function_ids import ids
from stephttp.errors import ConfigurationError

from .support import (
    DONE,
    KEY,
    OTHER,
    RUN,
    A,
    B,
    World,
    Z,
    answer,
    complete,
    new_run,
    sleep,
    step,
    step_error,
    until,
    world,
)

STEPS = f"/v1/checkpoint/{RUN}/steps"


def is_error(response: httpx2.Response, status: int, start: str) -> None:
    """The answer is an error in the documented shape, and its text begins as given."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error", "data", "status"}
    assert (body["data"], body["status"]) == (None, status)
    assert body["error"].startswith(start), body["error"]


async def count(w: World, table: str) -> int:
    def unit(connection: sqlite3.Connection) -> int:
        (number,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        assert isinstance(number, int)
        return number

    number: int = await w.engine.store.read(unit)
    return number


@pytest.mark.parametrize("prefix", ["/v1/checkpoint", "/v1/http/runs"])
async def test_a_first_checkpoint(prefix: str) -> None:
    async with world() as w:
        response = await w.http.post(prefix, json=new_run(step()))
        assert response.headers["content-type"] == "application/json"
        body = response.json()
        assert set(body) == {"data", "metadata"}
        assert body["metadata"] == {"fetched_at": "2027-01-15T08:00:00.000Z"}
        assert set(body["data"]) == {"app_id", "fn_id", "run_id", "token", "realtime_token"}
        assert body["data"]["run_id"] == RUN
        secret = w.engine.store.secret
        options: Any = {"verify_exp": False, "verify_iat": False}
        claims = jwt.decode(body["data"]["token"], secret, ["HS256"], options)
        assert claims == {
            "iss": "api.inngest.com",
            "sub": "run-claim",
            "iat": 1_800_000_000,
            "Env": "00000000-0000-4000-b000-000000000000",
            "RunID": RUN,
        }
        realtime = jwt.decode(body["data"]["realtime_token"], secret, ["HS256"], options)
        assert realtime["exp"] - realtime["iat"] == 960
        assert (realtime["topics"][0]["channel"], realtime["publish"]) == (RUN, False)


def test_ids_are_those_of_the_real_server() -> None:
    app_id = "42a5cf94-6aea-560d-b784-e65aff74760d"
    fn_id = "918a47a2-bd92-59ba-a4b6-e5937b6845cf"
    assert ids("http://127.0.0.1:3110", "GET /") == (app_id, fn_id)


def changed(**data: Any) -> dict[str, Any]:
    return new_run(step(), data=data)


def without(key: str, *path: str) -> dict[str, Any]:
    request = new_run(step())
    part: Any = request
    for name in path:
        part = part[name]
    del part[key]
    return request


BAD_FIRST: list[tuple[Any, int, str]] = [
    (b"", 400, "body: invalid JSON"),
    (b"{", 400, "body: invalid JSON"),
    (b"[]", 400, "body: Expected `object`, got `array`"),
    (b"null", 400, "body: Expected `object`, got `null`"),
    (b'{"run_id":"\xff"}', 400, "body: not UTF-8"),
    (b'{"z":' + b"[" * 1_000_000, 400, "body: nested too deeply"),
    (b'{"run_id":"\\ud800 "}', 400, "body: invalid JSON"),
    (b" " * 1001, 413, "body: larger than 1000 bytes"),
    (without("run_id"), 400, "body: Object missing required field `run_id`"),
    (without("event"), 400, "body: Object missing required field `event`"),
    (without("data", "event"), 400, "event: Object missing required field `data`"),
    (without("domain", "event", "data"), 400, "event.data: Object missing required field"),
    (new_run(run_id="nope"), 400, "run_id: 'nope' is not a ULID"),
    (new_run(run_id="8" + RUN[1:]), 400, "run_id: "),
    ({**new_run(), "run_id": 5}, 400, "run_id: Expected `str`, got `int`"),
    ({**new_run(), "steps": {}}, 400, "steps: Expected `array | null`, got `object`"),
    ({**new_run(), "retries": "2"}, 400, "retries: Expected"),
    ({**new_run(), "retries": 2**40}, 400, "retries: Expected"),
    (changed(domain="ftp://x"), 400, "event.data.domain: 'ftp://x' is not an origin"),
    (changed(domain="http://user@x"), 400, "event.data.domain: "),
    (changed(domain="http://x:99999"), 400, "event.data.domain: "),
    (changed(domain="http://x/path"), 400, "event.data.domain: "),
    (changed(domain=""), 400, "event.data.domain: "),
    (changed(method="GET /"), 400, "event.data.method: 'GET /' is not an HTTP method"),
    (changed(body=5), 400, "event.data.body: Expected `str | null`, got `int`"),
    (new_run(step(), {"op": "Nope", "id": A}), 400, "steps[1].op: Invalid enum value 'Nope'"),
    (new_run({"op": "StepRun"}), 400, "steps[0]: Object missing required field `id`"),
    (new_run({"id": A}), 400, "steps[0]: Object missing required field `op`"),
    (new_run({"op": "StepRun", "id": ""}), 400, "steps[0].id: must not be empty"),
    (new_run(step(userland={"id": "a", "index": 2**63})), 400, "steps[0].userland.index: "),
    (new_run(step(userland={"id": "a", "index": -5})), 400, "steps[0].userland.index: "),
    (new_run({"op": "StepError", "id": A}), 400, "steps[0].error: "),
    (
        new_run(step(), {"op": "DeferAdd", "id": B}),
        400,
        "steps[1].op: 'DeferAdd' is not supported by this engine yet",
    ),
]


@pytest.mark.parametrize(("body", "status", "start"), BAD_FIRST)
async def test_bad_first_checkpoints(body: Any, status: int, start: str) -> None:
    async with world(max_body=1000 if status == 413 else 4 * 2**20) as w:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = await w.http.post("/v1/checkpoint", content=content)
        is_error(answer, status, start)
        # What was changed on its way is wanted again.
        assert ("retry-after" in answer.headers) == (start == "body: not UTF-8")
        for table in ("runs", "steps", "timers"):
            assert await count(w, table) == 0


async def test_a_body_without_declared_length_is_bounded_as_well() -> None:
    async def chunks() -> Any:
        for _ in range(10):
            yield b" " * 200

    async with world(max_body=1000) as w:
        is_error(await w.http.post("/v1/checkpoint", content=chunks()), 413, "body: ")


async def test_a_body_of_just_the_limit_is_taken_and_one_byte_more_is_not() -> None:
    content = json.dumps(new_run(step())).encode()
    async with world(max_body=len(content)) as w:
        is_error(await w.http.post("/v1/checkpoint", content=content + b" "), 413, "body: larger")
        assert await count(w, "runs") == 0
        assert (await w.http.post("/v1/checkpoint", content=content)).status_code == 200


BAD_STEPS: list[tuple[str, Any, int, str]] = [
    (STEPS, b"{", 400, "body: invalid JSON"),
    (STEPS, {}, 400, "body: Object missing required field `steps`"),
    (STEPS, {"steps": [step(), {"op": "x", "id": B}]}, 400, "steps[1].op: Invalid enum value"),
    (STEPS, {"steps": [], "fn_id": "x"}, 400, "fn_id: 'x' is not a UUID"),
    (STEPS, {"steps": [], "run_id": OTHER}, 400, "run_id: the path names another run"),
    (STEPS, {"steps": [step(Z), {"op": "StepError", "id": B}]}, 400, "steps[1].error: a "),
    ("/v1/checkpoint/nope/steps", {"steps": []}, 400, "run_id: 'nope' is not a ULID"),
    (f"/v1/checkpoint/{OTHER}/steps", {"steps": []}, 404, f"run_id: there is no run {OTHER}"),
]


@pytest.mark.parametrize(("path", "body", "status", "start"), BAD_STEPS)
async def test_bad_further_checkpoints(path: str, body: Any, status: int, start: str) -> None:
    async with world() as w:
        await w.post(step())
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        is_error(await w.http.post(path, content=content), status, start)
        assert await w.memos() == {A: {"data": 1}}


async def test_a_repeated_first_checkpoint_is_no_clash_but_another_one_is() -> None:
    async with world() as w:
        first = await w.http.post("/v1/checkpoint", json=new_run(step(), sleep()))
        again = await w.http.post("/v1/checkpoint", json=new_run(step(), sleep()))
        assert (again.status_code, again.json()["data"]["run_id"]) == (200, RUN)
        assert again.json()["data"]["token"] == first.json()["data"]["token"]
        other = await w.http.post("/v1/checkpoint", json=new_run(step(data=2)))
        is_error(other, 409, f"run_id: there is already another run {RUN}")
        assert await w.memos() == {A: {"data": 1}}


async def test_steps_of_an_ended_run() -> None:
    async with world() as w:
        await w.post(step(), DONE)
        assert (await w.report(step(data="late"))).status_code == 200
        assert (await w.report(step(), DONE)).status_code == 200
        is_error(await w.report(step(), step(B)), 409, "steps[1]: the run has ended already")
        is_error(await w.report(complete("other")), 409, "steps[0]: the run has ended already")
        for path in ("actions", "batch"):
            is_error(await w.http.get(f"/v0/runs/{RUN}/{path}"), 410, "run_id: ")


async def test_the_first_output_of_a_step_wins() -> None:
    async with world() as w:
        await w.post(step(data=1))
        assert (await w.report(step(data=2), step(B, {"é": None}))).content == b""
        assert await w.memos() == {A: {"data": 1}, B: {"data": {"é": None}}}


@pytest.mark.parametrize("number", [1, 3, 4, 5, 8, 9])
async def test_the_first_output_wins_in_any_number_of_steps_whatever_their_ids(number: int) -> None:
    step_ids = [f"a\0{n}é" for n in range(number)]
    async with world() as w:
        await w.post(*[step(step_id, n) for n, step_id in enumerate(step_ids)])
        await w.report(*[step(step_id, "late") for step_id in [*step_ids, "a"]])
        first = {step_id: {"data": n} for n, step_id in enumerate(step_ids)}
        assert await w.memos() == {**first, "a": {"data": "late"}}


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("eyJhIjogMX0=", b'{"a": 1}'), ('{"a": 1}', b'{"a": 1}'), ("", b""), (None, None)],
)
async def test_the_event_keeps_the_body(sent: str | None, kept: bytes | None) -> None:
    async with world() as w:
        await w.post(data={"body": sent})
        (event,) = (await w.http.get(f"/v0/runs/{RUN}/batch")).json()
        encoded = None if kept is None else base64.b64encode(kept).decode()
        assert event["data"] == {
            "body": encoded,
            "content_type": "application/json",
            "domain": "http://app.test",
            "fn": "",
            "ip": "",
            "method": "POST",
            "path": "/orders",
            "query_params": "k=1",
        }
        assert (event["name"], event["ts"]) == ("inngest/http.request", w.clock.now_ms())


async def test_reading_a_run() -> None:
    async with world() as w:
        await w.post(step(), sleep(), step_error(), retries=1)
        run = await w.run()
        assert (run["status"], run["ended_at"], run["function"]) == (
            "Running",
            None,
            "POST /orders",
        )
        assert [(wait["kind"], wait["step"]) for wait in run["waiting_for"]] == [
            ("retry", None),
            ("sleep", "z"),
        ]
        steps = (await w.http.get(f"/v1/runs/{RUN}/steps")).json()["data"]
        assert [(s["op"], s["status"], s["attempts"]) for s in steps] == [
            ("StepRun", "Completed", 1),
            ("Sleep", "Waiting", 1),
            ("StepError", "Waiting", 1),
        ]
        assert steps[2]["error"] == {"name": "E", "message": "m"}
        await w.report(complete({"status": 200, "body": "x"}))
        run = await w.run()
        assert run["status"] == "Completed"
        assert base64.b64decode(run["output"]) == b'{"status":200,"body":"x"}'


async def test_listing_runs() -> None:
    async with world() as w:
        run_ids = [f"01M81KWY2JTNRXZTV817ZB{n:04d}" for n in (7, 1, 5)]
        for run_id in run_ids:
            await w.post(step(), run_id=run_id)
        first = (await w.http.get("/v1/runs?limit=2")).json()
        assert [run["run_id"] for run in first["data"]] == [run_ids[2], run_ids[1]]
        older = first["metadata"]["page"]["older"]
        more = (await w.http.get(f"/v1/runs?cursor={older}")).json()
        assert [run["run_id"] for run in more["data"]] == [run_ids[0]]
        assert more["metadata"]["page"]["older"] is None
        for query, start in [
            ("limit=0", "limit: '0' is not a positive number"),
            ("limit=x", "limit: 'x'"),
            ("cursor=x", "cursor: 'x' is not a cursor of this list"),
            ("status=done", "status: 'done' is not one of running, waiting"),
            ("after=now", "after: 'now' is not a time"),
            ("direction=up", "direction: 'up' is neither"),
        ]:
            is_error(await w.http.get(f"/v1/runs?{query}"), 400, start)


@pytest.mark.parametrize(
    "path", ["/v0/runs/{}/actions", "/v0/runs/{}/batch", "/v1/runs/{}", "/v1/runs/{}/steps"]
)
async def test_runs_that_are_not_there(path: str) -> None:
    async with world() as w:
        is_error(await w.http.get(path.format(RUN)), 404, f"run_id: there is no run {RUN}")
        is_error(await w.http.get(path.format("x")), 400, "run_id: 'x' is not a ULID")


async def test_other_paths_and_methods() -> None:
    async with world() as w:
        is_error(await w.http.get("/nowhere"), 404, "Not Found")
        is_error(await w.http.get("/v1/checkpoint"), 405, "Method Not Allowed")
        health = await w.http.get("/health")
        assert health.json() == {"status": 200, "message": "OK"}
        assert (await w.http.get("/dev")).json()["functions"] == []
        assert health.headers["x-inngest-server-kind"] == "dev"
        assert health.headers["x-stephttp-features"] == (
            "pending, raw-response, step-retries, batch, leases, idempotency, reentry-state, "
            "steps-with-result, step-names, fenced-calls, warnings, signed-calls, "
            "outputs-without-cookies, further-keys, run-streams, run-links, run-limits"
        )
        assert health.headers["x-stephttp-engine"]


async def test_a_store_that_cannot_write_is_told_as_503() -> None:
    async with world() as w:

        async def full(*args: Any) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        w.engine.store.write = w.engine.store.write_together = full
        response = await w.http.post("/v1/checkpoint", json=new_run(step()))
        is_error(response, 503, "the engine cannot store anything: database or disk is full")


async def test_keys() -> None:
    async with world(signing_keys=(KEY, "cd" * 16)) as w:
        paths = [
            f"/v0/runs/{RUN}/actions",
            f"/v0/runs/{RUN}/batch",
            f"/v1/runs/{RUN}",
            "/v1/runs",
            f"/v1/runs/{RUN}/steps",
            "/dev",
        ]
        bad = ["", "Bearer ", "Bearer x", "Basic " + KEY, KEY, "Bearer " + "ab" * 15]
        for authorization in bad:
            headers = {"authorization": authorization}
            answers = [await w.http.get(path, headers=headers) for path in paths]
            answers += [
                await w.http.post(path, json=new_run(), headers=headers)
                for path in ("/v1/checkpoint", "/v1/http/runs", STEPS)
            ]
            for response in answers:
                assert response.status_code == 401
                assert response.text == "Authentication failed\n"
                assert response.headers["content-type"].startswith("text/plain")
                assert response.headers["x-inngest-server-kind"] == "cloud"
        assert (await w.http.get("/health")).status_code == 200
        for token in (KEY, hash_key(KEY), "ab" * 16, hash_key("ab" * 16), "cd" * 16):
            headers = {"authorization": f"bearer {token}"}
            assert (await w.http.get("/v1/runs", headers=headers)).status_code == 200
            assert (await w.http.get("/dev", headers=headers)).status_code == 404
        w.http.headers["authorization"] = f"Bearer {KEY}"
        token = (await w.post(DONE))["token"]
        del w.http.headers["authorization"]
        for method in ("GET", "POST", "HEAD"):
            assert (await w.output(token, method)).status_code == 201
    assert KEY not in repr(Settings(signing_keys=(KEY,)))
    with pytest.raises(ConfigurationError, match="hexadecimal"):
        Settings(signing_keys=("xyz",))


async def test_output_needs_a_token_of_that_run() -> None:
    async with world(link_lifetime=3600) as w:
        token = (await w.post(DONE))["token"]
        other = (await w.post(DONE, run_id=OTHER))["token"]
        forged = jwt.encode({"RunID": RUN, "exp": 2**40}, "x" * 32)
        message = "Unable to find run with auth token"
        for bad in ("", "x", other, forged):
            is_error(await w.output(bad), 401, message)
        w.clock.advance(3599)
        assert (await w.output(token)).status_code == 201
        w.clock.advance(1)
        is_error(await w.output(token), 410, "the link to this result is over: it was good for")


async def test_output_wakes_with_the_end_of_the_run() -> None:
    async with world() as w:
        token = (await w.post(sleep()))["token"]
        readers = [asyncio.create_task(w.output(token)) for _ in range(3)]
        await until(lambda: len(w.engine.waiters) == 3)
        w.script = [answer(DONE)]
        w.clock.advance(5)
        assert {(await reader).text for reader in readers} == {"hi"}
        assert len(w.engine.waiters) == 0


async def test_output_gives_up_after_its_time() -> None:
    async with world() as w:
        token = (await w.post(step()))["token"]
        reader = asyncio.create_task(w.output(token))
        await until(lambda: w.clock._waiting)
        w.clock.advance(300)
        result = await reader
        assert result.status_code == 200
        assert result.json() == {
            "status": "running",
            "message": "run did not end within 5 minutes",
        }
        assert len(w.engine.waiters) == 0


async def test_a_reader_that_goes_away_is_forgotten() -> None:
    async with world() as w:
        token = (await w.post(step()))["token"]
        gone = asyncio.Event()
        messages: list[Any] = []

        async def receive() -> Any:
            if not messages:
                messages.append("body")
                return {"type": "http.request", "body": b"", "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            messages.append(message)

        scope = {
            "type": "http",
            "method": "GET",
            "path": f"/v1/http/runs/{RUN}/output",
            "query_string": f"token={token}".encode(),
            "headers": [],
        }
        reader = asyncio.create_task(w.app(scope, receive, send))
        await until(lambda: len(w.engine.waiters))
        gone.set()
        await reader
        assert len(w.engine.waiters) == 0


async def test_cors() -> None:
    async with world() as w:
        token = (
            await w.post(
                complete(
                    {
                        "status": 200,
                        "headers": {"Access-Control-Allow-Origin": "https://x", "Vary": "Accept"},
                        "body": "",
                    }
                )
            )
        )["token"]
        preflight = await w.output("", "OPTIONS")
        assert preflight.status_code == 204
        assert "POST" in preflight.headers["access-control-allow-methods"]
        result = await w.output(token)
        assert result.headers.get_list("access-control-allow-origin") == ["*"]
        assert result.headers["vary"] == "Accept, Origin"
