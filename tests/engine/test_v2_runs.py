"""Runs in version 2 of Inngest's API: shapes, pages, orders, errors of their own."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from .functions.support import body_of, config, register, returns, send
from .support import DONE, OTHER, RUN, A, B, World, Z, answer, sleep, step, world

UNKNOWN = "01M81KWYZZZZZZZZZZZZZZZZZZ"
BASES = pytest.mark.parametrize("base", ["/v2", "/api/v2"])


async def get(w: World, path: str) -> Any:
    response = await w.http.get(path)
    assert response.status_code == 200, response.text
    return response.json()


def is_error(response: httpx2.Response, status: int, code: str, text: str) -> None:
    assert response.status_code == status, response.text
    (error,) = response.json()["errors"]
    assert (error["code"], text in error["message"]) == (code, True), error


async def started(w: World, *script: Any) -> str:
    """Register a function, start it by an event, and return the id of that."""
    w.script = list(script)
    await register(w, config("shop-pack", "order/paid"))
    return await send(w, "order/paid", {"id": 7})


@BASES
async def test_a_run_and_its_trace(base: str) -> None:
    async with world() as w:
        event_id = await started(w, answer([step(A, "out"), sleep(Z, "1s")]))
        (run,) = (await get(w, f"{base}/events/{event_id}/runs"))["data"]
        path = f"{base}/runs/{run['id']}"
        assert (await get(w, path))["data"] == run
        assert (run["status"], run["function"]["id"]) == ("RUNNING", "shop-pack")
        assert run["function"]["name"] == "the shop-pack"
        assert run["trigger"] == {
            "eventIds": [event_id], "eventName": "order/paid", "isBatch": False,
        }  # fmt: skip
        assert not {"endedAt", "durationMs", "output"} & run.keys()
        trace = (await get(w, f"{path}/trace"))["data"]
        root = trace["rootSpan"]
        assert (trace["runId"], root["name"], root["status"]) == (
            run["id"], "the shop-pack", "WAITING",
        )  # fmt: skip
        kinds = [(one["stepOp"], one["status"], one["stepId"]) for one in root["children"]]
        assert kinds == [("RUN", "COMPLETED", A), ("SLEEP", "WAITING", Z)]
        assert "output" not in root["children"][0]
        w.script = [returns({"good": True})]
        await w.after(1)
        ended = (await get(w, f"{path}?includeOutput=true"))["data"]
        assert (ended["status"], ended["output"]) == ("COMPLETED", {"good": True})
        assert (ended["durationMs"], ended["endedAt"]) == ("1000", "2027-01-15T08:00:01.000Z")
        assert "output" not in (await get(w, path))["data"]
        shown = (await get(w, f"{path}/trace?include_output=true"))["data"]["rootSpan"]
        assert shown["output"] == {"good": True}
        # What is not an object is in one, as in the JSON of protocol buffers.
        assert [one.get("output") for one in shown["children"]] == [
            {"data": "out"}, {"data": None},
        ]  # fmt: skip


async def test_an_endpoint_is_a_function_as_well() -> None:
    async with world() as w:
        await w.post(step(A), DONE)
        run = (await get(w, f"/v2/runs/{RUN}?includeOutput=true"))["data"]
        assert (run["function"]["id"], run["output"]) == ("POST /orders", {"data": "hi"})
        assert run["app"] == run["function"]["app"]


async def test_what_failed_has_its_error_as_output() -> None:
    error = {"name": "E", "message": "m", "code": 5}
    headers = {"x-inngest-sdk": "py:v0.5.19", "x-inngest-no-retry": "true"}
    broken = {"op": "StepFailed", "id": B, "error": {"name": "S", "message": "s"}}
    async with world() as w:
        reply = httpx2.Response(500, json=error, headers=headers)
        event_id = await started(w, answer([broken]), reply)
        listed = await get(w, f"/v2/events/{event_id}/runs?includeOutput=true")
        (run,) = listed["data"]
        assert (run["status"], run["output"]) == ("FAILED", error)
        trace = await get(w, f"/v2/runs/{run['id']}/trace?includeOutput=true")
        root = trace["data"]["rootSpan"]
        assert (root["output"], root["children"][0]["output"]["message"]) == (error, "s")


@BASES
async def test_cancelling_is_an_error_once_a_run_has_ended(base: str) -> None:
    async with world() as w:
        await w.post(sleep())
        response = await w.http.post(f"{base}/runs/{RUN}/cancel", json={})
        assert (response.status_code, response.json()["data"]) == (200, {"runId": RUN})
        assert (await w.run())["status"] == "Cancelled"
        again = await w.http.post(f"{base}/runs/{RUN}/cancel")
        is_error(again, 409, "run_already_cancelled", RUN)
        await w.post(DONE, run_id=OTHER)
        late = await w.http.post(f"{base}/runs/{OTHER}/cancel")
        is_error(late, 409, "run_already_ended", OTHER)
        unknown = await w.http.post(f"{base}/runs/{UNKNOWN}/cancel")
        is_error(unknown, 404, "not_found", UNKNOWN)


def named(id_: str, name: str, data: Any = 1, index: int = 0) -> dict[str, Any]:
    return {**step(id_, data), "userland": {"id": name, "index": index}}


@BASES
async def test_a_run_is_repeated_from_a_step_on_with_other_input(base: str) -> None:
    async with world() as w:
        script = [answer([named(A, "first", "kept"), named(B, "second")]), returns("old")]
        event_id = await started(w, *script)
        (run,) = (await get(w, f"{base}/events/{event_id}/runs"))["data"]
        path = f"{base}/runs/{run['id']}/rerun"
        w.script = [returns("again"), returns("from there")]
        whole = await w.http.post(path)
        assert whole.status_code == 200, whole.text
        part = {"fromStep": {"stepId": "second", "input": [{"x": 1}]}}
        again = await w.http.post(path, json=part)
        assert again.status_code == 200, again.text
        await w.engine.idle()
        ids = [one.json()["data"]["runId"] for one in (whole, again)]
        runs = [(await get(w, f"{base}/runs/{id_}?includeOutput=true"))["data"] for id_ in ids]
        assert [one["output"] for one in runs] == [{"data": "again"}, {"data": "from there"}]
        assert body_of(w.calls[-2])["steps"] == {}
        assert body_of(w.calls[-1])["steps"] == {
            A: {"data": "kept"}, B: {"input": [{"x": 1}]},
        }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{", "invalid JSON"),
        (b'{"fromStep": {}}', "missing required field `stepId`"),
        (b'{"fromStep": {"stepId": "none"}}', "fromStep.stepId: no step has the name 'none'"),
        (b'{"fromStep": {"stepId": "twice"}}', "fromStep.stepId: 2 steps have the name 'twice'"),
        (b'{"fromStep": {"stepId": "once", "input": {"a": 1}}}', "fromStep.input: expected an arr"),
    ],
)
async def test_repetitions_that_cannot_be(body: bytes, text: str) -> None:
    async with world() as w:
        steps = [named(A, "twice"), named(B, "twice", index=1), named(Z, "once")]
        event_id = await started(w, answer(steps), returns(1))
        (run,) = (await get(w, f"/v2/events/{event_id}/runs"))["data"]
        response = await w.http.post(f"/v2/runs/{run['id']}/rerun", content=body)
        is_error(response, 400, "invalid_request", text)
        assert len((await get(w, f"/v2/events/{event_id}/runs"))["data"]) == 1


async def test_the_runs_of_an_event_come_in_pages() -> None:
    async with world() as w:
        names = [f"shop-f{n}" for n in range(5)]
        await register(w, *(config(name, "order/paid") for name in names))
        w.script = [returns(1)] * 5
        event_id = await send(w, "order/paid")
        path, found, cursor = f"/v2/events/{event_id}/runs", [], ""
        for size, more in ((2, True), (2, True), (1, False)):
            said = await get(w, f"{path}?limit=2{cursor}")
            assert len(said["data"]) == size
            assert (said["page"]["hasMore"], said["page"]["limit"]) == (more, 2)
            assert ("cursor" in said["page"]) is more
            found += [run["function"]["id"] for run in said["data"]]
            cursor = f"&cursor={said['page'].get('cursor', '')}"
        assert sorted(found) == names
        assert (await get(w, path))["page"] == {"hasMore": False, "limit": 20}


async def test_a_batch_is_one_run_of_all_its_events() -> None:
    query = "query ($id: String!) { run(runID: $id) { isBatch triggerIDs } "
    query += "runTrigger(runID: $id) { isBatch IDs payloads } }"
    async with world(script=[returns("both")]) as w:
        batch: dict[str, Any] = {"batchEvents": {"maxSize": 2, "timeout": "60s"}}
        await register(w, config("shop-pack", "order/paid", **batch))
        ids = [await send(w, "order/paid", {"n": number}) for number in range(2)]
        listed = [(await get(w, f"/v2/events/{id_}/runs"))["data"] for id_ in ids]
        assert listed[0] == listed[1]
        ((run,), _) = listed
        assert run["trigger"] == {"eventIds": ids, "eventName": "order/paid", "isBatch": True}
        body = {"query": query, "variables": {"id": run["id"]}}
        data = (await w.http.post("/v0/gql", json=body)).json()["data"]
        assert data["run"] == {"isBatch": True, "triggerIDs": ids}
        payloads = [json.loads(text)["data"] for text in data["runTrigger"].pop("payloads")]
        assert (payloads, data["runTrigger"]) == (
            [{"n": 0}, {"n": 1}], {"isBatch": True, "IDs": ids},
        )  # fmt: skip
        both = [(await get(w, f"/v1/events/{id_}/runs"))["data"] for id_ in ids]
        assert [[one["output"] for one in runs] for runs in both] == [["both"], ["both"]]


@BASES
@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/runs/nonsense", 400, "run_id"),
        (f"/runs/{UNKNOWN}", 404, UNKNOWN),
        (f"/runs/{UNKNOWN}/trace", 404, UNKNOWN),
        ("/events/nonsense/runs", 404, "there is no event 'nonsense'"),
        ("/events/nonsense/runs?limit=0", 400, "limit: '0' is not a number from 1 to 40"),
        ("/events/nonsense/runs?limit=41", 400, "limit: '41'"),
        ("/events/nonsense/runs?limit=x", 400, "limit: 'x'"),
        ("/events/nonsense/runs?cursor=x", 400, "run_id"),
    ],
)
async def test_what_is_not_there_or_not_asked_well(
    base: str, path: str, status: int, text: str
) -> None:
    async with world() as w:
        response = await w.http.get(base + path)
        is_error(response, status, {400: "invalid_request", 404: "not_found"}[status], text)
