"""Sessions of events: what is accepted, what counts, and where they are seen."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stephttp.engine.model.refused import Refused
from stephttp.engine.rules.event_sessions import read_meta, sessions_of
from tests.engine.functions.support import (
    body_of,
    config,
    invoke,
    only,
    output,
    register,
    returns,
    send,
)
from tests.engine.support import answer, world


@pytest.mark.parametrize(
    ("meta", "sessions"),
    [
        (None, {}),
        ({}, {}),
        ({"sessions": {}}, {}),
        ({"sessions": {"user": "u1", "chat": 7, "half": 0.5}},
         {"user": "u1", "chat": "7", "half": "0.5"}),
        ({"propagated_sessions": {"user": "u1"}}, {"user": "u1"}),
        ({"propagated_sessions": {"user": "u1", "chat": "c"}, "sessions": {"user": "u2"}},
         {"user": "u2", "chat": "c"}),
        ({"propagated_sessions": {"user": "u1", "chat": "c"}, "sessions": {"user": None}},
         {"chat": "c"}),
        ({"propagated_sessions": {"user": "u1"}, "sessions": None}, {}),
        ({"propagated_sessions": None, "sessions": {"user": "u"}}, {"user": "u"}),
        ({"propagated_sessions": {str(n): "x" for n in range(4)},
          "sessions": {"0": None, "1": None, "a": "x", "b": "x", "c": "x"}},
         {"2": "x", "3": "x", "a": "x", "b": "x", "c": "x"}),
        ({"other": 1}, {}),
    ],
)  # fmt: skip
def test_an_events_own_sessions_count_before_those_of_its_sender(meta: Any, sessions: Any) -> None:
    assert read_meta(meta, "meta") == ({"sessions": sessions} if sessions else None)


def test_the_sessions_of_a_run_are_those_of_all_its_events() -> None:
    events = [
        {"meta": {"sessions": {"user": "u1", "chat": "c1", "shop": "s1"}}},
        {"meta": {"sessions": {"user": "u2", "chat": "c1", "shop": "s1"}}},
        {"meta": {"sessions": {"user": "u1", "chat": "c1"}}},
    ]
    assert sessions_of(json.dumps(events).encode()) == {"chat": "c1"}
    assert sessions_of(json.dumps(events[:1]).encode()) == events[0]["meta"]["sessions"]
    assert sessions_of(json.dumps([*events, {"data": {}}]).encode()) == {}


@pytest.mark.parametrize(
    ("meta", "complaint"),
    [
        ([], "meta: expected an object, got list"),
        ({"sessions": []}, "meta.sessions: expected an object, got list"),
        ({"propagated_sessions": 1}, "meta.propagated_sessions: expected an object, got int"),
        ({"sessions": {"": "x"}}, "meta.sessions: keys have 1 to 1000 characters"),
        ({"sessions": {"a": ""}}, "meta.sessions.a: must have 1 to 1000 characters"),
        ({"sessions": {"a": "x" * 1001}}, "meta.sessions.a: must have 1 to 1000 characters"),
        ({"sessions": {"a": True}}, "meta.sessions.a: expected text or a number, got bool"),
        ({"sessions": {"a": {}}}, "meta.sessions.a: expected text or a number, got dict"),
        ({"sessions": {str(n): "x" for n in range(6)}}, "meta.sessions: 6, at most 5"),
    ],
)
def test_what_is_not_acceptable_is_refused_by_its_field(meta: Any, complaint: str) -> None:
    with pytest.raises(Refused) as refused:
        read_meta(meta, "meta")
    assert str(refused.value).startswith(complaint)


async def test_functions_get_them_and_people_see_them() -> None:
    async with world(script=[returns(1)]) as w:
        await register(w, config("shop-pack", "order/paid"))
        meta = {"sessions": {"user": 17}, "propagated_sessions": {"chat": "c1"}}
        event_id = await send(w, "order/paid", meta=meta)
        run = await only(w, event_id)
        kept = {"chat": "c1", "user": "17"}
        assert body_of(w.calls[0])["event"]["meta"] == {"sessions": kept}
        event = (await w.http.get(f"/v1/events/{event_id}")).json()["data"]
        assert event["meta"] == {"sessions": kept}
        full = (await w.http.get(f"/v1/stephttp/runs/{run['run_id']}")).json()["data"]
        assert full["sessions"] == kept
        assert (
            'Session user</dt><dd class="mono">17</dd>'
            in (await w.http.get(f"/runs/{run['run_id']}")).text
        )
        refused = await w.http.post("/e/key", json={"name": "order/paid", "meta": {"sessions": 1}})
        assert (refused.status_code, "meta.sessions: expected" in refused.text) == (400, True)


async def test_they_go_along_with_an_invocation() -> None:
    payload = {"data": {}, "meta": {"propagated_sessions": {"chat": "c1"}}}
    async with world(script=[answer([invoke(payload=payload)]), returns(2), returns(3)]) as w:
        await register(w, config("shop-pack", "order/paid"), config("shop-child", "never"))
        run = await only(w, await send(w, "order/paid"))
        assert output(run) == 3
        child = next(
            body for call in w.calls if (body := body_of(call))["event"]["name"] != "order/paid"
        )
        assert child["event"]["meta"] == {"sessions": {"chat": "c1"}}


async def test_sessions_that_are_not_acceptable_fail_the_step_that_invokes() -> None:
    payload: dict[str, Any] = {"data": {}, "meta": {"sessions": []}}
    async with world(script=[answer([invoke(payload=payload)]), returns("caught")]) as w:
        await register(w, config("shop-pack", "order/paid"), config("shop-child", "never"))
        run = await only(w, await send(w, "order/paid"))
        assert output(run) == "caught"
        (error,) = [one["error"] for one in body_of(w.calls[1])["steps"].values()]
        assert "payload.meta.sessions: expected an object" in error["message"]
