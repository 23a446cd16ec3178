"""`/v0/gql`: what the test suites of Inngest's SDKs ask, what a query may not be, and an engine
without graphql-core."""

from __future__ import annotations

import json
import sys
from typing import Any

import httpx2
import pytest

from stephttp.engine.api.graphql.query_limits import MOST_FIELDS, MOST_LEVELS, MOST_READS
from stephttp.engine.api.graphql.query_request import LARGEST_QUERY

from .functions.support import config, register, returns, send
from .support import (
    KEY,
    RUN,
    A,
    B,
    World,
    Z,
    answer,
    complete,
    sleep,
    step,
    step_error,
    world,
)

RUN_WITH_STEPS = """
query GetRun($run_id: String!) {
  run(runID: $run_id) {
    id status output eventName triggerIDs isBatch startedAt endedAt function { name slug }
    trace(preview: true) {
      ...Span
      isRoot
      childrenSpans { ...Span stepOp childrenSpans { ...Span } }
    }
  }
  runTrigger(runID: $run_id) { eventName IDs payloads isBatch }
}
fragment Span on RunTraceSpan {
  name stepID status outputID attempts duration metadata { kind scope values updatedAt }
}
"""
OUTPUT = """
query ($output: String!) {
  runTraceSpanOutputByID(outputID: $output) { input data error { message name stack } }
}
"""
EVENT = """
query ($id: ID!) {
  event(query: {eventId: $id}) {
    name payload raw totalRuns functionRuns { id status output function { name } }
  }
}
"""
EVENT_V2 = "query Event($id: ULID!) { eventV2(id: $id) { id name idempotencyKey raw } }"


async def post(w: World, query: str, variables: Any = None, **more: Any) -> httpx2.Response:
    body = {"query": query, "variables": variables, **more}
    return await w.http.post("/v0/gql", json=body)


async def ask(w: World, query: str, **variables: Any) -> Any:
    response = await post(w, query, variables)
    assert response.status_code == 200, response.text
    said = response.json()
    assert "errors" not in said, said
    return said["data"]


async def output(w: World, output_id: str) -> Any:
    return (await ask(w, OUTPUT, output=output_id))["runTraceSpanOutputByID"]


async def test_a_run_of_a_function_with_its_steps_and_what_they_ended_with() -> None:
    steps = [
        step(A, {"x": 1}),
        {"op": "StepFailed", "id": B, "error": {"name": "E", "message": "no", "stack": "line 1"}},
        sleep(Z, "1h"),
    ]
    async with world(script=[answer(steps), answer([sleep(Z, "1h")])]) as w:
        await register(w, config("shop-pack", "order/paid"))
        event_id = await send(w, "order/paid", {"id": 7})
        (begun,) = (await ask(w, EVENT, id=event_id))["event"]["functionRuns"]
        run_id = begun["id"]
        data = await ask(w, RUN_WITH_STEPS, run_id=run_id)
        run, root = data["run"], data["run"]["trace"]
        assert (run["status"], run["output"], run["endedAt"]) == ("RUNNING", None, None)
        assert run["function"] == {"name": "the shop-pack", "slug": "shop-pack"}
        assert (root["name"], root["status"]) == ("the shop-pack", "WAITING")
        assert (root["isRoot"], root["outputID"], root["metadata"]) == (True, None, [])
        assert data["runTrigger"]["eventName"] == "order/paid"
        (payload,) = data["runTrigger"]["payloads"]
        assert json.loads(payload)["data"] == {"id": 7}
        spans = {span["stepID"]: span for span in root["childrenSpans"]}
        shown = {id_: (span["status"], span["stepOp"]) for id_, span in spans.items()}
        assert shown == {
            A: ("COMPLETED", "RUN"), B: ("FAILED", "RUN"), Z: ("WAITING", "SLEEP"),
        }  # fmt: skip
        assert spans[Z]["outputID"] is None
        assert await output(w, spans[A]["outputID"]) == {
            "input": None, "data": '{"x":1}', "error": None,
        }  # fmt: skip
        assert await output(w, spans[B]["outputID"]) == {
            "input": None, "data": None,
            "error": {"message": "no", "name": "E", "stack": "line 1"},
        }  # fmt: skip
        w.script = [returns([1, "two"])]
        await w.after(3600)
        data = await ask(w, RUN_WITH_STEPS, run_id=run_id)
        assert (data["run"]["status"], data["run"]["output"]) == ("COMPLETED", '[1,"two"]')
        root = data["run"]["trace"]
        assert (root["status"], root["outputID"], root["duration"]) == (
            "COMPLETED", run_id, 3_600_000,
        )  # fmt: skip
        assert (await output(w, run_id))["data"] == '[1,"two"]'
        event = (await ask(w, EVENT, id=event_id))["event"]
        assert event["functionRuns"] == [{
            "id": run_id, "status": "COMPLETED", "output": '[1,"two"]',
            "function": {"name": "the shop-pack"},
        }]  # fmt: skip
        assert (event["name"], event["totalRuns"]) == ("order/paid", 1)
        assert json.loads(event["payload"]) == {"id": 7} == json.loads(event["raw"])["data"]


async def test_a_run_that_failed_has_its_whole_error() -> None:
    error = {"name": "E", "message": "m", "code": 5, "stack": "s"}
    headers = {"x-inngest-sdk": "py:v0.5.19", "x-inngest-no-retry": "true"}
    async with world(script=[httpx2.Response(500, json=error, headers=headers)]) as w:
        await register(w, config("shop-pack", "order/paid"))
        event_id = await send(w, "order/paid")
        (run,) = (await ask(w, EVENT, id=event_id))["event"]["functionRuns"]
        assert (run["status"], json.loads(run["output"])) == ("FAILED", error)
        data = await ask(w, RUN_WITH_STEPS, run_id=run["id"])
        assert json.loads(data["run"]["output"]) == error
        assert await output(w, run["id"]) == {
            "input": None, "data": None, "error": {"name": "E", "message": "m", "stack": "s"},
        }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "shown"),
    [('{"a": 1}', '{"a": 1}'), ("plain", '"plain"'), ("", '""')],
)
async def test_a_run_of_an_endpoint_has_the_body_of_its_answer(body: str, shown: str) -> None:
    async with world() as w:
        await w.post(step(A), complete({"status": 201, "headers": {}, "body": body}))
        data = await ask(w, RUN_WITH_STEPS, run_id=RUN)
        assert (data["run"]["status"], data["run"]["output"]) == ("COMPLETED", shown)
        assert data["run"]["function"]["slug"] == data["run"]["trace"]["name"] == "POST /orders"
        (payload,) = data["runTrigger"]["payloads"]
        assert json.loads(payload)["data"]["path"] == "/orders"
        event_id = data["run"]["triggerIDs"][0]
        assert (await w.http.get(f"/v1/events/{event_id}/runs")).json()["data"][0]["output"] == (
            json.loads(shown)
        )


async def test_a_run_that_was_cancelled_has_no_output_and_its_steps_are_as_they_were() -> None:
    async with world(script=[answer([step_error(B)])]) as w:
        await w.post(step(A), sleep(Z, "1s"), retries=2)
        await w.after(1)
        data = await ask(w, RUN_WITH_STEPS, run_id=RUN)
        spans = {span["stepID"]: span["status"] for span in data["run"]["trace"]["childrenSpans"]}
        assert spans == {A: "COMPLETED", Z: "COMPLETED", B: "RUNNING"}
        await w.http.delete(f"/v1/runs/{RUN}")
        run = (await ask(w, RUN_WITH_STEPS, run_id=RUN.lower()))["run"]
        assert (run["status"], run["output"]) == ("CANCELLED", None)
        assert await output(w, RUN) == {"input": None, "data": None, "error": None}
        event_id = run["triggerIDs"][0]
        (listed,) = (await w.http.get(f"/v1/events/{event_id}/runs")).json()["data"]
        assert (listed["status"], listed["output"]) == ("Cancelled", None)


async def test_an_event_has_an_idempotency_key_also_where_its_sender_gave_none() -> None:
    async with world() as w:
        first = await send(w, "a/one", {"x": 1}, id="mine")
        second = await send(w, "a/one")
        events = [(await ask(w, EVENT_V2, id=id_))["eventV2"] for id_ in (first, second)]
        assert [event["idempotencyKey"] for event in events] == ["mine", second]
        assert json.loads(events[0]["raw"])["data"] == {"x": 1}


async def test_what_is_not_there_is_null() -> None:
    unknown = "01M81KWYZZZZZZZZZZZZZZZZZZ"
    async with world() as w:
        await w.post(step(A), sleep())
        for run_id in (unknown, "nonsense", ""):
            data = await ask(w, RUN_WITH_STEPS, run_id=run_id)
            assert data == {"run": None, "runTrigger": None}
        for output_id in (unknown, f"{unknown}.{A}", f"{RUN}.{B}", "", "."):
            assert await output(w, output_id) is None
        assert (await ask(w, EVENT, id=unknown))["event"] is None
        assert (await ask(w, EVENT_V2, id=unknown))["eventV2"] is None


ONE = '{ run(runID: "x") { id } }'


def deep(levels: int) -> str:
    inner = "name" + " childrenSpans { name" * (levels - 3) + " }" * (levels - 3)
    return f'{{ run(runID: "x") {{ trace {{ {inner} }} }} }}'


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("{", "Syntax Error"),
        ("", "Syntax Error"),
        ("{ nonsense }", "Cannot query field 'nonsense'"),
        ("{ run { id } }", "is required, but it was not provided"),
        ("mutation { cancelRun(runID: 5) { id } }", "mutation operation is not supported"),
        (" ".join(["{ a }"] * 3000), "more than 2000 tokens"),
        (deep(MOST_LEVELS + 1), f"deeper than {MOST_LEVELS} levels"),
        ('{ run(runID: "x") { ' + "id " * MOST_FIELDS + "} }", f"more than {MOST_FIELDS} fields"),
        ("{ " + " ".join(f'r{n}: run(runID: "x") {{ id }}' for n in range(MOST_READS + 1)) + "}",
         f"more than {MOST_READS} fields on the first level"),
        ("{ ...R ...R } fragment R on Query { " + " ".join(
            f'r{n}: run(runID: "x") {{ id }}' for n in range(MOST_READS // 2 + 1)) + "}",
         f"more than {MOST_READS} fields on the first level"),
        # Fragments within fragments, each twice: small to write, large to carry out.
        ('{ run(runID: "x") { ...F0 } } ' + " ".join(
            f"fragment F{n} on FunctionRunV2 {{ ...F{n + 1} ...F{n + 1} }}" for n in range(12))
         + " fragment F12 on FunctionRunV2 { id }", f"more than {MOST_FIELDS} fields"),
        ('{ run(runID: "x") { ...F } } fragment F on FunctionRunV2 { ...F }',
         f"more than {MOST_FIELDS} fields"),
    ],
)  # fmt: skip
async def test_queries_that_are_not_accepted(query: str, error: str) -> None:
    async with world() as w:
        response = await post(w, query)
        assert response.status_code == 422, response.text
        said = response.json()
        assert said["data"] is None
        assert error in said["errors"][0]["message"], said


async def test_the_largest_queries_that_are_accepted() -> None:
    async with world() as w:
        for query in (
            deep(MOST_LEVELS),
            '{ run(runID: "x") { ' + "id " * (MOST_FIELDS - 1) + "} }",
            "{ " + " ".join(f'r{n}: run(runID: "x") {{ id }}' for n in range(MOST_READS)) + "}",
            "{ __schema { types { name fields { name type { name ofType { name } } } } } }",
        ):
            assert (await post(w, query)).status_code == 200, query


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"{", 400, "body: invalid JSON"),
        (b"[]", 400, "body: Expected `object`"),
        (b"{}", 400, "body: Object missing required field `query`"),
        (b'{"query": 5}', 400, "query: Expected `str`"),
        (b'{"query": "{a}", "variables": []}', 400, "variables: Expected `object | null`"),
        (b" " * (LARGEST_QUERY + 1), 413, "body: larger than"),
    ],
)
async def test_bodies_that_are_not_accepted(body: bytes, status: int, error: str) -> None:
    async with world() as w:
        response = await w.http.post("/v0/gql", content=body)
        assert (response.status_code, response.json()["data"]) == (status, None)
        assert response.json()["error"].startswith(error)


async def test_one_of_several_operations_is_chosen_by_its_name() -> None:
    query = f"query A {ONE} query B {{ __typename }}"
    async with world() as w:
        assert (await post(w, query, operationName="B")).json() == {"data": {"__typename": "Query"}}
        assert (await post(w, query)).status_code == 422
        variable = await post(w, EVENT, {"id": {"not": "an id"}})
        assert (variable.status_code, variable.json()["data"]) == (422, None)


async def test_an_engine_without_graphql_core_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "graphql", None)
    async with world() as w:
        response = await post(w, ONE)
        assert response.status_code == 501
        assert "pip install 'stephttp[graphql]'" in response.json()["error"]


async def test_it_only_reads() -> None:
    async with world(signing_keys=(KEY,)) as w:
        refused = await w.http.post("/v0/gql", json={"query": ONE})
        assert (refused.status_code, refused.text) == (401, "Authentication failed\n")
        headers = {"authorization": f"Bearer {KEY}"}
        good = await w.http.post("/v0/gql", json={"query": ONE}, headers=headers)
        assert good.json() == {"data": {"run": None}}
        assert (await w.http.get("/v0/gql?query={__typename}", headers=headers)).status_code == 405
