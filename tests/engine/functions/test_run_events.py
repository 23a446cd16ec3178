"""The events that the engine sends when runs of functions end, and what they start and end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest

from stephttp.engine.model.function import Trigger
from stephttp.engine.rules.functions.run_events import CANCELLED, FAILED, FINISHED, names_of
from tests.engine.functions.support import (
    body_of,
    config,
    fails,
    invoke,
    only,
    output,
    register,
    returns,
    send,
    step_run,
)
from tests.engine.support import SDK, A, B, World, answer, complete, sleep, world

FINAL = {"x-inngest-no-retry": "true"}
OF_PACK = {"event": FAILED, "expression": "event.data.function_id == 'shop-pack'"}


async def all_runs(w: World, function: str) -> list[dict[str, Any]]:
    """The runs of a function, the latest first."""
    found = (await w.http.get("/v1/runs", params={"endpoint": function})).json()["data"]
    return [await w.run(run["run_id"]) for run in found]


async def test_a_run_that_fails_starts_the_function_for_that() -> None:
    script = [fails(400, headers=FINAL, stack="in line 1"), returns("sorry")]
    async with world(script=script) as w:
        await register(w, config("shop-pack", "order/paid"), config("shop-pack-failure", OF_PACK))
        run = await only(w, await send(w, "order/paid", {"id": "o1"}))
        assert run["status"] == "Failed"
        sent = body_of(w.calls[1])["event"]
        trigger = body_of(w.calls[0])["event"]
        error = {"name": "ValueError", "message": "no", "stack": "in line 1"}
        assert sent == {
            "name": FAILED,
            "id": run["run_id"],
            "ts": w.clock.now_ms(),
            "user": {},
            "data": {
                "function_id": "shop-pack",
                "run_id": run["run_id"],
                "event": trigger,
                "events": [trigger],
                "error": {"error": "NonRetriableError", **error},
                "result": error,
                "_inngest": {"status": "Failed"},
            },
        }
        (handled,) = await all_runs(w, "shop-pack-failure")
        assert (output(handled), len(w.calls)) == ("sorry", 2)


async def test_a_failure_without_attempts_left_is_told_with_its_status() -> None:
    """As the Inngest server does; what an SDK calls its error is left out."""
    async with world(script=[fails(500, code="unknown"), returns(None)]) as w:
        pack = config("shop-pack", "go", retries=0)
        await register(w, pack, config("shop-pack-failure", OF_PACK))
        await only(w, await send(w, "go"))
        error = body_of(w.calls[1])["event"]["data"]["error"]
        assert error == {
            "error": "invalid status code: 500", "name": "ValueError", "message": "no",
        }  # fmt: skip


async def test_a_run_that_completes_tells_those_who_ask_for_all_ends() -> None:
    async with world(script=[returns({"n": 1}), returns(None)]) as w:
        await register(
            w,
            config("shop-pack", "go"),
            config("shop-ends", FINISHED),
            config("shop-failures", FAILED, CANCELLED),
        )
        run = await only(w, await send(w, "go"))
        event = body_of(w.calls[1])["event"]
        assert event["data"] == {
            "function_id": "shop-pack",
            "run_id": run["run_id"],
            "event": body_of(w.calls[0])["event"],
            "events": [body_of(w.calls[0])["event"]],
            "result": {"n": 1},
            "_inngest": {"status": "Completed"},
        }
        assert event["id"] != run["run_id"]
        # The run that it started sends nothing, or there would be no end.
        assert len(w.calls) == 2


async def test_a_run_that_is_cancelled_tells_that_however_it_was() -> None:
    async with world() as w:
        await register(w, config("shop-pack", "go"), config("shop-gone", CANCELLED))
        w.script = [returns(0)]
        await send(w, "go")
        app_id = (await w.http.get("/v1/stephttp/endpoints")).json()["data"][0]["app_id"]
        about = {"app_id": app_id, "function_id": "shop-pack"}
        about["started_before"] = "2100-01-01T00:00:00Z"
        for method, path, body in (
            ("DELETE", "/v1/runs/{run_id}", None),
            ("POST", "/v1/stephttp/runs/cancel?all=true", {}),
            ("POST", "/v1/cancellations", about),
        ):
            w.calls.clear()
            w.script = [answer([sleep(B, "1h")]), returns("gone")]
            run = await only(w, await send(w, "go"))
            response = await w.http.request(method, path.format(**run), json=body)
            assert response.status_code < 300, response.text
            await w.engine.idle()
            event = body_of(w.calls[1])["event"]
            assert (event["id"], event["data"]["run_id"]) == (run["run_id"], run["run_id"])
            assert event["data"]["error"] == {
                "error": "function cancelled", "message": "function cancelled", "name": "Error",
            }  # fmt: skip
            assert event["data"]["_inngest"] == {"status": "Cancelled"}
        # Cancelled before its first call, by the same order.
        w.script = [returns("gone too")]
        run = await only(w, await send(w, "go"))
        assert (run["status"], output((await all_runs(w, "shop-gone"))[0])) == (
            "Cancelled", "gone too",
        )  # fmt: skip


async def test_an_invoked_run_names_the_step_that_waits_for_it() -> None:
    script = [answer([invoke()]), returns(1), returns("end"), returns("parent"), returns("end")]
    async with world(script=script) as w:
        await register(
            w,
            config("shop-parent", "go"),
            config("shop-child", "never"),
            config("shop-ends", FINISHED),
        )
        parent = await only(w, await send(w, "go"))
        ends = [body_of(call)["event"]["data"] for call in w.calls[2:]]
        of_runs = {one["function_id"]: one for one in ends if "function_id" in one}
        assert of_runs["shop-child"]["correlation_id"] == f"{parent['run_id']}.{A}"
        assert "correlation_id" not in of_runs["shop-parent"]


async def test_a_run_of_an_endpoint_sends_nothing() -> None:
    async with world(script=[answer(complete(1))]) as w:
        await register(w, config("shop-ends", FINISHED))
        await w.post(sleep())
        await w.after(5)
        assert (await w.run())["status"] == "Completed"
        assert len(w.calls) == 1


async def test_such_events_are_in_no_list_but_can_be_looked_at() -> None:
    async with world(script=[returns(1), returns(2)]) as w:
        await register(w, config("shop-pack", "go"), config("shop-ends", FINISHED))
        await send(w, "go")
        (end,) = await all_runs(w, "shop-ends")
        names = [one["name"] for one in (await w.http.get("/v1/events")).json()["data"]]
        assert names == ["go"]
        page = (await w.http.get("/events")).text
        assert FINISHED not in page
        event = (await w.http.get(f"/v1/events/{end['event_id']}")).json()["data"]
        assert event["name"] == FINISHED
        began = (await w.http.get(f"/v1/events/{end['event_id']}/runs")).json()["data"]
        assert [one["run_id"] for one in began] == [end["run_id"]]
        refused = await w.http.post("/e/key", json={"name": FINISHED, "data": {}})
        assert refused.status_code == 400


async def test_they_end_waits() -> None:
    wait = {"op": "WaitForEvent", "id": A, "name": FINISHED, "opts": {"timeout": "1h"}}
    wait["opts"] |= {"if": "async.data.function_id == 'shop-pack'"}  # type: ignore[operator]
    async with world(script=[returns({"n": 7}), answer([sleep(B, "1h")])]) as w:
        await register(w, config("shop-pack", "go"))
        await w.post(wait)
        await send(w, "go")
        assert (await w.memos())[A]["data"]["result"] == {"n": 7}


async def test_a_crash_between_an_end_and_what_it_starts(tmp_path: Path) -> None:
    """The app is away when the run fails, and the engine is stopped before it handles that."""
    path = tmp_path / "db"
    async with world(path=path, script=[fails(400, headers=FINAL)]) as w:
        await register(w, config("shop-pack", "go"), config("shop-pack-failure", OF_PACK))
        await w.engine.functions.backlog.stop()
        await w.http.post("/e/key", json={"name": "go"})
        await w.engine.executor.idle()
        (failed,) = await all_runs(w, "shop-pack")
        assert failed["status"] == "Failed"
        assert await all_runs(w, "shop-pack-failure") == []
    async with world(path=path, script=[returns("sorry")]) as w:
        await w.engine.idle()
        (handled,) = await all_runs(w, "shop-pack-failure")
        assert output(handled) == "sorry"
    async with world(path=path) as w:
        await w.engine.idle()
        assert len(await all_runs(w, "shop-pack-failure")) == 1


async def test_a_large_event_is_in_it_once() -> None:
    script = [fails(400, headers=FINAL), returns("sorry")]
    async with world(script=script, max_event=3_000) as w:
        await register(w, config("shop-pack", "go"), config("shop-pack-failure", OF_PACK))
        await send(w, "go", {"text": "x" * 2_000})
        data = body_of(w.calls[1])["event"]["data"]
        assert (len(data["event"]["data"]["text"]), data["events"]) == (2_000, [])


@pytest.mark.parametrize(
    ("event", "names"),
    [
        (FAILED, [FAILED]),
        ("inngest/*", [FINISHED, FAILED, CANCELLED]),
        ("inngest/function.f*", [FINISHED, FAILED]),
        ("inngest/scheduled.timer", []),
        ("inngest/x*", []),
        ("inngest/*x", []),
        ("*", []),
        ("order/paid", []),
    ],
)
async def test_which_triggers_are_for_them(event: str, names: list[str]) -> None:
    assert names_of(Trigger(event)) == names
    async with world(script=[returns(0), *[returns(1)] * bool(FINISHED in names)]) as w:
        await register(w, config("shop-pack", "go"))
        await register(w, config("other-any", event), appname="other", url="http://o.test/x")
        run = await only_of(w, "go", "shop-pack")
        assert run["status"] == "Completed"
        started = [body_of(call)["event"]["name"] for call in w.calls]
        assert started.count(FINISHED) == (FINISHED in names)


async def only_of(w: World, event: str, function: str) -> dict[str, Any]:
    if event == "go":
        w.script += [returns(2)] * 2
    event_id = await send(w, event)
    listed = (await w.http.get(f"/v1/events/{event_id}/runs")).json()["data"]
    found = [await w.run(one["run_id"]) for one in listed]
    (run,) = [one for one in found if one["function"] == function]
    return run


async def test_an_end_that_nothing_asks_for_is_not_stored() -> None:
    async with world(script=[answer([step_run()]), returns(1)]) as w:
        await register(w, config("shop-pack", "go"), config("shop-failures", FAILED))
        await send(w, "go")
        rows = await w.engine.store.read(
            lambda connection: connection.execute("SELECT name FROM events").fetchall()
        )
        assert rows == [("go",)]


async def test_a_function_that_cancellations_start_does_not_start_itself_forever() -> None:
    def reply(request: httpx2.Request) -> httpx2.Response:
        function = request.url.params["fnId"]
        return returns(1) if function == "shop-ends" else answer([sleep(B, "1h")])

    async with world(script=[reply] * 20) as w:
        clean = config("shop-clean", "go", CANCELLED, singleton={"mode": "cancel"})
        await register(w, clean, config("shop-ends", FINISHED))
        await send(w, "go")
        # The second run ends the first, so a third one starts, which ends the second, so a fourth
        # one starts. That ends the third, about which only `finished` is sent.
        await send(w, "go")
        statuses = [run["status"] for run in await all_runs(w, "shop-clean")]
        assert statuses == ["Running", "Cancelled", "Cancelled", "Cancelled"]
        assert len(await all_runs(w, "shop-ends")) == 3


@pytest.mark.parametrize("depth", [*range(960, 1000, 5), 100_000])
async def test_a_result_of_any_depth_does_not_stop_what_ends_start(depth: int) -> None:
    deep = b"[" * depth + b"]" * depth
    reply = httpx2.Response(200, headers=SDK, content=deep)
    async with world(script=[reply, returns(1)]) as w:
        ends = {"event": FINISHED, "expression": "event.data.function_id == 'shop-pack'"}
        await register(w, config("shop-pack", "go", retries=0), config("shop-ends", ends))
        await send(w, "go")
        (ended,) = await all_runs(w, "shop-ends")
        assert ended["status"] == "Completed"
        result = body_of(w.calls[1])["event"]["data"].get("result")
        assert result is None or isinstance(result, str)  # text, if it cannot be read as JSON
