"""What starts a function, and what does not."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from stephttp.engine.rules.conditions import expressions
from tests.engine.functions.support import (
    URL,
    body_of,
    config,
    only,
    output,
    register,
    returns,
    send,
    started,
    step_run,
)
from tests.engine.support import RUN, A, answer, new_run, world


@pytest.mark.parametrize(
    ("sent", "data", "functions"),
    [
        ("order/paid", {"n": 4}, ["shop-any", "shop-both", "shop-large"]),
        ("order/paid", {"n": 3}, ["shop-any", "shop-both"]),
        ("order/paid", {}, ["shop-any", "shop-both"]),
        ("order/sent", {}, ["shop-any", "shop-both"]),
        ("order/", {}, ["shop-any"]),
        ("orders", {}, []),
        ("ORDER/PAID", {}, []),
    ],
)
async def test_triggers(sent: str, data: Any, functions: list[str]) -> None:
    async with world(script=[returns(None)] * len(functions)) as w:
        await register(
            w,
            config("shop-large", {"event": "order/paid", "expression": "event.data.n > 3"}),
            config("shop-both", "order/paid", "order/sent", "order/paid"),
            config("shop-any", "order/*"),
        )
        runs = await started(w, await send(w, sent, data))
        assert sorted(run["function"] for run in runs) == functions
        assert {run["status"] for run in runs} <= {"Completed"}


async def test_an_event_with_the_id_of_another_starts_nothing() -> None:
    async with world(script=[returns(1)]) as w:
        await register(w, config("shop-pack", "order/paid"))
        first, second = [await send(w, "order/paid", id="mine") for _ in range(2)]
        assert len(await started(w, first)) == 1
        assert await started(w, second) == []


async def test_the_event_that_started_a_run_does_not_end_its_waits() -> None:
    wait: dict[str, Any] = {
        "op": "WaitForEvent",
        "id": A,
        "name": "order/paid",
        "opts": {"timeout": "1h"},
    }
    wait["opts"]["if"] = "event.data.id == async.data.id"
    async with world(script=[answer([wait]), returns("done")], event_lookback=60.0) as w:
        await register(w, config("shop-pack", "order/paid"))
        event_id = await send(w, "order/paid", {"id": "o1"})
        assert (await only(w, event_id))["status"] == "Running"
        # It is withdrawn, so that further events start nothing; its run goes to its end.
        assert (await w.http.delete("/fn/remove", params={"url": URL})).status_code == 200
        await send(w, "order/paid", {"id": "another"})
        assert (await only(w, event_id))["status"] == "Running"
        last = await send(w, "order/paid", {"id": "o1", "last": True})
        assert output(await only(w, event_id)) == "done"
        assert body_of(w.calls[1])["steps"][A]["data"] == {"id": "o1", "last": True}
        assert await started(w, last) == []


async def test_a_function_runs_again_with_its_event() -> None:
    async with world(script=[returns(1), returns(2)]) as w:
        await register(w, config("shop-pack", "order/paid"))
        run = await only(w, await send(w, "order/paid", {"id": 1}))
        response = await w.http.post(f"/v1/stephttp/runs/{run['run_id']}/rerun", json={})
        await w.engine.idle()
        again = await w.run(response.json()["data"]["run_id"])
        assert output(again) == 2
        assert body_of(w.calls[1])["event"] == body_of(w.calls[0])["event"]
        refused = await w.http.post(
            f"/v1/stephttp/runs/{run['run_id']}/rerun", json={"body": "e30="}
        )
        assert (refused.status_code, "body: an event started" in refused.text) == (400, True)


async def test_a_run_of_an_endpoint_is_called_as_ever() -> None:
    async with world(script=[answer({"op": "RunComplete", "id": "c", "data": 1})]) as w:
        await register(w, config("shop-pack", "inngestlike/http.request"))
        event = new_run({"op": "Sleep", "id": A, "name": "1s"})["event"] | {"name": "shop/go"}
        body = {"run_id": RUN, "event": event, "steps": [{"op": "Sleep", "id": A, "name": "1s"}]}
        assert (await w.http.post("/v1/checkpoint", json=body)).status_code == 200
        (call,) = await w.after(1)
        assert (call.url.path, call.content) == ("/orders", b'{"a": 1}')


async def test_conditions_do_not_keep_others_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long they take: senders of events choose how much there is to look at."""
    began, go_on = threading.Event(), threading.Event()

    def slow(*args: Any) -> bool:
        began.set()
        assert go_on.wait(30)
        return True

    async with world(script=[returns(1)] * 2) as w:
        large = {"event": "order/large", "expression": "event.data.n > 3"}
        await register(w, config("shop-large", large), config("shop-any", "order/any"))
        monkeypatch.setattr(expressions, "matches", slow)
        sending = asyncio.create_task(send(w, "order/large"))
        try:
            await asyncio.to_thread(began.wait, 30)
            # Nothing waits for it: neither an event, nor a run, nor another app.
            assert output(await only(w, await send(w, "order/any"))) == 1
            await w.post(step_run())
            await register(w, config("shop-pack"), appname="store", url="http://store.test/")
            # What is gone in the meantime is not started, and what has moved is called there.
            moved = json.dumps(config("shop-large", large)).replace("app.test", "new.test")
            await register(w, json.loads(moved))
            assert not sending.done()
        finally:
            go_on.set()
        assert (await only(w, await sending))["function"] == "shop-large"
        assert w.calls[-1].url.host == "new.test"


async def test_reading_what_an_app_registers_keeps_no_one_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    began, go_on = threading.Event(), threading.Event()

    def slow(*args: Any) -> None:
        began.set()
        assert go_on.wait(30)

    async with world() as w:
        monkeypatch.setattr(expressions, "check", slow)
        large = {"event": "order/large", "expression": "event.data.n > 3"}
        registering = asyncio.create_task(register(w, config("shop-large", large)))
        try:
            await asyncio.to_thread(began.wait, 30)
            await send(w, "order/any")
            await w.post(step_run())
            assert not registering.done()
        finally:
            go_on.set()
        assert (await registering)["modified"]
