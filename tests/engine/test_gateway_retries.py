"""HTTP requests of steps that are made again: when, how often, and with what."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from stephttp.engine.outbound.in_process import InProcess

from .support import DONE, RUN, A, Reply, World, answer, new_run, sleep, world

_AI = {
    "url": "https://ai.test/v1",
    "format": "openai-chat",
    "auth_key": "k",
    "body": {"a": 1},
}


def gateway(method: str = "POST", **opts: Any) -> dict[str, Any]:
    return {"op": "Gateway", "id": A, "opts": {"url": "https://x.test/", "method": method, **opts}}


def infer(**opts: Any) -> dict[str, Any]:
    return {"op": "AIGateway", "id": A, "opts": {**_AI, **opts}}


class Service:
    """What the requests reach: it gives one reply after the other."""

    def __init__(self, w: World, *replies: Reply | int) -> None:
        self.replies = list(replies)
        self.seen: list[httpx2.Request] = []
        w.engine._gateway._sender = InProcess(httpx2.MockTransport(self._answer))

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        self.seen.append(request)
        reply = self.replies.pop(0)
        if isinstance(reply, int):
            return httpx2.Response(reply, json={"status": reply})
        assert not callable(reply)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def after(self, w: World, seconds: float) -> int:
        seen = len(self.seen)
        await w.after(seconds)
        return len(self.seen) - seen


@pytest.mark.parametrize(
    "failure",
    [
        408, 425, 429, 500, 502, 503, 599, TimeoutError(),
        httpx2.ConnectError("refused"), httpx2.ReadError("reset"),
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("op", [gateway(), infer()], ids=["fetch", "infer"])
async def test_what_is_temporary_is_tried_again(failure: Any, op: dict[str, Any]) -> None:
    async with world(script=[answer(DONE)]) as w:
        service = Service(w, failure, failure, 200)
        await w.post(op, retries=2)
        await w.engine.idle()
        assert len(service.seen) == 1
        assert [await service.after(w, seconds) for seconds in (0.5, 0.5, 1.5)] == [0, 1, 0]
        assert w.calls == []
        assert await service.after(w, 0.5) == 1
        assert (await w.run())["status"] == "Completed"


@pytest.mark.parametrize("status", [200, 204, 302, 400, 401, 404, 409, 410, 422])
async def test_other_answers_are_not(status: int) -> None:
    async with world(script=[answer([sleep(text="1h")])]) as w:
        service = Service(w, status)
        await w.post(gateway(), retries=2)
        await w.engine.idle()
        assert len(service.seen) == 1
        assert (await w.memos())[A]["data"]["status_code"] == status


async def test_the_last_answer_is_the_result() -> None:
    async with world(script=[answer([sleep(text="1h")])]) as w:
        service = Service(w, 503, 500)
        await w.post(gateway(), retries=1)
        await w.engine.idle()
        await w.after(1)
        assert (await w.memos())[A]["data"]["status_code"] == 500
        assert len(service.seen) == 2


async def test_the_last_failure_of_an_inference_is_an_error() -> None:
    async with world(script=[answer([sleep(text="1h")])]) as w:
        Service(w, httpx2.ConnectError("refused"), 429)
        await w.post(infer(), retries=1)
        await w.engine.idle()
        await w.after(1)
        assert (await w.memos())[A]["error"]["message"].endswith("status code: 429")


@pytest.mark.parametrize(
    ("of_run", "of_step", "requests"), [(2, None, 3), (2, 0, 1), (0, 3, 4), (0, None, 1)]
)
async def test_the_steps_own_number_takes_precedence(
    of_run: int, of_step: int | None, requests: int
) -> None:
    async with world(script=[answer([sleep(text="1h")])]) as w:
        service = Service(w, *[503] * 9)
        own: dict[str, Any] = {} if of_step is None else {"retries": of_step}
        await w.post(gateway(**own), retries=of_run)
        await w.engine.idle()
        for seconds in (1, 2, 4, 8):
            await w.after(seconds)
        assert len(service.seen) == requests


async def test_retry_after_sets_the_time_of_the_next_request() -> None:
    async with world(script=[answer([sleep(text="1h")])]) as w:
        service = Service(w, httpx2.Response(503, headers={"retry-after": "90"}), 200)
        await w.post(gateway(), retries=1)
        await w.engine.idle()
        assert [await service.after(w, 89), await service.after(w, 1)] == [0, 1]


@pytest.mark.parametrize(
    ("pauses", "expected"),
    [
        ({"delay": "5s", "max_delay": "8s"}, [5, 8, 8]),
        ({"delay": "2m"}, [120, 120, 120]),
        ({"delay": "0s", "max_delay": "0s"}, [1, 1, 1]),
        ({"max_delay": "1s"}, [1, 1, 1]),
    ],
)
async def test_the_step_may_say_how_long_to_rest(
    pauses: dict[str, str], expected: list[int]
) -> None:
    async with world(script=[answer(DONE)]) as w:
        service = Service(w, 503, 503, 503, 200)
        await w.post(gateway(retries=3, **pauses))
        await w.engine.idle()
        for seconds in expected:
            assert await service.after(w, seconds - 0.5) == 0
            assert await service.after(w, 0.5) == 1
        assert len(service.seen) == 4


@pytest.mark.parametrize(
    ("pauses", "reason"),
    [
        ({"delay": 5}, "opts.delay: expected text such as"),
        ({"delay": "soon"}, "opts.delay: 'soon' is not a duration"),
        ({"max_delay": "25h"}, "opts.max_delay: '25h' is more than 24 hours"),
    ],
)
async def test_pauses_that_make_no_sense_fail_their_step(
    pauses: dict[str, Any], reason: str
) -> None:
    async with world(script=[answer(DONE)]) as w:
        made = await w.http.post("/v1/checkpoint", json=new_run(gateway(**pauses)))
        assert made.status_code == 200
        await w.engine.idle()
        (failed,) = (await w.http.get(f"/v1/runs/{RUN}/steps")).json()["data"]
        assert reason in failed["error"]["message"]


@pytest.mark.parametrize(
    ("op", "key"),
    [
        (gateway(), f"{RUN}-{A}"),
        (gateway("patch"), f"{RUN}-{A}"),
        (gateway("GET"), None),
        (infer(), f"{RUN}-{A}"),
        (gateway(headers={"Idempotency-Key": "mine"}), "mine"),
    ],
)
async def test_the_key_is_the_same_each_time(op: dict[str, Any], key: str | None) -> None:
    async with world(script=[answer([sleep(text="1h")])]) as w:
        service = Service(w, 503, 200)
        await w.post(op, retries=1)
        await w.engine.idle()
        await w.after(1)
        assert [request.headers.get("idempotency-key") for request in service.seen] == [key] * 2


async def test_failed_requests_are_in_the_history() -> None:
    async with world(script=[answer(DONE)]) as w:
        Service(w, 503, httpx2.ConnectError("refused"), 200)
        await w.post(gateway(), retries=2)
        await w.engine.idle()
        await w.after(1)
        await w.after(2)
        data = (await w.http.get(f"/v1/stephttp/runs/{RUN}")).json()["data"]
        told = [span["error"]["message"] for span in data["spans"] if span["kind"] == "attempt"]
        assert told == [
            "the answer has the status 503", "Error making gateway request: refused",
        ]  # fmt: skip


async def test_a_run_that_is_cancelled_makes_no_further_request() -> None:
    async with world() as w:
        service = Service(w, 503)
        await w.post(gateway(), retries=5)
        await w.engine.idle()
        await w.http.delete(f"/v1/runs/{RUN}")
        assert await service.after(w, 60) == 0
