"""Planned steps: called for one by one, beside each other; afterwards the run goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from stephttp._wire.ids import COMPLETE
from stephttp.engine import VirtualClock
from stephttp.engine.model.call import EndpointCall
from stephttp.engine.model.inputs import CallFailure
from stephttp.engine.rules.answers import HTTPResponse as EndpointAnswer
from stephttp.engine.rules.answers import OpsAnswer, read_answer
from stephttp.engine.work.settle import settle

from .support import DONE, RUN, SDK, A, B, World, Z, answer, sleep, step, step_error, until, world

Endpoint = Callable[[httpx2.Request], Awaitable[httpx2.Response]]


def planned(id_: str, **opts: str) -> dict[str, Any]:
    return {"op": "StepPlanned", "id": id_, "name": "p", "opts": opts, "userland": {"id": "p"}}


def target(call: httpx2.Request) -> str | None:
    return call.headers.get("x-inngest-step-id")


def forced(call: httpx2.Request) -> bool:
    return call.headers.get("x-inngest-force-step-plan") == "true"


def serve(w: World, endpoint: Endpoint) -> None:
    async def counted(request: httpx2.Request) -> httpx2.Response:
        w.calls.append(request)
        return await endpoint(request)

    w.reach(httpx2.MockTransport(counted))


class Gates:
    """An endpoint whose calls wait until the test answers them, by target."""

    def __init__(self, w: World) -> None:
        self.w = w
        self.open: dict[str | None, asyncio.Future[httpx2.Response]] = {}
        serve(w, self._endpoint)

    async def _endpoint(self, request: httpx2.Request) -> httpx2.Response:
        assert target(request) not in self.open, "called twice at the same time"
        future: asyncio.Future[httpx2.Response] = asyncio.get_running_loop().create_future()
        self.open[target(request)] = future
        try:
            return await future
        finally:
            del self.open[target(request)]

    async def called(self, *targets: str | None) -> None:
        """Wait until exactly these are being called."""
        await until(lambda: self.open.keys() == set(targets))

    async def reply(self, which: str | None, response: httpx2.Response) -> None:
        """Answer the call for a step, and wait until that is stored."""
        self.open[which].set_result(response)
        await until(lambda: (RUN, which or "") not in self.w.engine.executor._calls)


async def test_planned_steps_are_called_for_beside_each_other_then_the_run_goes_on() -> None:
    async with world() as w:
        gates = Gates(w)
        token = (await w.post(planned(A), planned(B), sleep(Z, "9s"), request_version=2))["token"]
        await gates.called(A, B)
        for call in w.calls:
            assert forced(call)
            assert call.headers["x-inngest-generation-id"] == "1"
            assert call.headers["x-inngest-req-version"] == "2"
        assert len({call.headers["x-inngest-job-id"] for call in w.calls}) == 2
        await gates.reply(A, answer([step(A)]))
        assert await w.memos() == {A: {"data": 1}}
        await gates.called(B)
        await gates.reply(B, answer([step(B, 2)]))
        # One re-entry for both, and the SDK may run what comes next.
        await gates.called(None)
        assert not forced(w.calls[2])
        await gates.reply(None, answer([sleep(Z, "9s")]))
        await w.engine.idle()
        assert len(w.calls) == 3
        w.clock.advance(9)
        await gates.called(None)
        await gates.reply(None, answer(DONE))
        assert (await w.output(token)).text == "hi"
        assert len(w.calls) == 4


async def test_steps_planned_by_an_answer_are_called_for_once() -> None:
    async with world() as w:
        await w.post(sleep(text="1s"))
        plan = [planned(A), planned(B)]
        w.script = [answer(plan), answer([step(A)]), answer([step(B)]), answer(DONE)]
        assert [target(call) for call in await w.after(1)] == [None, A, B, None]
        assert (await w.run())["status"] == "Completed"


async def test_each_is_retried_on_its_own() -> None:
    async with world() as w:
        w.script = [httpx2.ConnectError("refused"), answer([step_error(B)])]
        await w.post(planned(A), planned(B), retries=1)
        await w.engine.idle()
        assert [target(call) for call in w.calls] == [A, B]
        # Both come back after a second: A uncounted, in the same generation, B as its second try.
        w.script = [answer([step(A)]), answer([step_error(B)]), answer(DONE)]
        calls = await w.after(1)
        assert [target(call) for call in calls] == [A, B, None]
        assert [c.headers["x-inngest-generation-id"] for c in calls] == ["1", "2", "1"]
        jobs = [call.headers["x-inngest-job-id"] for call in w.calls]
        assert jobs[:2] == jobs[2:4]
        steps = (await w.http.get(f"/v1/runs/{RUN}/steps")).json()["data"]
        assert [(s["status"], s["attempts"]) for s in steps] == [("Completed", 1), ("Failed", 2)]


async def test_retry_after_of_a_planned_step() -> None:
    async with world() as w:
        w.script = [answer([step_error(A)], retry_after="90")]
        await w.post(planned(A), retries=3)
        assert len(await w.after(0)) == 1
        assert await w.after(89) == []
        w.script = [answer([step(A)]), answer(DONE)]
        assert [target(call) for call in await w.after(1)] == [A, None]


async def test_a_failed_call_for_a_planned_step_uses_up_attempts_and_then_ends_the_run() -> None:
    async with world() as w:
        w.script = [answer({"message": "boom"}, 500)]
        await w.post(planned(A), retries=1)
        assert len(await w.after(0)) == 1
        w.script = [answer({"message": "boom"}, 500)]
        (second,) = await w.after(1)
        assert second.headers["x-inngest-generation-id"] == "2"
        run = await w.run()
        assert (run["status"], run["error"]["message"]) == ("Failed", "boom")


async def test_a_racing_step_is_told_of_while_the_other_still_runs() -> None:
    async with world() as w:
        gates = Gates(w)
        await w.post(planned(A, parallelMode="race"), planned(B, parallelMode="race"))
        await gates.called(A, B)
        await gates.reply(A, answer([step(A)]))
        await gates.called(B, None)
        # B runs elsewhere, so the SDK must not begin it here.
        assert forced(w.calls[-1])
        await gates.reply(None, answer(DONE))
        assert (await w.run())["status"] == "Completed"
        await gates.reply(B, answer([step(B)]))
        await w.engine.idle()
        assert len(w.calls) == 3


async def test_a_sleep_that_ends_beside_a_planned_step_is_told_of() -> None:
    async with world() as w:
        gates = Gates(w)
        await w.post(planned(A), sleep(Z, "1s"))
        await gates.called(A)
        w.clock.advance(1)
        await gates.called(A, None)
        assert forced(w.calls[-1])
        await gates.reply(None, answer([planned(A), planned(B)]))
        await gates.called(A, B)
        await gates.reply(B, answer([step(B)]))
        await gates.reply(A, answer([step(A)]))
        await gates.called(None)
        await gates.reply(None, answer(DONE))
        assert (await w.run())["status"] == "Completed"


async def test_a_step_that_ends_during_a_re_entry_leads_to_another_one() -> None:
    async with world() as w:
        gates = Gates(w)
        await w.post(planned(A), sleep(Z, "1s"), sleep(B, "1h"))
        await gates.called(A)
        w.clock.advance(1)
        await gates.called(A, None)
        await gates.reply(A, answer([step(A)]))
        # This answer knows nothing of A's end, and nothing but B would wake the run.
        await gates.reply(None, answer([planned(A), sleep(B, "1h")]))
        await gates.called(None)
        await gates.reply(None, answer(DONE))
        assert (await w.run())["status"] == "Completed"


async def test_a_failed_step_in_its_back_off_is_not_run_beside_that() -> None:
    async with world() as w:
        await w.post(step_error(A), sleep(Z, "0s"), retries=2)
        w.script = [answer([planned(A)])]
        (call,) = await w.after(0)
        assert forced(call)
        w.script = [answer([step(A)]), answer(DONE)]
        first, second = await w.after(1)
        assert (target(first), forced(first), forced(second)) == (None, False, False)


async def test_a_planned_step_that_is_answered_without_its_outcome_ends_the_run_at_last() -> None:
    async with world() as w:
        w.script = [answer([planned(A)]) for _ in range(11)]
        await w.post(planned(A))
        await w.after(3600)
        for _ in range(12):
            await w.after(60)
        run = await w.run()
        assert (run["status"], run["error"]["name"]) == ("Failed", "NoProgressError")
        assert w.script == []


async def test_an_endpoint_that_ignores_the_target_can_still_end_the_run() -> None:
    async with world() as w:
        w.script = [answer([step(B)]), answer(DONE)]
        await w.post(planned(A))
        await w.after(0)
        assert [target(call) for call in w.calls] == [A, A]
        assert (await w.run())["status"] == "Completed"


async def test_planned_calls_count_against_the_concurrency() -> None:
    async with world(concurrency=4) as w:
        gates = Gates(w)
        await w.post(planned(A), planned(B), planned(Z))
        await until(lambda: len(gates.open) == 2)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(w.calls) == 2
        done = next(iter(gates.open))
        await gates.reply(done, answer([step(str(done))]))
        await gates.called(*({A, B, Z} - {done}))


async def test_planned_steps_survive_the_engine(tmp_path: Path) -> None:
    clock, path = VirtualClock(), tmp_path / "engine.db"
    async with world(clock, path) as w:
        gates = Gates(w)
        await w.post(planned(A), planned(B))
        await gates.called(A, B)
        await gates.reply(A, answer([step(A)]))
        jobs = {target(call): call.headers["x-inngest-job-id"] for call in w.calls}
    async with world(clock, path, [answer([step(B)]), answer(DONE)]) as w:
        await w.engine.idle()
        assert [target(call) for call in w.calls] == [B, None]
        assert w.calls[0].headers["x-inngest-job-id"] == jobs[B]
        assert (await w.run())["status"] == "Completed"


async def apply(w: World, call: EndpointCall, ops: list[dict[str, Any]]) -> None:
    """Settle a call with an answer, as the executor does."""
    got = EndpointAnswer(206, list(SDK.items()), json.dumps(ops).encode())
    outcome = read_answer(got, w.clock.now_ms())
    assert isinstance(outcome, OpsAnswer | CallFailure)
    at = w.engine.moment()
    await w.engine.store.write(lambda c: settle(c, call, outcome, at.now_ms, at))


@pytest.mark.parametrize(("job", "attempt"), [("another-job", 1), (None, 0)])
async def test_stale_answers_are_ignored(job: str | None, attempt: int) -> None:
    async with world() as w:
        # A fails once, so that its next call is the second generation.
        w.script = [answer([step_error(A)])]
        await w.post(planned(A), retries=3)
        await w.engine.idle()
        mine = w.calls[0].headers["x-inngest-job-id"]
        call = EndpointCall(RUN, job or mine, attempt, 2, "", "", "", "", "", "", "", step_id=A)
        await apply(w, call, [step(A, "stale")])
        assert await w.memos() == {}
        w.script = [answer([step(A, "fresh")]), answer(DONE)]
        await w.after(1)
        assert (await w.run())["status"] == "Completed"


async def test_an_answer_for_a_step_that_was_done_elsewhere_is_ignored() -> None:
    async with world() as w:
        gates = Gates(w)
        await w.post(planned(A), sleep(Z, "1h"))
        await gates.called(A)
        assert (await w.report(step(A, "first"))).status_code == 200
        await gates.reply(A, answer([step(A, "second"), step(B)]))
        assert await w.memos() == {A: {"data": "first"}}


async def test_a_handler_that_fails_in_the_first_request_has_used_an_attempt() -> None:
    async with world() as w:
        failure = {"op": "StepError", "id": COMPLETE, "error": {}}
        token = (await w.post(step(), failure, retries=2))["token"]
        w.script = [answer({"message": "boom"}, 500), answer({"message": "boom"}, 500)]
        (first,) = await w.after(1)
        (second,) = await w.after(2)
        generations = [c.headers["x-inngest-generation-id"] for c in (first, second)]
        assert generations == ["2", "3"]
        assert (await w.output(token)).json()["error"] == {
            "name": "EndpointError",
            "message": "boom",
        }


@pytest.mark.parametrize(
    ("op", "retries"), [("StepError", 0), ("StepFailed", 3)], ids=["no attempts left", "final"]
)
async def test_a_handler_that_failed_for_good_is_not_called_again(op: str, retries: int) -> None:
    async with world() as w:
        failure = {"op": op, "id": COMPLETE, "error": {"message": "boom"}}
        token = (await w.post(failure, retries=retries))["token"]
        result = await w.output(token)
        assert (result.status_code, result.json()["error"]["message"]) == (500, "boom")
        assert w.calls == []
