"""Calls that get no answer of the handler's: broken connections, answers of something else."""

from __future__ import annotations

import json
from random import Random

import httpx2
import msgspec
import pytest

from stephttp._wire.opcodes import Op
from stephttp.engine import Settings
from stephttp.engine.model.inputs import CallFailure, FailureKind, Moment, Origin
from stephttp.engine.model.run import Run, RunStatus, Snapshot
from stephttp.engine.model.timer import RESUME, Timer, TimerKind
from stephttp.engine.rules.answers import HTTPResponse, read_answer
from stephttp.engine.rules.endings import call_failed
from stephttp.engine.rules.transitions import apply_ops

from .support import DONE, RUN, SDK, A, B, answer, complete, sleep, step, world

NOW = 1_800_000_000_000
BROKEN = CallFailure(FailureKind.BROKEN, "ReadError", "reset")
TWICE = CallFailure(FailureKind.BROKEN, "ReadError", "reset", times=2)
REFUSED = CallFailure(FailureKind.TRANSIENT, "ConnectError", "refused")
COUNTED = CallFailure(FailureKind.COUNTED, "E", "m")
NOT_FOUND = CallFailure(FailureKind.FOREIGN, "UpstreamError", "answered 404")
PAGE = CallFailure(FailureKind.FOREIGN, "UpstreamError", "answered 200")


Event = CallFailure | float
TWO_ROWS: list[Event] = [*[BROKEN] * 4, COUNTED, *[BROKEN] * 4]
WITHOUT_END: list[Event] = [REFUSED, 30.0] * 50


def meet(*failures: Event, retries: int = 0, target: str = RESUME) -> tuple[Run, int]:
    """Let calls fail one after the other; numbers are hours between them.

    Returns:
        The run as it is then, and how many of the failures it took.
    """
    kind = TimerKind.RESUME if target == RESUME else TimerKind.PLANNED
    run, timers = Run(RUN, RunStatus.ASYNC, retries=retries), {target: Timer(target, kind, NOW)}
    now, taken = NOW, 0
    for failure in failures:
        if not isinstance(failure, CallFailure):
            now += round(failure * 3_600_000)
            continue
        at = Moment(now, Random(1), Settings())
        change = call_failed(Snapshot(run, timers=timers), failure, at, target)
        run, taken = change.run, taken + 1
        if change.ended:
            break
        timers = {timer.step_id: timer for timer in change.timers}
    return run, taken


@pytest.mark.parametrize("target", [RESUME, A])
@pytest.mark.parametrize(
    ("retries", "failures", "taken"),
    [
        (0, [BROKEN] * 9, 5),
        (2, [BROKEN] * 9, 5),
        (7, [BROKEN] * 9, 8),
        # A process that died is away for a while; and may meet a proxy that says so.
        (0, [BROKEN, REFUSED, REFUSED] * 9, 13),
        (0, [BROKEN, NOT_FOUND] * 9, 9),
        # The request may have been sent twice, on a kept connection and on a new one.
        (0, [TWICE, *[BROKEN] * 9], 4),
    ],
)
def test_a_run_that_kills_its_process_ends(
    retries: int, failures: list[CallFailure], taken: int, target: str
) -> None:
    run, count = meet(*failures, retries=retries, target=target)
    assert (run.status, count) == (RunStatus.FAILED, taken)
    error = json.loads(run.error or b"")
    assert error["name"] == "BrokenCallError"
    assert error["message"].startswith(f"{max(retries, 4) + 1} calls in a row broke")
    assert error["message"].endswith("ReadError: reset")


def test_an_answer_of_the_handlers_begins_the_count_anew() -> None:
    run, _ = meet(*TWO_ROWS, retries=1)
    assert run.status is RunStatus.ASYNC


def test_calls_that_reach_nothing_are_made_without_end() -> None:
    assert meet(*WITHOUT_END)[0].status is RunStatus.ASYNC


@pytest.mark.parametrize("target", [RESUME, A])
def test_what_is_not_the_handlers_answer_is_borne_for_a_day(target: str) -> None:
    failures: list[Event] = [NOT_FOUND, 1.0, PAGE, 12.0, REFUSED, 10.9, PAGE]
    run, _ = meet(*failures, target=target)
    assert (run.status, run.last_error) == (RunStatus.ASYNC, "UpstreamError: answered 200")
    run, _ = meet(*failures, 0.1, PAGE, target=target)
    assert run.status is RunStatus.FAILED
    assert run.error == b'{"name":"UpstreamError","message":"answered 404"}'


def test_the_day_begins_anew_with_an_answer_of_the_handlers() -> None:
    assert meet(NOT_FOUND, 20.0, COUNTED, 20.0, PAGE, retries=1)[0].status is RunStatus.ASYNC


@pytest.mark.parametrize("origin", Origin)
def test_a_recorded_step_begins_the_count_anew(origin: Origin) -> None:
    timers = {
        key: Timer(key, kind, NOW, payload=b'{"broken":4}')
        for key, kind in ((RESUME, TimerKind.RESUME), (B, TimerKind.PLANNED))
    }
    timers["g"] = Timer("g", TimerKind.GATEWAY, NOW, payload=b"{}")
    snapshot = Snapshot(Run(RUN, RunStatus.ASYNC), timers=timers)
    (op,) = msgspec.json.decode(msgspec.json.encode([step(A)]), type=list[Op])
    change = apply_ops(snapshot, [op], origin, Moment(NOW, Random(1), Settings()))
    left = {**timers, **{timer.step_id: timer for timer in change.timers}}
    expected = {B: None, "g": b"{}"} | ({RESUME: None} if origin is Origin.CHECKPOINT else {})
    assert {key: left[key].payload for key in expected} == expected


@pytest.mark.parametrize(
    ("sdk", "kind"),
    [("stephttp-py:v1", FailureKind.FOREIGN), ("go:0.16.0", FailureKind.COUNTED)],
)
def test_an_sdk_can_say_that_the_handler_was_not_there(sdk: str, kind: FailureKind) -> None:
    body = b'{"error":"this application has no such route"}'
    found = read_answer(HTTPResponse(421, [("x-inngest-sdk", sdk)], body), 0)
    assert isinstance(found, CallFailure)
    assert (found.kind, found.message) == (kind, "this application has no such route")


async def test_a_handlers_own_404_is_its_answer() -> None:
    async with world() as w:
        token = (await w.post(sleep(text="1s")))["token"]
        w.script = [answer(complete({"status": 404, "headers": {}, "body": "no order"}))]
        await w.after(1)
        result = await w.output(token)
        assert (result.status_code, result.text) == (404, "no order")


async def test_an_instance_without_the_route_is_tried_again_and_shown_as_such() -> None:
    async with world() as w:
        token = (await w.post(sleep(text="1s"), retries=0))["token"]
        old = httpx2.Response(421, headers=SDK, json={"error": "no such route"})
        w.script = [old, old, old, answer(DONE)]
        calls = [len(await w.after(seconds)) for seconds in (1, 1, 2, 4)]
        assert calls == [1, 1, 1, 1]
        assert (await w.output(token)).status_code == 201
        spans = (await w.http.get(f"/v1/stephttp/runs/{RUN}")).json()["data"]["spans"]
        (unreached,) = [span for span in spans if span["kind"] == "unreached"]
        assert (unreached["error"]["name"], unreached["tries"]) == ("MisdirectedError", 3)


async def test_a_process_that_dies_in_each_call_fails_its_run() -> None:
    async with world() as w:
        token = (await w.post(sleep(text="1s"), retries=2))["token"]
        gone = httpx2.ReadError("reset by peer")
        w.script = [gone, httpx2.ConnectError("refused"), gone, gone, gone, gone]
        for seconds in (1, 1, 2, 4, 8, 16):
            assert len(await w.after(seconds)) == 1
        run = await w.run()
        assert (run["status"], run["error"]["name"]) == ("Failed", "BrokenCallError")
        assert (await w.output(token)).status_code == 500


async def test_steps_that_are_recorded_between_deaths_keep_a_run_alive() -> None:
    async with world() as w:
        await w.post(sleep(text="1s"))
        gone = httpx2.RemoteProtocolError("server disconnected")
        w.script = [gone] * 4
        for seconds in (1, 1, 2, 4):
            await w.after(seconds)
        assert (await w.report(step(B))).status_code == 200
        w.script = [gone] * 4
        for seconds in (8, 16, 30, 30):
            assert len(await w.after(seconds)) == 1
        assert (await w.run())["status"] == "Running"
        w.script = [answer(DONE)]
        await w.after(30)
        assert (await w.run())["status"] == "Completed"
