"""How functions are called, and what comes of their answers."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import httpx2
import pytest

from stephttp._wire import canonical_json
from stephttp._wire.ids import hash_step_id
from stephttp._wire.signatures import sign
from tests.engine.functions.support import (
    URL,
    body_of,
    config,
    fails,
    only,
    output,
    planned,
    register,
    returns,
    send,
    step_run,
)
from tests.engine.support import KEY, SDK, A, B, answer, world


async def test_an_event_starts_a_function_which_is_called_as_the_protocol_says() -> None:
    script = [answer([step_run(data={"x": 1})], x_inngest_req_version="2"), returns({"done": True})]
    async with world(script=script) as w:
        said = await register(w, config("shop-pack", "order/paid"))
        assert (said["ok"], said["modified"]) == (True, True)
        event_id = await send(w, "order/paid", {"id": "o1"}, id="mine", ts=1_795_352_528_271)
        run = await only(w, event_id)
        assert (run["function"], run["status"], run["event_id"]) == (
            "shop-pack",
            "Completed",
            event_id,
        )
        assert output(run) == {"done": True}

        first, second = w.calls
        assert str(first.url) == f"{URL}?fnId=shop-pack&stepId=step"
        assert first.method == "POST"
        assert first.headers["x-run-id"] == run["run_id"]
        assert first.headers["x-inngest-step-id"] == "step"
        assert first.headers["account-id"]
        assert first.headers["x-inngest-server-kind"] == "dev"
        assert "x-inngest-signature" not in first.headers
        event = {
            "data": {"id": "o1"},
            "id": "mine",
            "name": "order/paid",
            "ts": 1_795_352_528_271,
            "user": {},
        }
        body = body_of(first)
        assert (body["event"], body["events"], body["steps"]) == (event, [event], {})
        assert (body["version"], body["use_api"], body["defers"]) == (-1, False, {})
        ctx = body["ctx"]
        assert b64decode(ctx.pop("qi_id")).decode() == f"{ctx['job_id']}::default"
        assert first.headers["x-inngest-job-id"] == ctx.pop("job_id")
        assert first.headers["x-request-id"] == ctx.pop("request_id")
        assert ctx == {
            "attempt": 0,
            "disable_immediate_execution": False,
            "env": "",
            "fn_id": run["function_id"],
            "generation_id": 1,
            "max_attempts": 3,
            "run_id": run["run_id"],
            "stack": {"current": 0, "stack": []},
            "step_id": "step",
            "use_api": False,
        }
        body = body_of(second)
        assert body["steps"] == {A: {"data": {"x": 1}}}
        assert body["ctx"]["stack"] == {"current": 1, "stack": [A]}
        assert body["version"] == 2


async def test_calls_are_signed_over_the_canonical_form_of_what_is_sent() -> None:
    keys: dict[str, Any] = {"signing_keys": (KEY,), "event_keys": ("key",)}
    async with world(script=[returns(1)], **keys) as w:
        w.http.headers["authorization"] = f"Bearer {KEY}"
        await register(w, config("shop-pack", "order/paid"))
        await send(w, "order/paid", {"ö": 1.0, "big": 12345678901234567890, "a": "€"})
        (call,) = w.calls
        form = canonical_json.canonical(call.content)
        assert form is not None
        now = int(w.clock.now())
        assert call.headers["x-inngest-signature"] == sign(KEY, form, now)
        assert call.headers["x-inngest-server-kind"] == "cloud"
        # Numbers that JavaScript cannot hold are sent as they came.
        assert body_of(call)["event"]["data"]["big"] == 12345678901234567890


@pytest.mark.parametrize(
    ("reply", "status", "result"),
    [
        (returns([1, 2]), "Completed", [1, 2]),
        (returns(None), "Completed", None),
        (returns({"status": 500, "error": "mine"}), "Completed", {"status": 500, "error": "mine"}),
        (returns({"op": "StepRun", "id": A}), "Completed", {"op": "StepRun", "id": A}),
        (httpx2.Response(200, headers=SDK, text="no JSON"), "Completed", "no JSON"),
        (httpx2.Response(200, headers=SDK), "Completed", None),
        (
            httpx2.Response(
                201,
                headers=SDK,
                text='   {"status": 200, "headers": {}, "body": "{\\"streamed\\": true}"}',
            ),
            "Completed",
            {"streamed": True},
        ),
        (
            answer([{"op": "RunComplete", "id": "c", "data": {"status": 500, "body": "mine"}}]),
            "Completed",
            {"status": 500, "body": "mine"},
        ),
        (
            answer([step_run(), {"op": "RunComplete", "id": "c", "data": "after a step"}]),
            "Completed",
            "after a step",
        ),
    ],
)
async def test_what_a_function_returns_is_its_output(
    reply: httpx2.Response, status: str, result: Any
) -> None:
    async with world(script=[reply]) as w:
        await register(w, config("shop-pack", "order/paid"))
        run = await only(w, await send(w, "order/paid"))
        assert (run["status"], output(run)) == (status, result)


async def test_a_function_that_fails_is_called_again_and_its_error_is_kept_whole() -> None:
    whole: dict[str, Any] = {
        "code": "unknown",
        "message": "no",
        "name": "ValueError",
        "stack": "in line 1",
    }
    async with world(script=[fails(), fails(400), fails(**whole)]) as w:
        await register(w, config("shop-pack", "order/paid"))
        event_id = await send(w, "order/paid")
        for seconds in (1, 2):
            await w.after(seconds)
        run = await only(w, event_id)
        assert (run["status"], run["error"], output(run)) == ("Failed", whole, whole)
        contexts = [body_of(call)["ctx"] for call in w.calls]
        assert [ctx["attempt"] for ctx in contexts] == [0, 1, 2]
        assert [ctx["generation_id"] for ctx in contexts] == [1, 2, 3]
        assert len({ctx["job_id"] for ctx in contexts}) == 1


@pytest.mark.parametrize(
    ("reply", "after", "calls"),
    [
        (fails(400, headers={"x-inngest-no-retry": "true"}), 3600, 1),
        (fails(headers={"retry-after": "30"}), 29, 1),
        (fails(headers={"retry-after": "30"}), 30, 2),
        (fails(headers={"x-inngest-no-retry": "false"}), 1, 2),
        (httpx2.Response(503, text="a proxy"), 1, 2),
        (httpx2.Response(401, json={"message": "Unauthorized"}), 1, 2),
        (httpx2.ConnectError("refused"), 1, 2),
    ],
)
async def test_when_a_function_is_called_again(reply: Any, after: int, calls: int) -> None:
    async with world(script=[reply, returns("good")]) as w:
        await register(w, config("shop-pack", "order/paid"))
        event_id = await send(w, "order/paid")
        await w.after(after)
        assert len(w.calls) == calls
        run = await only(w, event_id)
        assert run["status"] == {1: "Failed" if after == 3600 else "Running", 2: "Completed"}[calls]


async def test_attempts_of_a_step_and_of_its_function_are_counted_together() -> None:
    error = {"op": "StepError", "id": A, "name": "a", "error": {"name": "E", "message": "m"}}
    async with world(script=[answer([error]), fails(), answer([error]), returns("caught")]) as w:
        await register(w, config("shop-pack", "order/paid"))
        event_id = await send(w, "order/paid")
        for seconds in (1, 2, 4):
            await w.after(seconds)
        assert [body_of(call)["ctx"]["attempt"] for call in w.calls] == [0, 1, 2, 0]
        assert body_of(w.calls[3])["steps"][A]["error"]["message"] == "m"
        assert output(await only(w, event_id)) == "caught"


async def test_planned_steps_are_called_one_by_one() -> None:
    def targeted(request: httpx2.Request) -> httpx2.Response:
        step = request.url.params["stepId"]
        ctx = body_of(request)["ctx"]
        assert (ctx["step_id"], ctx["disable_immediate_execution"]) == (step, True)
        assert request.headers["x-inngest-step-id"] == step
        return answer([step_run(step, step[:3])])

    script: list[Any] = [answer([planned(A), planned(B)]), targeted, targeted, returns("both")]
    async with world(script=script) as w:
        await register(w, config("shop-pack", "order/paid"))
        event_id = await send(w, "order/paid")
        assert output(await only(w, event_id)) == "both"
        last = body_of(w.calls[3])
        assert last["steps"] == {A: {"data": A[:3]}, B: {"data": B[:3]}}
        assert last["ctx"]["disable_immediate_execution"] is False


async def test_steps_that_are_checkpointed_during_a_call_count() -> None:
    async with world() as w:
        await register(w, config("shop-pack", "order/paid"))
        sleep = {"op": "Sleep", "id": B, "name": "1h"}

        async def work(request: httpx2.Request) -> httpx2.Response:
            ctx = body_of(request)["ctx"]
            path = f"/v1/checkpoint/{ctx['run_id']}/async"
            report = {"qi_id": ctx["qi_id"], "generation_id": 1, "steps": [step_run(data="kept")]}
            good = await w.http.post(path, json=report)
            stale = await w.http.post(path, json=report | {"generation_id": 0})
            waits = await w.http.post(path, json=report | {"steps": [sleep]})
            assert (good.status_code, stale.status_code, waits.status_code) == (200, 409, 400)
            return answer([sleep])

        w.reach(httpx2.MockTransport(work))
        event_id = await send(w, "order/paid")
        run = await only(w, event_id)
        batch = (await w.http.get(f"/v0/runs/{run['run_id']}/batch")).json()
        assert [(one["name"], one["user"]) for one in batch] == [("order/paid", {})]
        actions = (await w.http.get(f"/v0/runs/{run['run_id']}/actions")).json()
        assert actions == {A: {"data": "kept"}}


async def test_state_that_is_too_large_is_left_for_the_sdk_to_fetch() -> None:
    large = [step_run(hash_step_id(str(n)), "x" * 1_500_000) for n in range(3)]
    async with world(script=[answer([large[0], large[1], large[2]]), returns("done")]) as w:
        await register(w, config("shop-pack", "order/paid"))
        event_id = await send(w, "order/paid", {"id": 1})
        body = body_of(w.calls[1])
        assert (body["use_api"], body["ctx"]["use_api"]) == (True, True)
        assert (body["steps"], body["events"], body["event"]["data"]) == ({}, [], {"id": 1})
        assert len(body["ctx"]["stack"]["stack"]) == 3
        assert output(await only(w, event_id)) == "done"


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (
            fails(404, headers={"x-inngest-no-retry": "true"}, stack="x" * 300_000),
            {"name": "ValueError", "message": "no"},
        ),
        (
            httpx2.Response(500, headers={**SDK, "x-inngest-no-retry": "true"}, text="oh no"),
            {"name": "FunctionError", "message": "the function answered 500: oh no"},
        ),
        (
            httpx2.Response(206, headers=SDK, text="oh no"),
            {"name": "AnswerError"},
        ),
    ],
)
async def test_errors_that_are_too_large_or_no_json(
    reply: httpx2.Response, error: dict[str, str]
) -> None:
    async with world(script=[reply]) as w:
        await register(w, config("shop-pack", "order/paid"))
        run = await only(w, await send(w, "order/paid"))
        assert run["status"] == "Failed"
        assert run["error"] == run["error"] | error
        assert output(run) == run["error"]


async def test_a_huge_error_is_cut() -> None:
    error = fails(400, name="N" * 300_000, message="m" * 4_000_000)
    error.headers["x-inngest-no-retry"] = "true"
    async with world(script=[error]) as w:
        await register(w, config("shop-pack", "order/paid"))
        run = await only(w, await send(w, "order/paid"))
        assert run["status"] == "Failed"
        rows = await w.engine.store.read(
            lambda connection: connection.execute("SELECT length(error) FROM runs").fetchall()
        )
        assert 64 * 1024 < rows[0][0] < 66 * 1024


async def test_the_address_of_a_function_may_need_quoting() -> None:
    function = config("shop-pack", "order/paid")
    url = f"{URL}/caf\u00e9 x?fnId=pack\u00e9%20x&stepId=step"
    function["steps"]["step"]["runtime"]["url"] = url
    async with world(script=[returns("done")]) as w:
        await register(w, function)
        assert output(await only(w, await send(w, "order/paid"))) == "done"
        target = w.calls[0].url.raw_path
        assert target == b"/api/inngest/caf%C3%A9%20x?fnId=pack%C3%A9%20x&stepId=step"
