"""The double of the real server does what that was seen to do: ops and answers by hand.

The outcomes were measured on the real one (docs/protocol.md 13), where the rules have the numbers
by which the tests are named.
"""

import asyncio
import json
from typing import Any

import httpx2
import pytest

from tests.realserver import RealServer
from tests.realserver.state import MAX_STEPS, Item, Op

RUN = "01M81NT13NCCP5V7EQ9MPKSWMT"


def op(kind: str, step: str, **fields: Any) -> Op:
    return {"op": kind, "id": step, **fields}


def sleep(step: str, seconds: int) -> Op:
    return op("Sleep", step, opts={"duration": f"{seconds}s"})


def ran(step: str) -> Op:
    return op("StepRun", step, data=step)


def failed(step: str) -> Op:
    return op("StepError", step, error={"name": "Error", "message": "no"})


def signal(step: str, conflict: str = "fail") -> Op:
    opts = {"signal": "s", "timeout": "1h", "conflict": conflict}
    return op("WaitForSignal", step, opts=opts)


class Hand:
    """A server whose application is the test."""

    def __init__(self, version: int = 1, retries: int = 20, *, key: str = "") -> None:
        self.server = RealServer(key=key)
        self.executor = self.server.executor
        self.version, self.retries = version, retries

    async def post(self, path: str, body: Any) -> httpx2.Response:
        request = httpx2.Request("POST", f"http://inngest.test{path}", json=body, headers={
            "authorization": f"Bearer {self.server.key}"
        })  # fmt: skip
        return await self.server.handle_async_request(request)

    async def begin(self, *ops: Op, run: str = RUN, method: str = "GET") -> None:
        data = {"domain": "http://app.test", "method": method, "path": "/", "fn": "f",
                "content_type": "", "query_params": "", "body": None}  # fmt: skip
        answer = await self.post("/v1/http/runs", {
            "run_id": run, "event": {"name": "inngest/http.request", "data": data},
            "steps": list(ops), "retries": self.retries, "request_version": self.version,
        })  # fmt: skip
        assert answer.status_code == 200

    async def steps(self, *ops: Op, run: str = RUN) -> None:
        await self.post(f"/v1/http/runs/{run}/steps", {"run_id": run, "steps": list(ops)})

    def calls(self) -> list[Item]:
        """Let time pass. Returns the calls that are made then; none if nothing is left to do."""
        while self.executor.queue:
            made = [item for item in self.server.due_next() if self.executor.due(item)]
            if made:
                return made
        return []

    def answer(self, item: Item, *ops: Op, **headers: str) -> None:
        self.result(item, list(ops), 206, **headers)

    def result(self, item: Item, body: Any, status: int, **headers: str) -> None:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        response = httpx2.Response(status, headers={"x-inngest-sdk": "x"} | names, json=body)
        self.executor.answered(self.executor.runs[item.run_id], item, response)

    @property
    def run(self) -> Any:
        return self.executor.runs[RUN]

    async def output(self) -> httpx2.Response:
        url = f"http://inngest.test/v1/http/runs/{RUN}/output?token=token-{RUN}"
        return await self.server.handle_async_request(httpx2.Request("GET", url))


@pytest.mark.parametrize(("version", "goes_on"), [(1, True), (2, False)])
@pytest.mark.parametrize("case", ["stale1", "dup1", "disc1"])
async def test_an_answer_that_lists_what_is_never_saved_hangs_at_version_2(
    case: str, version: int, goes_on: bool
) -> None:
    hand = Hand(version)
    await hand.begin(sleep("first", 1), sleep("beside", 1))
    one, other = hand.calls()  # so both are saved
    hand.answer(other, op("None", "n"))
    if case == "stale1":
        hand.answer(one, sleep("beside", 1), sleep("next", 3))
    elif case == "dup1":
        await hand.steps(ran("step"))
        hand.answer(one, ran("step"), sleep("next", 3))
    else:
        hand.answer(one, sleep("next", 3), op("DiscoveryRequest", "again"))
    waits = [item for _, _, item in hand.executor.queue if item.saves == "next"]
    assert len(waits) == 1
    made: list[Item] = []
    while calls := hand.calls():
        for item in calls:
            hand.answer(item, op("None", "n"))
        made = calls
    assert (waits[0] in made) == goes_on, "whether the end of the sleep leads to a call"


async def test_the_hang_that_was_seen_on_the_wire() -> None:
    """Replays what docs/protocol.md 13.1 shows, where the SDK declared version 2."""
    for version, ends in ((1, True), (2, False)):
        hand = Hand(version)
        await hand.begin(ran("first"), sleep("nap0", 1))
        (item,) = hand.calls()
        hand.answer(item, *(sleep(f"nap{number}", 1) for number in range(1, 10)))
        naps = hand.calls()
        await hand.steps(*(ran(f"p{number}") for number in range(8)))
        hand.answer(naps[0], sleep("nap8", 1), sleep("nap9", 1))
        assert (len(naps), hand.calls() == []) == ((9, True) if ends else (1, True))
        assert {f"nap{number}" for number in range(10)} < hand.run.memos.keys()


@pytest.mark.parametrize(("version", "made"), [(1, [1, 4]), (2, [4])])
async def test_at_version_2_branches_are_a_barrier(version: int, made: list[int]) -> None:
    hand = Hand(version)
    await hand.begin(sleep("first", 1))
    (item,) = hand.calls()
    began = hand.executor.now
    hand.answer(item, sleep("short", 1), sleep("long", 4))
    seen: list[int] = []
    while calls := hand.calls():
        seen += [int(hand.executor.now - began) for _ in calls]
    assert seen == made


async def test_parallel_mode_race_undoes_the_barrier_for_each_op() -> None:
    hand = Hand(2)
    await hand.begin(sleep("first", 1))
    (item,) = hand.calls()
    naps = [sleep("short", 1), sleep("long", 4)]
    for nap in naps:
        nap["opts"]["parallelMode"] = "race"
    hand.answer(item, *naps)
    assert [item.saves for item in hand.calls()] == [""]
    assert hand.run.pending == {"long"}


async def test_ten_naps_of_a_checkpoint_are_ten_calls_at_once() -> None:
    hand = Hand()
    await hand.begin(*(sleep(f"nap{number}", 1) for number in range(10)))
    assert len(hand.calls()) == 10


async def test_p3_a_planned_step_is_called_once_however_often_it_is_reported() -> None:
    hand = Hand()
    await hand.begin(sleep("first", 1))
    (item,) = hand.calls()
    hand.answer(item, op("StepPlanned", "a"), op("StepPlanned", "b"))
    hand.answer(item, op("StepPlanned", "a"))
    calls = hand.calls()
    assert [call.step_id for call in calls] == ["a", "b"]
    await hand.steps(ran("a"))
    hand.answer(calls[0], ran("a"))  # P10
    hand.answer(calls[1], op("StepPlanned", "a"))
    (whole,) = hand.calls()
    assert whole.step_id == ""


async def test_p4_each_planned_step_has_attempts_of_its_own() -> None:
    hand = Hand(retries=1)
    await hand.begin(sleep("first", 1))
    (item,) = hand.calls()
    hand.answer(item, op("StepPlanned", "a"), op("StepPlanned", "b"))
    one, other = hand.calls()
    hand.answer(one, failed("a"), retry_after="7")
    hand.answer(other, failed("b"), retry_after="7")
    again = [*hand.calls(), *hand.calls()]
    assert {(item.step_id, item.generation) for item in again} == {("a", 2), ("b", 2)}
    hand.answer(again[0], failed(again[0].step_id))
    assert hand.run.memos[again[0].step_id]["error"]["message"] == "no"


async def test_r3_each_failed_step_of_a_checkpoint_costs_an_attempt() -> None:
    hand = Hand(retries=1)
    await hand.begin(failed("a"), failed("b"))
    assert list(hand.run.memos) == ["b"], "the second one was the last attempt"


async def test_p11_an_empty_answer_stalls_and_none_is_nothing() -> None:
    hand = Hand()
    await hand.begin(sleep("first", 1))
    (item,) = hand.calls()
    hand.answer(item)
    assert hand.calls() == [], "the call named after the sleep was made"
    await hand.steps(ran("step"))
    hand.answer(item, op("None", "id"))
    assert hand.calls() == []
    hand.answer(item)
    assert len(hand.calls()) == 1, "there was none of this name"


async def test_p2a_a_wait_for_an_event_is_applied_before_the_steps_of_its_checkpoint() -> None:
    hand = Hand()
    seen: list[int] = []

    async def event_comes(run: Any) -> None:
        if run.pauses:
            hand.executor.send_event("go")
            seen.append(len(run.memos))

    hand.executor.between_ops = event_comes
    wait = op("WaitForEvent", "w", opts={"event": "go", "timeout": "1h"})
    await hand.begin(*(ran(f"s{number}") for number in range(5)), wait)
    assert seen == [1], "the wait has ended, and no step is saved"
    assert len(hand.calls()) == 1
    await asyncio.sleep(0)
    assert hand.calls() == [], "its timeout does nothing"


async def test_s1_a_signal_that_is_taken_fails_a_run_by_answer_and_leaves_it_by_checkpoint() -> (
    None
):
    other = "01M81NT13NCCP5V7EQ9MPKSWMV"
    hand = Hand()
    await hand.begin(signal("theirs"), run=other)
    await hand.begin(sleep("nap", 1), signal("ours"))
    assert hand.run.status == "Running"
    (item,) = hand.calls()
    hand.answer(item, signal("ours"))
    assert hand.run.status == "Failed"
    answer = await hand.output()
    assert (answer.status_code, answer.json()["error"]["name"]) == (200, "Error")
    assert hand.executor.send_signal("s") == other


async def test_s1_a_signal_is_taken_over_where_that_is_asked_for() -> None:
    hand = Hand()
    await hand.begin(signal("theirs"), run="01M81NT13NCCP5V7EQ9MPKSWMV")
    await hand.begin(signal("ours", "replace"))
    assert hand.executor.send_signal("s", 1) == RUN
    assert hand.run.memos == {"ours": {"data": {"signal": "s", "data": 1}}}


@pytest.mark.parametrize(("key", "memos"), [("", ["g"]), ("ab" * 16, [])])
async def test_s2_a_gateway_in_a_checkpoint_fails_or_hangs(key: str, memos: list[str]) -> None:
    hand = Hand(key=key)
    gateway = op("Gateway", "g", opts={"url": "http://127.0.0.1/"})
    await hand.begin(gateway)
    assert (list(hand.run.memos), hand.executor.fetched) == (memos, [])
    assert len(hand.calls()) == len(memos)
    hand = Hand(key=key)
    await hand.begin(sleep("nap", 1))
    (item,) = hand.calls()
    hand.answer(item, gateway)
    hand.answer(item, gateway)
    assert hand.executor.fetched == ["g", "g"], "carried out each time"
    assert len(hand.calls()) == 1


async def test_retries_and_method_belong_to_the_function() -> None:
    hand = Hand(retries=0)
    await hand.begin(sleep("nap", 1))
    hand.retries = 2
    await hand.begin(sleep("nap", 9), run="01M81NT13NCCP5V7EQ9MPKSWMV", method="HEAD")
    assert (hand.run.function.config.retries, hand.run.function.config.method) == (2, "HEAD")
    hand.retries = 0
    await hand.begin(sleep("nap", 9), run="01M81NT13NCCP5V7EQ9MPKSWMW")
    assert hand.run.function.config.method == "HEAD", "compared with the first one only"


@pytest.mark.parametrize("status", [206, 400, 500])
async def test_r4_a_result_without_retry_is_faithful_and_the_record_says_failed(
    status: int,
) -> None:
    hand = Hand()
    await hand.begin(sleep("nap", 1))
    (item,) = hand.calls()
    data = {"status": 503, "headers": {"x-own": "yes"}, "body": "away"}
    result = op("RunComplete", "c", data=data)
    hand.result(item, result, status, x_inngest_no_retry="true")
    answer = await hand.output()
    assert (hand.run.status, answer.status_code, answer.text) == ("Failed", 503, "away")
    assert answer.headers["x-own"] == "yes"


async def test_r5_a_failed_result_whose_attempts_are_used_up_never_ends() -> None:
    hand = Hand(retries=0)
    await hand.begin(sleep("nap", 1))
    (item,) = hand.calls()
    hand.result(item, op("RunComplete", "c", data={}), 500, x_inngest_no_retry="false")
    assert (hand.calls(), hand.run.status) == ([], "Running")


async def test_limits() -> None:
    hand = Hand()
    await hand.begin(*(ran(f"s{number}") for number in range(MAX_STEPS)), sleep("nap", 1))
    assert hand.run.status == "Running"
    hand = Hand()
    await hand.begin(*(ran(f"s{number}") for number in range(MAX_STEPS + 1)), sleep("nap", 1))
    assert hand.run.status == "Failed"
    assert "too many steps" in (await hand.output()).text


async def test_p13_and_o1_what_is_seen_in_the_instant_of_an_end() -> None:
    hand = Hand()
    await hand.begin(op("RunComplete", "c", data={"status": 200, "headers": {}, "body": "ok"}))
    url = f"http://inngest.test/v0/runs/{RUN}/actions"
    hand.server.settings.forgets_first = iter([True, False]).__next__
    hand.server.settings.empty_outputs = 1
    first, second = [
        await hand.server.handle_async_request(httpx2.Request("GET", url)) for _ in range(2)
    ]
    assert (first.status_code, first.json(), second.status_code) == (200, {}, 410)
    assert [(await hand.output()).text for _ in range(2)] == ["", "ok"]
    url = f"http://inngest.test/v1/runs/{RUN}"
    found = await hand.server.handle_async_request(httpx2.Request("GET", url))
    assert json.loads(found.content)["data"]["status"] == "Completed"
