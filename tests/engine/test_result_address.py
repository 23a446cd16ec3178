"""The address of a result, for callers of runs of our SDK: held, sent around, asked to return."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from .support import DONE, KEY, RUN, World, answer, new_run, sleep, step, until, world

OURS = {"x-inngest-sdk": "stephttp-py:v1"}


async def began(w: World, *ops: dict[str, Any], **headers: str) -> str:
    """Make a run of our SDK; return the address of its result."""
    made = await w.http.post("/v1/http/runs", json=new_run(*ops), headers={**OURS, **headers})
    assert made.status_code == 200, made.text
    return f"/v1/http/runs/{RUN}/output?token={made.json()['data']['token']}"


async def is_held(w: World) -> None:
    """Wait until one caller is held, with a time at which that ends."""
    await until(lambda: len(w.engine.waiters) == 1 and w.clock._waiting)


async def held(w: World, address: str, seconds: float, **headers: str) -> httpx2.Response:
    """Ask, and be held for so many seconds exactly."""
    asked = asyncio.create_task(w.http.get(address, headers=headers))
    await is_held(w)
    w.clock.advance(seconds - 0.001)
    await asyncio.sleep(0)
    assert not asked.done()
    w.clock.advance(0.001)
    return await asked


def next_of(response: httpx2.Response) -> str:
    return str(response.url.join(response.headers["location"]))


@pytest.mark.parametrize("hold", [50, 2])
async def test_a_caller_is_sent_around_twelve_times_and_then_asked_to_return(hold: int) -> None:
    settings: dict[str, Any] = {} if hold == 50 else {"hold": float(hold)}
    async with world(**settings) as w:
        address = start = await began(w, step())
        for turn in range(1, 13):
            response = await held(w, address, hold)
            assert response.status_code == 303
            assert response.headers["x-stephttp-result"] == "pending"
            assert response.headers["cache-control"] == "no-store"
            assert response.headers["access-control-allow-origin"] == "*"
            address = next_of(response)
            assert address.endswith(f"{start}&turn={turn}")
            body = response.json()
            assert body["run_id"] == RUN
            assert (body["status"], body["result_url"]) == ("running", response.headers["location"])
        last = await held(w, address, hold)
        assert (last.status_code, last.headers["retry-after"]) == (202, "2")
        assert next_of(last).endswith(start), "the count begins anew"
        assert "in 2 s" in last.json()["message"]
        await w.http.post(f"/v1/http/runs/{RUN}/steps", json={"steps": [DONE]})
        final = await w.http.get(next_of(last))
        assert (final.status_code, final.text) == (201, "hi")
        assert final.headers["x-stephttp-result"] == "final"


async def test_a_caller_may_say_how_long_it_waits() -> None:
    async with world() as w:
        address = await began(w, step())
        for seconds in (3, 100):
            response = await held(w, address, seconds, prefer=f"wait={seconds}")
            assert response.status_code == 202
            assert response.headers["preference-applied"] == f"wait={seconds}"
            assert next_of(response).endswith(address)
        at_once = await w.http.get(address, headers={"prefer": "wait=0"})
        assert at_once.status_code == 202


async def test_callers_get_the_answer_as_soon_as_the_run_ends() -> None:
    async with world() as w:
        address = await began(w, sleep())
        asked = [asyncio.create_task(w.http.request(method, address)) for method in ("GET", "POST")]
        await until(lambda: len(w.engine.waiters) == 2)
        w.script = [answer(DONE)]
        w.clock.advance(5)
        assert {((await one).status_code, (await one).text) for one in asked} == {(201, "hi")}


async def test_an_engine_that_stops_sends_its_callers_to_the_same_address() -> None:
    async with world() as w:
        address = await began(w, step())
        asked = asyncio.create_task(w.http.get(address))
        await is_held(w)
        w.engine.drain()
        response = await asked
        assert (response.status_code, response.headers["x-stephttp-result"]) == (303, "stopping")
        assert next_of(response).endswith("turn=1")


async def test_a_mark_of_the_handler_is_not_passed_on() -> None:
    done = {**DONE, "data": {"status": 200, "headers": {"X-Stephttp-Result": "no"}, "body": ""}}
    async with world() as w:
        response = await w.http.get(await began(w, step(), done))
        assert response.headers.get_list("x-stephttp-result") == ["final"]


@pytest.mark.parametrize("ended", [False, True])
async def test_the_link_is_good_as_long_as_the_run_is_stored(ended: bool) -> None:
    async with world() as w:
        address = await began(w, step(), *([DONE] if ended else []))
        w.clock.advance(300 * 86_400)
        response = await w.http.get(address, headers={"prefer": "wait=0"})
        assert response.status_code == (201 if ended else 202)


async def test_the_link_may_be_bounded() -> None:
    async with world(link_lifetime=60) as w:
        address = await began(w, step(), DONE)
        w.clock.advance(59)
        assert (await w.http.get(address)).status_code == 201
        w.clock.advance(1)
        over = await w.http.get(address)
        assert (over.status_code, over.headers["x-stephttp-result"]) == (410, "gone")
        assert "60 s" in over.json()["error"]


async def test_a_token_may_come_in_a_header_and_then_stays_there() -> None:
    async with world() as w:
        path, _, token = (await began(w, step())).partition("?token=")
        headers = {"authorization": f"Bearer {token}"}
        response = await held(w, path, 50, **headers)
        assert response.headers["location"] == "output?turn=1"
        assert (await w.http.get(path)).status_code == 401


async def test_an_application_asks_for_all_its_callers() -> None:
    async with world(signing_keys=(KEY,), rate_limit=1.0, rate_burst=2) as w:
        key = {"authorization": f"Bearer {KEY}"}
        address = await began(w, step(), DONE, **key)
        for _ in range(5):
            assert (await w.http.get(address, headers=key)).status_code == 201
        wrong = {"authorization": "Bearer " + "0" * 32}
        assert [(await w.http.get(address, headers=wrong)).status_code for _ in range(3)] == [
            201,
            201,
            429,
        ]
        path = address.partition("?")[0]
        assert (await w.http.get(path, headers=key)).status_code == 401, "the key opens no result"
