"""Events, signals and cancellations over HTTP: good answers and every kind of bad input."""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
from pathlib import Path
from typing import Any

import httpx2
import pytest

from stephttp.engine import Settings
from stephttp.engine.model.tokens import ENVIRONMENT_ID
from stephttp.errors import ConfigurationError

from .support import (
    DONE,
    KEY,
    OTHER,
    RUN,
    A,
    B,
    World,
    answer,
    complete,
    new_run,
    sleep,
    step,
    world,
)

SEED = "1795352528271,AAAAAAAAAAAAAA=="
FORM = {"content-type": "application/x-www-form-urlencoded"}
UNKNOWN = "01M81KWYZZZZZZZZZZZZZZZZZZ"


async def send(w: World, body: Any, key: str = "k", **headers: str) -> httpx2.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await w.http.post(f"/e/{key}", content=content, headers=named)


async def events(w: World, query: str = "") -> list[dict[str, Any]]:
    response = await w.http.get(f"/v1/events{query}")
    assert response.status_code == 200, response.text
    data: list[dict[str, Any]] = response.json()["data"]
    return data


def is_error(response: httpx2.Response, status: int, start: str) -> None:
    assert response.status_code == status, response.text
    body = response.json()
    assert (body["data"], body["status"]) == (None, status)
    assert body["error"].startswith(start), body["error"]


async def test_one_event_and_many() -> None:
    async with world() as w:
        one = await send(w, {"name": "a/one", "data": {"x": 1}})
        assert (one.status_code, one.json()["status"]) == (200, 200)
        (first,) = one.json()["ids"]
        many = await send(w, [{"name": "a/two", "ts": 1795352529723, "user": {"u": 1}, "v": "2"},
                              {"name": "a/three", "id": "mine", "data": None}])  # fmt: skip
        second, third = many.json()["ids"]
        assert len({first, second, third}) == 3
        listed = await events(w)
        assert [e["internal_id"] for e in listed] == [third, second, first]
        assert [(e["id"], e["name"], e["data"]) for e in listed] == [
            ("mine", "a/three", {}), (second, "a/two", {}), (first, "a/one", {"x": 1}),
        ]  # fmt: skip
        assert (listed[1]["ts"], listed[1]["user"], listed[1]["v"]) == (
            1795352529723,
            {"u": 1},
            "2",
        )
        assert listed[2]["ts"] == w.clock.now_ms()
        assert listed[0]["environment_id"] == ENVIRONMENT_ID
        assert listed[0]["received_at"] == "2027-01-15T08:00:00.000Z"
        response = await w.http.get(f"/v1/events/{second}")
        assert response.json()["data"] == listed[1]


async def test_an_empty_list_and_any_key_will_do_in_dev() -> None:
    async with world() as w:
        response = await send(w, [], key="NO_EVENT_KEY_SET")
        assert (response.status_code, response.json()) == (200, {"ids": [""], "status": 200})


async def test_the_example_in_the_docs() -> None:
    """curl labels the body as a form, unless it is given a content type."""
    page = (Path(__file__).parents[2] / "docs" / "events.md").read_text()
    (example,) = re.findall(r"^\$ (curl .*/e/any.*)$", page, re.MULTILINE)
    words = shlex.split(example)
    assert "-H" not in words
    body = words[words.index("-d") + 1]
    async with world() as w:
        for content in (body, f" \n[{body}]"):
            assert (await send(w, content.encode(), **FORM)).status_code == 200
        both = await events(w)
        expected = ("shop/packed", {"id": "o1"})
        assert [(event["name"], event["data"]) for event in both] == [expected] * 2
        broken = await send(w, b"{", **FORM)
        assert (broken.status_code, "invalid JSON" in broken.text) == (400, True)


async def test_forms() -> None:
    async with world() as w:
        body = b"name=a/form&id=f1&ts=1795352529723&v=1&x=1&y=a&y=b&data=%7B%22z%22%3A3%7D"
        assert (await send(w, body, **FORM)).status_code == 200
        (event,) = await events(w)
        assert event["data"] == {"x": "1", "y": ["a", "b"], "z": 3}
        assert (event["name"], event["id"], event["v"]) == ("a/form", "f1", "1")
        assert event["ts"] == 1795352529723


@pytest.mark.parametrize(
    ("body", "headers", "status", "error"),
    [
        (b"", {}, 400, "body: expected an event"),
        (b"{", {}, 400, "body: invalid JSON"),
        (b"\xff", {}, 400, "body: not UTF-8"),
        (b"5", {}, 400, "body: Expected `object`"),
        (b'"x"', {}, 400, "body: Expected `object`"),
        (b"[5]", {}, 400, "body: Expected `object`"),
        (b'{"name":"a"}\n{"name":"b"}\n', {}, 400, "body: invalid JSON"),
        ({}, {}, 400, "event name is empty"),
        ({"name": ""}, {}, 400, "event name is empty"),
        ({"name": 5}, {}, 400, "name: Expected `str`"),
        ({"name": "inngest/x"}, {}, 400, "event name 'inngest/x': names beginning 'inngest/'"),
        ({"name": "a", "data": [1]}, {}, 400, "data: expected an object, got list"),
        ({"name": "a", "data": "x"}, {}, 400, "data: expected an object, got str"),
        ({"name": "a", "user": 1}, {}, 400, "user: expected an object"),
        ({"name": "a", "id": 1}, {}, 400, "id: Expected `str"),
        ({"name": "a", "ts": "now"}, {}, 400, "ts: Expected"),
        ({"name": "a", "ts": 315532799999}, {}, 400, "ts: 315532799999 is not"),
        ({"name": "a", "ts": 4102444800001}, {}, 400, "ts: 4102444800001 is not"),
        ({"name": "a", "ts": 1795352529723.5}, {}, 400, "ts: 1795352529723.5 is not"),
        (b'{"name":"a","data":{"x":"\\ud800"}}', {}, 400, "body: "),
        (b'{"name":"a","data":{"x":' + b"[" * 100 + b"]" * 100 + b"}}", {}, 400, "data: nest"),
        (b'{"name":"a","user":' + b'{"x":' * 101 + b"1" + b"}" * 101 + b"}", {}, 400, "user: nes"),
        (b'{"name":"a","data":' + b'{"x":' * 9000 + b"1" + b"}" * 9000 + b"}", {}, 400, ""),
        (b'{"name":"a","data":{"x":' + b"[" * 90000 + b"]" * 90000 + b"}}", {}, 400, ""),
        ([{"name": "a"}, {"name": ""}], {}, 400, "event name is empty"),
        ([{"name": "a"}] * 11, {}, 400, "body: 11 events, at most 10"),
        ({"name": "a", "data": {"x": "y" * 1000}}, {}, 400,
         "Event is over the max size: Max 1000 bytes / Size 1"),
        (b" " * 5001, {}, 413, "body: larger than 5000 bytes"),
        ({"name": "a"}, {"x_inngest_event_id_seed": "1,x"}, 400, "x-inngest-event-id-seed: '1,x'"),
        ({"name": "a"}, {"x_inngest_event_id_seed": "x,AAAAAAAAAAAAAA=="}, 400, "x-inngest-ev"),
        ({"name": "a"}, {"x_inngest_event_id_seed": f"{2**48},AAAAAAAAAAAAAA=="}, 400, "x-inn"),
        (b"name=a&ts=soon", FORM, 400, "ts: expected milliseconds"),
        (b"name=a&data=5", FORM, 400, "data: expected a JSON object"),
        (b"name=a&data=x", FORM, 400, "data: expected a JSON object"),
        (b"name=a&data=x&data=y", FORM, 400, "data: expected one JSON object"),
        (b"name=%ff", FORM, 400, "body: not UTF-8"),
        (b"name=a&name=b", FORM, 400, "name: Expected `str`"),
        (b"&".join([b"x=1"] * 1001), FORM, 400, "body: more than 1000 form fields"),
        (b"x=1", FORM, 400, "event name is empty"),
    ],
)  # fmt: skip
async def test_bad_events(body: Any, headers: dict[str, str], status: int, error: str) -> None:
    # The nested ones must fail for their depth.
    limit = 5000 if len(body) < 40_000 else 10**6
    rules: dict[str, Any] = {"max_events": 10, "max_event": 1000 if limit == 5000 else limit}
    async with world(max_events_body=limit, **rules) as w:
        response = await send(w, body, **headers)
        assert response.status_code == status, response.text
        answered = response.json()
        # Of a list no id: senders count them to know how many events were taken.
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        ids = [] if sent.startswith(b"[") else [""]
        assert (answered["ids"], answered["status"]) == (ids, status)
        assert answered["error"].startswith(error), answered["error"]
        assert await events(w) == []


async def test_the_largest_that_is_allowed() -> None:
    async with world(max_event=1000, max_events=10, max_events_body=5000) as w:
        event = b'{"name":"a","data":{"x":"%s"}}'
        exact = event % (b"y" * (1000 - len(event) + 2))
        assert len(exact) == 1000
        assert (await send(w, exact)).status_code == 200
        assert (await send(w, exact.replace(b"y", b"yy", 1))).status_code == 400
        assert (await send(w, [{"name": "a"}] * 10)).status_code == 200
        assert (await send(w, exact + b" " * 4000)).status_code == 200
        assert (await send(w, exact + b" " * 4001)).status_code == 413


async def test_the_deepest_that_is_allowed() -> None:
    async with world() as w:
        body = b'{"name":"a","data":{"x":' + b"[" * 99 + b"]" * 99 + b',"y":[1,{}]}}'
        assert (await send(w, body)).status_code == 200


async def test_paths_and_methods() -> None:
    async with world() as w:
        response = await w.http.post("/e/", json={"name": "a"})
        assert response.status_code == 400
        assert response.json()["error"] == "no event key in the path; send events to /e/{key}"
        browser = await w.http.get("/e/")
        assert (browser.status_code, browser.headers["location"]) == (303, "/")
        is_error(await w.http.get("/e/key"), 405, "Method Not Allowed")
        assert await events(w) == []


async def test_event_keys() -> None:
    async with world(event_keys=("one", "two")) as w:
        for key in ("one", "two"):
            assert (await send(w, {"name": "a"}, key=key)).status_code == 200
        for key in ("three", "on", "one1", "%C3%A9"):
            response = await send(w, {"name": "a"}, key=key)
            assert response.status_code == 401
            assert response.json() == {"status": 401, "message": "", "error": "Event key not found"}
        assert len(await events(w)) == 2
    async with world(signing_keys=(KEY,)) as w:
        assert (await send(w, {"name": "a"})).status_code == 503
    async with world(signing_keys=(KEY,), event_keys=("one",)) as w:
        assert (await send(w, {"name": "a"}, key="one")).status_code == 200
        closed = ["/v1/events", f"/v1/events/{RUN}", f"/v1/events/{RUN}/runs", "/v1/cancellations",
                  f"/v1/runs/{RUN}/jobs"]  # fmt: skip
        for path in closed:
            assert (await w.http.get(path)).status_code == 401
        for path in ("/v1/signals", "/v1/cancellations"):
            assert (await w.http.post(path, json={})).status_code == 401
        for path in (f"/v1/runs/{RUN}", f"/v0/runs/{RUN}", f"/v1/cancellations/{RUN}"):
            assert (await w.http.delete(path)).status_code == 401


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [({"event_keys": ("",)}, "event_keys"), ({"event_lookback": -1}, "event_lookback"),
     ({"event_lookback": float("nan")}, "event_lookback"),
     ({"event_dedupe": -1}, "event_dedupe")],
)  # fmt: skip
def test_bad_settings(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        Settings(**settings)


async def test_a_seed_makes_a_repeated_send_harmless() -> None:
    async with world() as w:
        batch = [{"name": "a", "data": {"n": 1}}, {"name": "a", "data": {"n": 2}}]
        first = await send(w, batch, x_inngest_event_id_seed=SEED)
        again = await send(w, batch, x_inngest_event_id_seed=SEED)
        assert first.json() == again.json()
        one, two = first.json()["ids"]
        assert one.endswith("0" * 15 + "1")
        assert two.endswith("0" * 15 + "2")
        assert [e["data"]["n"] for e in await events(w)] == [2, 1]


async def test_reading_events() -> None:
    async with world() as w:
        ids = []
        for number in range(5):
            response = await send(w, {"name": f"n{number % 2}", "data": {"n": number}})
            ids += response.json()["ids"]
            await w.after(1)

        async def numbers(query: str) -> list[int]:
            return [event["data"]["n"] for event in await events(w, query)]

        assert await numbers("") == [4, 3, 2, 1, 0]
        assert await numbers("?limit=2") == [4, 3]
        assert await numbers(f"?limit=2&cursor={ids[3]}") == [2, 1]
        assert await numbers("?name=n1") == [3, 1]
        assert await numbers("?received_after=2027-01-15T08:00:02Z") == [4, 3]
        assert await numbers("?received_before=2027-01-15T08:00:02Z") == [1, 0]
        assert await numbers("?received_after=2027-01-15T08:00:00Z&received_before="
                             "2027-01-15T08:00:02Z&name=n1") == [1]  # fmt: skip
        for query, complaint in (
            ("limit=0", "limit: '0'"), ("limit=x", "limit: 'x'"), ("cursor=x", "cursor: there is"),
            (f"cursor={RUN}", "cursor: there is no event"),
            ("received_after=soon", "received_after: 'soon' is not a time"),
            ("received_before=1", "received_before: '1' is not a time"),
        ):  # fmt: skip
            is_error(await w.http.get(f"/v1/events?{query}"), 400, complaint)
        for path in (f"/v1/events/{RUN}", "/v1/events/x", f"/v1/events/{RUN}/runs"):
            is_error(await w.http.get(path), 404, "event: there is no event")
        assert (await w.http.get(f"/v1/events/{ids[0]}/runs")).json()["data"] == []


async def test_the_event_that_began_a_run() -> None:
    async with world() as w:
        await w.post(step(), sleep())
        event_id = (await w.run())["event_id"]
        event = (await w.http.get(f"/v1/events/{event_id}")).json()["data"]
        assert (event["name"], event["data"]["path"]) == ("inngest/http.request", "/orders")
        (run,) = (await w.http.get(f"/v1/events/{event_id}/runs")).json()["data"]
        assert (run["run_id"], run["status"], run["ended_at"]) == (RUN, "Running", None)
        assert (run["environment_id"], run["event_id"]) == (ENVIRONMENT_ID, event_id)
        assert await events(w) == []


async def test_jobs() -> None:
    async with world() as w:
        wait = {"op": "WaitForEvent", "id": B, "name": "go", "opts": {"timeout": "20s"}}
        await w.post(sleep(), wait)
        jobs = (await w.http.get(f"/v1/runs/{RUN}/jobs")).json()["data"]
        assert [(j["at"], j["kind"], j["position"], j["attempt"]) for j in jobs] == [
            ("2027-01-15T08:00:05.000Z", "sleep", 0, 0),
            ("2027-01-15T08:00:20.000Z", "event", 1, 0),
        ]
        assert jobs[1]["step_id"] == B
        is_error(await w.http.get(f"/v1/runs/{OTHER}/jobs"), 404, "run_id: there is no run")
        is_error(await w.http.get("/v1/runs/x/jobs"), 400, "run_id: 'x'")


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"{", 400, "body: invalid JSON"),
        ({}, 400, "body: Object missing required field `signal`"),
        ({"signal": ""}, 400, "signal: must not be empty"),
        ({"signal": 5}, 400, "signal: Expected `str`"),
        ({"signal": "s"}, 404, "No signal found"),
        (b'{"signal":"s","data":"\\ud800"}', 400, "body: "),
        ({"signal": "s", "data": "x" * 200}, 413, "data: more than 100 bytes"),
    ],
)
async def test_bad_signals(body: Any, status: int, error: str) -> None:
    async with world(max_step_output=100) as w:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        is_error(await w.http.post("/v1/signals", content=content), status, error)


BULK = {
    "app_id": "http://app.test",
    "function_id": "POST /orders",
    "started_before": "2027-01-15T09:00:00Z",
}


@pytest.mark.parametrize(
    ("change", "status", "error"),
    [
        (dict.fromkeys(BULK), 400,
         "app_id is required\nfunction_id is required\nstarted_before is required"),
        ({"started_before": ""}, 400, "started_before is required"),
        ({"started_before": "soon"}, 400, "started_before: 'soon' is not a time"),
        ({"started_after": "soon"}, 400, "started_after: 'soon' is not a time"),
        ({"started_after": "2027-01-15T09:00:00Z"}, 400, "started_after: must lie before"),
        ({"if": "event."}, 400, "if: not a valid CEL expression"),
        ({"if": "async.data.x == 1"}, 400, "if: not a valid CEL expression: "),
        ({"if": 5}, 400, "if: Expected `str"),
        ({"app_id": "http://other.test"}, 404, "function not found"),
        ({"function_id": "nobody"}, 404, "function not found"),
    ],
)  # fmt: skip
async def test_bad_cancellations(change: Any, status: int, error: str) -> None:
    async with world() as w:
        await w.post(sleep())
        body = {k: v for k, v in {**BULK, **change}.items() if v is not None}
        is_error(await w.http.post("/v1/cancellations", json=body), status, error)
        assert (await w.http.get("/v1/cancellations")).json()["data"] == []
        assert (await w.run())["status"] == "Running"
        is_error(await w.http.delete(f"/v1/cancellations/{UNKNOWN}"), 404, "id: there is no canc")


async def test_cancelling_many_runs() -> None:
    ids = [f"01M81KWY2JTNRXZTV817ZB74{n:02d}" for n in range(6)]
    async with world() as w:
        for number, run_id in enumerate(ids[:4]):
            data = {"query_params": f"k={number}"}
            if number == 3:
                data["path"] = "/elsewhere"
            await w.post(sleep(text="1h"), run_id=run_id, data=data)
            await w.after(1)
        body = {
            **BULK,
            "started_after": "2027-01-15T08:00:01Z",
            "if": "event.data.query_params != 'k=5'",
        }
        made = await w.http.post("/v1/cancellations", json=body)
        assert made.status_code == 200, made.text
        cancellation = made.json()["data"]
        assert cancellation.pop("cancelled") == 2
        statuses = [(await w.run(run_id))["status"] for run_id in ids[:4]]
        assert statuses == ["Running", "Cancelled", "Cancelled", "Running"]
        assert (await w.http.get("/v1/cancellations")).json()["data"] == [cancellation]
        # It holds for runs that begin later, too: until it is over, or taken back.
        await w.post(sleep(text="1h"), run_id=ids[4], data={"query_params": "k=4"})
        await w.post(sleep(text="1h"), run_id=ids[5], data={"query_params": "k=5"})
        assert [(await w.run(i))["status"] for i in ids[4:]] == ["Cancelled", "Running"]
        everything = {k: v for k, v in body.items() if k in BULK}
        made = await w.http.post("/v1/cancellations", json=everything)
        assert made.json()["data"]["cancelled"] == 2
        second = f"/v1/cancellations/{made.json()['data']['id']}"
        assert (await w.http.delete(second)).status_code == 204
        path = f"/v1/cancellations/{cancellation['id']}"
        assert (await w.http.delete(path)).status_code == 204
        assert (await w.http.delete(path)).status_code == 404
        await w.post(sleep(text="1h"), run_id=RUN)
        assert (await w.run())["status"] == "Running"


async def test_nothing_is_acknowledged_that_is_not_stored(tmp_path: Path) -> None:
    """The event and the end of its wait are one transaction."""
    async with world(path=tmp_path / "db") as w:
        wait = {"op": "WaitForEvent", "id": A, "name": "go", "opts": {"timeout": "20s"}}
        await w.post(wait)

        def spoil(connection: sqlite3.Connection) -> None:
            connection.execute(
                "CREATE TRIGGER full BEFORE UPDATE ON steps "
                "BEGIN SELECT raise(ABORT, 'disk is full'); END"
            )

        await w.engine.store.write(spoil)
        response = await send(w, {"name": "go"})
        assert response.status_code == 503, response.text
        assert await events(w) == []
        assert await w.memos() == {}
        await w.engine.store.write(lambda connection: connection.execute("DROP TRIGGER full"))
        w.script = [answer(DONE)]
        assert (await send(w, {"name": "go"})).status_code == 200
        assert len(await w.after(0)) == 1


@pytest.mark.parametrize(
    "wait",
    [
        {"op": "WaitForEvent", "name": "go", "opts": {"if": "async.x ="}},
        {"op": "WaitForEvent", "name": "go", "opts": {"timeout": "soon"}},
        {"op": "WaitForSignal", "name": "go", "opts": {"signal": ["x"]}},
        {"op": "InvokeFunction", "name": "go", "opts": {"function_id": 5}},
    ],
)
async def test_the_first_checkpoint_with_a_bad_wait_stores_its_steps(wait: dict[str, Any]) -> None:
    async with world() as w:
        answer = await w.http.post("/v1/checkpoint", json=new_run(step(B), wait | {"id": A}))
        assert answer.status_code == 200, answer.text
        steps = (await w.http.get(f"/v1/runs/{RUN}/steps")).json()["data"]
        assert {one["name"]: one["status"] for one in steps} == {"a": "Completed", "go": "Failed"}


async def test_a_cancellation_leaves_a_request_alone_that_its_handler_answers() -> None:
    """Otherwise its SDK would be refused in the midst of it, and answer 500."""
    done = complete({"status": 200, "headers": {}, "body": "ok"})
    async with world() as w:
        await w.post(step(A))
        before = (await w.http.post("/v1/cancellations", json=BULK)).json()["data"]
        assert before["cancelled"] == 0
        await w.post(step(A), run_id=OTHER)
        for run_id in (RUN, OTHER):
            for more in (step(B), done):
                body = {"run_id": run_id, "steps": [more]}
                report = await w.http.post(f"/v1/checkpoint/{run_id}/steps", json=body)
                assert report.status_code == 200, report.text
            assert (await w.run(run_id))["status"] == "Completed"


async def test_a_cancellation_ends_a_run_once_it_is_the_engines() -> None:
    async with world() as w:
        await w.post(step(A))
        await w.http.post("/v1/cancellations", json=BULK)
        body = {"run_id": RUN, "steps": [sleep(text="1h")]}
        report = await w.http.post(f"/v1/checkpoint/{RUN}/steps", json=body)
        assert (report.status_code, (await w.run())["status"]) == (200, "Cancelled")
        await w.engine.idle()
        assert w.calls == []
