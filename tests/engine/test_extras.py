"""What the engine adds to the protocol: batches, leases, idempotency keys."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.engine.support import (
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
    until,
    world,
)

LEASE = 3_000
THIRD = "01M81KWY4BC292NS2P7Q9MNAN8"


async def batch(w: World, *items: Any) -> list[dict[str, Any]]:
    response = await w.http.post("/v1/checkpoint/batch", json=list(items))
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["data"]["items"]
    return found


async def statuses(w: World, *items: Any) -> list[int]:
    return [item["status"] for item in await batch(w, *items)]


async def timers(w: World) -> list[tuple[str, str, str]]:
    rows = await w.engine.store.read(
        lambda c: c.execute("SELECT run_id, step_id, kind FROM timers").fetchall()
    )
    return list(rows)


def report(*steps: Any, run_id: str = RUN, **more: Any) -> dict[str, Any]:
    return {"run_id": run_id, "steps": list(steps), **more}


# --- batches


async def test_a_batch_holds_runs_and_further_steps_in_any_mixture() -> None:
    async with world() as w:
        items = (
            new_run(step(A)),
            report(step(B, 2)),
            new_run(step(A), DONE, run_id=OTHER),
            report(DONE),
        )
        assert await statuses(w, *items) == [200] * 4
        assert (await w.run())["status"] == "Completed"
        assert (await w.run(OTHER))["status"] == "Completed"
        memos = await w.engine.store.read(
            lambda c: c.execute("SELECT memo FROM steps WHERE run_id = ?", (RUN,)).fetchall()
        )
        assert sorted(memos) == [(b'{"data":1}',), (b'{"data":2}',)]
        # All of it again, because the answer was lost on the way.
        assert await statuses(w, *items) == [200] * 4


BAD = [
    (new_run(run_id="no"), 400, "run_id: 'no' is not a ULID"),
    (new_run({"op": "StepRun", "id": ""}, run_id=OTHER), 400, "steps[0].id: must not be empty"),
    (new_run({"op": "Nonsense", "id": "x"}, run_id=OTHER), 400, "steps[0].op"),
    (report(step(), run_id=OTHER), 404, f"there is no run {OTHER}"),
    (report({"op": "StepFailed", "id": "x"}), 400, "steps[0].error"),
    ({"steps": []}, 400, "run_id"),
    (5, 400, "Expected `object`"),
    (new_run(run_id=OTHER, lease=999), 400, "lease: Expected `int` >= 1000"),
    (new_run(run_id=OTHER, lease=60_001), 400, "lease: Expected `int` <= 60000"),
    (new_run(run_id=RUN, retries=7), 409, f"there is already another run {RUN}"),
]


@pytest.mark.parametrize(("bad", "status", "message"), BAD)
async def test_a_bad_item_is_refused_by_itself(bad: Any, status: int, message: str) -> None:
    async with world() as w:
        before, told, after = await batch(w, new_run(), bad, new_run(DONE, run_id=THIRD))
        assert (before["status"], after["status"]) == (200, 200)
        assert told["status"] == status
        assert message in told["error"]
        assert (await w.run(THIRD))["status"] == "Completed"
        assert (await w.http.get(f"/v1/runs/{OTHER}")).status_code == 404


@pytest.mark.parametrize("body", [b"", b"{}", b"[", b"[{]", b'["\xff"]'])
async def test_a_batch_that_is_no_array_is_refused_as_a_whole(body: bytes) -> None:
    async with world() as w:
        response = await w.http.post("/v1/checkpoint/batch", content=body)
        assert response.status_code == 400
        assert response.json()["error"].startswith("body: ")


async def test_a_batch_has_limits() -> None:
    async with world(max_body=10_000) as w:
        response = await w.http.post("/v1/checkpoint/batch", json=[{}] * 1001)
        assert (response.status_code, "1001 items" in response.text) == (413, True)
        response = await w.http.post("/v1/checkpoint/batch", content=b" " * 10_001)
        assert response.status_code == 413
        assert await batch(w) == []


async def test_a_batch_is_one_transaction_with_a_statement_a_table(tmp_path: Path) -> None:
    async with world(path=tmp_path / "db") as w:
        said: list[str] = []
        await w.engine.idle()
        await w.engine.store.write(lambda c: c.set_trace_callback(said.append))
        said.clear()
        runs = [new_run(step(A), DONE, run_id=RUN[:-2] + f"{n:02}") for n in range(20)]
        assert await statuses(w, *runs) == [200] * 20
        assert said.count("COMMIT") == 1
        assert sum(text.startswith("SELECT") for text in said) == 1
        assert sum(text.startswith("INSERT INTO runs") for text in said) == 2  # of 16 rows and 4


async def test_a_run_that_must_wait_goes_on_out_of_a_batch() -> None:
    async with world() as w:
        w.script = [answer(DONE)]
        assert await statuses(w, new_run(sleep(text="5s"))) == [200]
        assert len(await w.after(5)) == 1
        assert (await w.run())["status"] == "Completed"


# --- leases


async def test_a_lease_that_is_not_renewed_ends_in_a_takeover() -> None:
    async with world() as w:
        assert await statuses(w, new_run(step(A), lease=LEASE)) == [200]
        assert await timers(w) == [(RUN, "@lease", "lease")]
        assert await w.after(LEASE / 1000) == []  # the respite
        assert await timers(w) == [(RUN, "@lease", "orphan")]
        w.script = [answer(DONE)]
        (call,) = await w.after(1)
        assert call.headers["x-run-id"] == RUN
        assert (await w.run())["status"] == "Completed"
        assert await timers(w) == []


async def renew(w: World, *run_ids: str, lease: int = LEASE) -> Any:
    response = await w.http.post("/v1/leases/renew", json={"runs": run_ids, "lease": lease})
    assert response.status_code == 200, response.text
    return response.json()["data"]["lost"]


async def test_renewed_leases_are_never_taken_over() -> None:
    async with world() as w:
        await statuses(w, new_run(lease=LEASE), new_run(run_id=OTHER, lease=LEASE))
        for _ in range(20):
            assert await w.after(LEASE / 1000 - 0.1) == []
            assert await renew(w, RUN, OTHER) == []
        assert await w.after(LEASE / 1000 + 0.5) == []
        assert await renew(w, RUN) == [], "in the respite it is not too late"
        w.script = [answer(DONE)]
        (call,) = await w.after(1)
        assert call.headers["x-run-id"] == OTHER
        assert await renew(w, RUN, OTHER, THIRD) == [OTHER, THIRD]


async def test_every_sign_of_life_renews_and_a_shorter_one_takes_nothing_away() -> None:
    async with world() as w:
        await statuses(w, new_run(lease=LEASE))
        await w.after(2)
        assert await statuses(w, report(step(A), lease=LEASE)) == [200]
        assert await w.after(2.5) == []
        assert await renew(w, RUN, lease=60_000) == []
        assert await renew(w, RUN, lease=1_000) == []
        assert await w.after(59) == []


@pytest.mark.parametrize("last", [DONE, sleep(text="1h")])
async def test_a_lease_ends_with_the_first_phase(last: Any) -> None:
    async with world() as w:
        await statuses(w, new_run(lease=LEASE), report(last, lease=LEASE))
        assert [row for row in await timers(w) if row[1] == "@lease"] == []
        assert await w.after(100) == []


async def test_an_opening_with_a_lease_is_an_update_of_the_run_if_it_is_there() -> None:
    async with world() as w:
        await statuses(w, new_run(step(A), lease=LEASE))
        # As when the run goes async: everything that is not confirmed is sent again.
        response = await w.http.post(
            "/v1/http/runs", json=new_run(step(A, 9), step(B), sleep(), lease=LEASE)
        )
        assert response.json()["data"]["token"]
        assert await w.memos() == {A: {"data": 1}, B: {"data": 1}}


async def test_after_a_takeover_the_first_output_wins_and_the_first_process_is_told() -> None:
    async with world() as w:
        await statuses(w, new_run(step(A), lease=LEASE))
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def hold(request: httpx2.Request) -> httpx2.Response:
            taken.set_result(None)
            return answer([step(B, "second"), sleep(text="1h")])

        w.script = [hold]
        await w.after(LEASE / 1000)
        await w.after(1)
        assert taken.done()
        assert await statuses(w, report(step(A, "x"), step(B, "x"), lease=LEASE)) == [409]
        alone = await w.http.post(f"/v1/http/runs/{RUN}/steps", json=report(lease=LEASE))
        assert alone.status_code == 409
        new = {"op": "DiscoveryRequest", "id": "again"}
        assert await statuses(w, report(step("c" * 40, "late"), new, lease=LEASE)) == [409]
        assert await w.memos() == {
            A: {"data": 1},
            B: {"data": "second"},
            "c" * 40: {"data": "late"},
        }
        assert await w.after(0) == [], "being asked to go on is no news"
        # Its result is a result: the run ends with the first.
        assert await statuses(w, report(complete(1), lease=LEASE)) == [409]
        assert (await w.run())["status"] == "Completed"
        assert await statuses(w, report(complete(1), lease=LEASE)) == [200], "a repetition"
        assert await statuses(w, report(complete(2), lease=LEASE)) == [409]


async def test_a_restarted_engine_gives_every_process_time_to_be_heard(tmp_path: Path) -> None:
    path = tmp_path / "db"
    async with world(path=path) as w:
        clock = w.clock
        await statuses(w, new_run(lease=LEASE))
    clock.advance(1000)
    async with world(clock, path) as w:
        assert await w.after(59.9) == []
        assert await renew(w, RUN) == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"runs": ["x"], "lease": LEASE}, "runs[0]: 'x' is not a ULID"),
        ({"runs": [RUN], "lease": 1}, "lease: "),
        ({"runs": [RUN]}, "missing required field `lease`"),
        ({"runs": RUN, "lease": LEASE}, "runs: "),
    ],
)
async def test_a_renewal_names_what_is_wrong(body: Any, message: str) -> None:
    async with world() as w:
        response = await w.http.post("/v1/leases/renew", json=body)
        assert (response.status_code, message in response.json()["error"]) == (400, True)


# --- idempotency


def claim(run_id: str = RUN, **more: str) -> dict[str, Any]:
    wish = {"scope": "app", "key": "k", "request": "r", **more}
    return new_run(step(A), run_id=run_id, lease=LEASE, claim=wish)


async def claimed(w: World, body: dict[str, Any]) -> str:
    response = await w.http.post("/v1/http/runs", json=body)
    assert response.status_code == 200, response.text
    run_id: str = response.json()["data"]["run_id"]
    return run_id


async def test_a_key_names_one_run() -> None:
    async with world() as w:
        assert await claimed(w, claim()) == RUN
        assert await claimed(w, claim()) == RUN, "its own repetition"
        assert await claimed(w, claim(OTHER)) == RUN
        assert (await w.http.get(f"/v1/runs/{OTHER}")).status_code == 404
        assert await claimed(w, claim(OTHER, scope="another")) == OTHER
        assert await claimed(w, claim(THIRD, key="another")) == THIRD


async def test_a_key_with_another_request_is_refused_and_nothing_is_stored() -> None:
    async with world() as w:
        await claimed(w, claim())
        response = await w.http.post("/v1/http/runs", json=claim(OTHER, request="another"))
        assert response.status_code == 422
        assert response.json()["error"].startswith("claim.request: ")
        assert (await w.http.get(f"/v1/runs/{OTHER}")).status_code == 404


async def test_a_key_expires_after_a_day() -> None:
    async with world() as w:
        await claimed(w, claim())
        await statuses(w, report(DONE, lease=LEASE))
        await w.after(86_399)
        assert await claimed(w, claim(OTHER)) == RUN
        await w.after(1)
        assert await claimed(w, claim(OTHER)) == OTHER


async def test_a_further_key_that_has_a_run_keeps_it() -> None:
    async with world() as w:
        await claimed(w, claim())
        named = [{"scope": "app", "key": key, "request": "r"} for key in ("k", "new")]
        done = {**DONE, "opts": {"keys": named}}
        await statuses(w, new_run(done, run_id=OTHER))
        assert await claimed(w, claim(THIRD)) == RUN
        assert await claimed(w, claim(THIRD, key="new")) == OTHER


async def test_a_refused_opening_leaves_the_key_free() -> None:
    async with world() as w:
        bad = {**claim(), "steps": [{"op": "StepRun", "id": ""}]}
        assert (await w.http.post("/v1/http/runs", json=bad)).status_code == 400
        assert await claimed(w, claim(OTHER)) == OTHER


async def test_a_claim_needs_a_lease_and_a_call_of_its_own() -> None:
    async with world() as w:
        without = {**claim(), "lease": None}
        response = await w.http.post("/v1/http/runs", json=without)
        assert (response.status_code, response.json()["error"][:6]) == (400, "lease:")
        assert await statuses(w, claim()) == [400]
        empty = await w.http.post("/v1/http/runs", json=claim(key=""))
        assert (empty.status_code, empty.json()["error"][:9]) == (400, "claim.key")


async def outcome(w: World, wait: str = "0") -> Any:
    response = await w.http.get(f"/v1/runs/{RUN}/outcome?wait={wait}")
    assert response.status_code == 200, response.text
    return response.json()["data"]


async def test_the_outcome_of_the_first_phase_is_waited_for() -> None:
    async with world() as w:
        await claimed(w, claim())
        assert await outcome(w) == {"state": "sync"}
        asked = asyncio.ensure_future(outcome(w, "10"))
        await asyncio.sleep(0)
        await statuses(w, report(DONE, lease=LEASE))
        told = await asked
        assert (told["state"], told["status"], told["body"]) == ("ended", 201, "aGk=")
        assert told["headers"] == [["x-a", "b"]]


async def test_the_outcome_may_be_that_the_run_went_async() -> None:
    async with world() as w:
        await claimed(w, claim())
        asked = asyncio.ensure_future(outcome(w, "10"))
        await asyncio.sleep(0)
        await statuses(w, report(sleep(text="1m"), lease=LEASE))
        told = await asked
        assert told["state"] == "async"
        w.script = [answer(DONE)]
        await w.after(60)
        assert (await w.output(told["token"])).text == "hi"


async def test_waiting_for_an_outcome_ends_and_nonsense_is_refused() -> None:
    async with world() as w:
        await claimed(w, claim())
        asked = asyncio.ensure_future(outcome(w, "2"))
        await until(lambda: len(w.engine.waiters))
        w.clock.advance(2)
        assert await asked == {"state": "sync"}
        assert (await w.http.get(f"/v1/runs/{OTHER}/outcome")).status_code == 404
        refused = await w.http.get(f"/v1/runs/{RUN}/outcome?wait=x")
        assert (refused.status_code, refused.json()["error"][:5]) == (400, "wait:")


async def test_a_claimed_run_whose_process_died_is_finished_by_another() -> None:
    async with world() as w:
        await claimed(w, claim())
        asked = asyncio.ensure_future(outcome(w, "20"))
        await asyncio.sleep(0)
        w.script = [answer(DONE)]
        await w.after(LEASE / 1000)
        await w.after(1)
        assert (await asked)["state"] in ("async", "ended")
        assert (await outcome(w))["status"] == 201


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/checkpoint/batch"),
        ("POST", "/v1/leases/renew"),
        ("GET", f"/v1/runs/{RUN}/outcome"),
    ],
)
async def test_the_extras_need_the_signing_key(method: str, path: str) -> None:
    async with world(signing_keys=(KEY,)) as w:
        assert (await w.http.request(method, path)).status_code == 401
        headers = {"authorization": f"Bearer {KEY}"}
        assert (await w.http.request(method, path, headers=headers)).status_code in (400, 404)
