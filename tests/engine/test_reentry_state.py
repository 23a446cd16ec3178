"""The state of a run along with its re-entries, for SDKs that say that they read it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from stephttp._wire import call_signatures, stored_state
from stephttp._wire.call_signatures import verify_call
from stephttp._wire.http import Request
from stephttp._wire.signatures import verify
from stephttp.engine import VirtualClock
from stephttp.engine.live.slots import Gates, Shares
from stephttp.engine.work import due

from .support import DONE, KEY, OTHER, RUN, A, B, Z, answer, sleep, step, step_error, world

BODY = b'{"a": 1}'
ASKS = {"x-stephttp-accept": "pending, step-names"}


def brought(call: httpx2.Request) -> tuple[bytes, bytes | None]:
    """Body and state of a call."""
    pairs = [(name.lower(), value) for name, value in call.headers.raw]
    request = Request(call.method, "/", "", pairs, body=call.content)
    state = stored_state.detach(request)
    return request.body, state


def memos(call: httpx2.Request) -> Any:
    """The memos of the state of a call."""
    return {key: memo for key, memo in state_of(call).items() if key != stored_state.STEPS}


def names(call: httpx2.Request) -> Any:
    """What the state of a call says of the steps."""
    return state_of(call)[stored_state.STEPS]


def state_of(call: httpx2.Request) -> Any:
    state = brought(call)[1]
    assert state is not None
    return json.loads(state)


async def test_the_state_is_what_the_api_would_tell() -> None:
    async with world() as w:
        await w.post(step(), step_error(), sleep(), reads_state=True, retries=3)
        # The step's back-off ends, and is followed by a call; nothing is stored by its answer.
        w.script = [answer([sleep()])]
        (call,) = await w.after(1)
        body, state = brought(call)
        assert body == BODY
        assert state is not None
        assert memos(call) == {A: {"data": 1}, Z: {"pending": True}}
        assert {key: op for key, (op, *_) in names(call).items()} == {
            A: "StepRun", B: "StepError", Z: "Sleep"
        }  # fmt: skip
        assert call.headers[stored_state.FAILURES] == f"{B}=1"
        assert "reentry-state" in call.headers[stored_state.FEATURES]
        told = await w.http.get(f"/v0/runs/{RUN}/actions", headers=ASKS)
        assert state == told.content
        assert told.headers[stored_state.FAILURES] == call.headers[stored_state.FAILURES]


async def test_the_state_of_a_run_that_has_ended_is_there_for_its_history() -> None:
    async with world() as w:
        await w.post(step(), DONE)
        path = f"/v0/runs/{RUN}/actions"
        assert (await w.http.get(path, headers=ASKS)).status_code == 410
        asks = {"x-stephttp-accept": "pending, step-names, ended"}
        told = await w.http.get(path, headers=asks)
        assert told.status_code == 200
        assert told.json()[A] == {"data": 1}


async def test_nothing_comes_along_for_those_who_did_not_ask() -> None:
    async with world() as w:
        await w.post(sleep(text="1s"))
        w.script = [answer(DONE)]
        (call,) = await w.after(1)
        assert call.content == BODY
        assert not [name for name in call.headers if name.startswith(stored_state.SIZE)]


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"])
async def test_nothing_comes_along_where_a_body_is_not_expected(method: str) -> None:
    async with world() as w:
        await w.post(sleep(text="1s"), reads_state=True, data={"method": method, "body": None})
        w.script = [answer(DONE)]
        (call,) = await w.after(1)
        assert (call.content, stored_state.SIZE in call.headers) == (b"", False)


async def test_a_repeated_call_has_nothing_along_and_the_next_one_has() -> None:
    async with world() as w:
        await w.post(sleep(A, "1s"), sleep(B, "60s"), reads_state=True, retries=3)
        w.script = [httpx2.Response(502), answer("oops", 500), answer([sleep(B)])]
        calls = await w.after(1) + await w.after(1) + await w.after(1)
        assert [brought(call)[1] is None for call in calls] == [False, True, True]
        w.script = [answer(DONE)]
        (call,) = await w.after(60)
        assert brought(call)[1] is not None


async def test_a_large_state_is_left_to_be_asked_for() -> None:
    async with world() as w:
        fits = "x" * (stored_state.LARGEST - 300)
        await w.post(step(data=fits), sleep(text="1s"), reads_state=True)
        w.script = [answer([step(B, "y" * 300), sleep("c" * 40, "1s")]), answer(DONE)]
        calls = await w.after(1) + await w.after(1)
        assert [brought(call)[1] is None for call in calls] == [False, True]
        assert calls[1].content == BODY


async def test_many_runs_at_once_get_each_their_own() -> None:
    async with world() as w:
        for run_id, data in ((RUN, 1), (OTHER, 2)):
            await w.post(step(data=data), sleep(text="1s"), run_id=run_id, reads_state=True)
        w.script = [answer(DONE)] * 2
        calls = await w.after(1)
        states = {call.headers["x-run-id"]: brought(call)[1] for call in calls}
        found = {run_id: json.loads(state or b"")[A] for run_id, state in states.items()}
        assert found == {RUN: {"data": 1}, OTHER: {"data": 2}}


async def test_calls_for_planned_steps_have_it_too() -> None:
    async with world() as w:
        plans = [{"op": "StepPlanned", "id": id_} for id_ in (A, B)]
        await w.post(sleep(text="1s"), reads_state=True)
        w.script = [answer(plans), answer([step(A)]), answer([step(B)]), answer(DONE)]
        calls = await w.after(1)
        states = [memos(call) for call in calls]
        assert [call.headers.get("x-inngest-step-id") for call in calls] == [None, A, B, None]
        assert states[1] == states[2] == {Z: None, A: {"pending": True}, B: {"pending": True}}
        assert states[3] == {Z: None, A: {"data": 1}, B: {"data": 1}}


async def test_the_body_is_signed_by_itself_and_the_call_as_a_whole() -> None:
    async with world(signing_keys=(KEY,)) as w:
        w.http.headers["authorization"] = f"Bearer {KEY}"
        await w.post(sleep(text="1s"), reads_state=True)
        w.script = [answer(DONE)]
        (call,) = await w.after(1)
        body, state = brought(call)
        assert state is not None
        now = w.clock.now()
        assert verify(call.headers["x-inngest-signature"], body, [KEY], now)
        signature = call.headers[call_signatures.SIGNATURE]
        pairs = [(name.lower(), value) for name, value in call.headers.raw]
        target = call.url.raw_path.decode()
        assert verify_call(signature, [KEY], now, "POST", target, pairs, body + state)


async def test_a_rerun_reads_as_the_run_did_with_what_was_edited() -> None:
    async with world() as w:
        await w.post(step(A, userland={"id": "a"}), sleep(text="1s"), reads_state=True)
        w.script = [answer(DONE)]
        await w.after(1)
        w.script = [answer(DONE)]
        seen = len(w.calls)
        edit: dict[str, Any] = {"step_id": A, "input": [7]}
        assert (await w.http.post(f"/v1/stephttp/runs/{RUN}/rerun", json=edit)).status_code == 200
        (call,) = (await w.after(0)) or w.calls[seen:]
        assert memos(call) == {A: {"input": [7]}}
        assert names(call) == {A: ["StepRun", "a", 0, ""]}


async def test_a_run_that_is_invoked_reads_as_the_latest_of_its_endpoint() -> None:
    invoke = {
        "op": "InvokeFunction", "id": B, "name": "child",
        "opts": {"function_id": "child", "payload": {}, "timeout": "1h"},
    }  # fmt: skip
    async with world() as w:
        await w.post(sleep(text="1s"), run_id=OTHER, reads_state=True, data={"fn": "child"})
        w.script = [answer(DONE)]
        await w.after(1)
        await w.post(sleep(text="1s"), reads_state=True)
        w.script = [answer([invoke]), answer(DONE), answer(DONE)]
        calls = await w.after(1)
        child = next(call for call in calls if call.headers["x-run-id"] not in (RUN, OTHER))
        assert (memos(child), names(child)) == ({}, {})


async def test_what_an_engine_finds_due_at_its_start_may_be_under_way_still(tmp_path: Path) -> None:
    clock, path = VirtualClock(), tmp_path / "runs.db"
    async with world(clock, path) as w:
        for run_id, seconds in ((RUN, "1s"), (OTHER, "5s")):
            await w.post(sleep(text=seconds), run_id=run_id, reads_state=True)
        w.engine.executor.drain()
        clock.advance(1)
        # As a kill leaves it: the call has begun, and nothing is known of how it went.
        unit = partial(
            due.claim,
            at=w.engine.moment(),
            busy=(),
            slots=Shares(9, {}),
            gateway_slots=Shares(0, {}),
            room=Gates().look(clock.now_ms()),
            since_ms=0,
        )
        claimed = await w.engine.store.write(unit)
        assert [call.state is not None for call in claimed.calls] == [True]
    clock.advance(9)
    async with world(clock, path, [answer(DONE), answer(DONE)]) as w:
        w.engine.caller.note_process("http://app.test", "heard")
        await w.engine.idle()
        assert [call.headers["x-run-id"] for call in w.calls] == [OTHER]
        clock.advance(1)  # by then, who works on the first one asks
        await w.engine.idle()
        told = {call.headers["x-run-id"]: brought(call)[1] is not None for call in w.calls}
        assert told == {RUN: False, OTHER: True}
