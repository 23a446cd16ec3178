"""Workloads that get to boundaries; `scenarios` says which.

Each does what users of a bench do, with patience, and looks at what they would see. What is true
of all of them (`Bench.broken`) is not looked at here.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing

from stephttp._wire import stream_frames
from stephttp._wire.ids import ulid
from stephttp.engine.store import database
from stephttp.engine.work import stream_parts
from stephttp.engine.work.backlog import MOST_AT_ONCE
from tests.faults.boundaries.bench import EVENT_KEY, PASSWORD, Bench

RUN = {"kind": "run"}
NAP = {"kind": "sleep", "ms": 30}


async def naps(bench: Bench) -> None:
    """A run that waits, with an idempotency key."""
    await bench.order(RUN, NAP, RUN)


async def naps_unkeyed(bench: Bench) -> None:
    await bench.order(RUN, NAP, RUN, key=False)


async def within_limits(bench: Bench) -> None:
    """Runs of an endpoint that refuses requests over its limits: they are opened first."""
    await bench.order(RUN, NAP, RUN, key=False, path="/limited")
    await bench.order(RUN, key=False, path="/limited")


async def alone(bench: Bench) -> None:
    """A run that never waits, reported when its caller has long been answered."""
    await reported_later(bench, 1)


async def many(bench: Bench) -> None:
    """Many such runs: the engine hears of them together."""
    await reported_later(bench, 12)


async def reported_later(bench: Bench, count: int) -> None:
    await bench.order(RUN)  # the process gets to know its engine
    lives = bench.app.lives
    labels = [bench.label() for _ in range(count)]
    await asyncio.gather(
        *(bench.order(RUN, mode="performant", key=False, label=one) for one in labels)
    )
    entries = [one for one in bench.ledger.entries() if one.get("label") in labels]
    wanted = {one["run"] for one in entries if one["kind"] == "call"}

    async def known() -> bool:
        # Only what was in the memory of a process may be gone, and only with it.
        ended = {run["run_id"] for run in await bench.runs("completed")}
        return wanted <= ended or bench.app.lives > lives or bench.has_died

    await eventually(known, "a run is missing")


async def one_by_one(bench: Bench) -> None:
    """A run that is reported after each step."""
    await bench.order(RUN, {"kind": "run", "ms": 30}, RUN, mode="safe")


async def long_step(bench: Bench) -> None:
    """A step that outlives its lease, which has to be renewed."""
    await bench.order({"kind": "run", "ms": 2500}, mode="safe")


async def reported_in_a_reentry(bench: Bench) -> None:
    await bench.order(NAP, RUN, {"kind": "run", "ms": 30}, RUN, mode="safe")


async def moved(bench: Bench) -> None:
    """The process of the first call is gone when the run continues."""
    label = bench.label()
    order = asyncio.create_task(
        bench.order(RUN, {"kind": "event", "name": label}, RUN, label=label)
    )
    await bench.waiting(label)
    await eventually(lambda: bench.was_accepted(label), f"{label} is not accepted")
    await new_process(bench)
    await send_event(bench, label)
    await order


async def fresh_process(bench: Bench) -> None:
    """The first request to a process that knows nothing of the engine yet has a key."""
    await new_process(bench)
    await naps(bench)


async def new_process(bench: Bench) -> None:
    """Kill the application, and wait for its next life."""
    bench.app.kill()
    await bench.until(bench.app_url + "/up")


async def large(bench: Bench) -> None:
    """A body that not every server reads, in a process that does not know its server yet."""
    await new_process(bench)
    await bench.order(RUN, NAP, RUN, key=False, more="x" * 4_500_000)
    # The first may have been lost with its process.
    await bench.order(RUN, NAP, RUN, more="x" * 4_500_000)


async def pushes(bench: Bench) -> None:
    """A run that pushes to its followers, in and outside of steps: each counts once."""
    await new_process(bench)
    label, loud = bench.label(), {"kind": "run", "pushes": True}
    # The first to wait asks what the engine can do, unless a key had to be claimed before.
    await bench.order({"kind": "push"}, loud, NAP, key=False)
    await bench.order({"kind": "push"}, loud, NAP, {"kind": "push"}, loud, label=label)
    outside: list[str] = []
    steps: dict[str, list[str]] = {}
    with closing(database.connect_read_only(str(bench.database))) as connection:
        part = stream_parts.read(connection, bench.run_of(label), 0)
    for _, frame in part.frames:
        if frame.event == stream_frames.ROLLBACK:
            steps.pop(frame.step, None)
        elif frame.event == stream_frames.STREAM:
            (steps.setdefault(frame.step, []) if frame.step else outside).append(frame.data)
    assert outside == ['"0"', '"3"'], outside
    assert sorted(steps.values()) == [['"in 1"'], ['"in 4"']], steps


async def prefers_to_wait(bench: Bench) -> None:
    await bench.order(RUN, NAP, RUN, headers={"prefer": "wait=10"})


async def event(bench: Bench) -> None:
    label = bench.label()
    order = asyncio.create_task(bench.order(RUN, {"kind": "event", "name": label}, label=label))
    await bench.waiting(label)
    await send_event(bench, label)
    await order


async def send_event(bench: Bench, name: str) -> None:
    url = f"{bench.engine_url}/e/{EVENT_KEY}"
    answer = await bench.until(url, "POST", json={"name": name, "id": name, "data": {}})
    assert answer.status_code == 200, answer.text


async def event_of_a_step(bench: Bench) -> None:
    """A step of one run sends what another one waits for."""
    label = bench.label()
    order = asyncio.create_task(bench.order({"kind": "event", "name": label}, label=label))
    await bench.waiting(label)
    await bench.order(RUN, {"kind": "send", "name": label}, NAP, RUN)
    await order


async def crowd(bench: Bench) -> None:
    """An event with more waits than one transaction looks at."""
    label = bench.label()
    part = {"kind": "crowd", "name": label, "size": 120}
    order = asyncio.create_task(bench.order(part, RUN, label=label))
    await bench.waiting(label)
    await send_event(bench, label)
    await order


async def functions(bench: Bench) -> None:
    """Apps register functions, asked and unasked; events and callers start these; one is paused
    for a while, and goes."""
    label, url = bench.label(), f"{bench.app_url}/functions/store"
    await register_store(bench)

    async def both() -> bool:
        names = [f"/v1/apps/{name}/functions" for name in ("shop", "store")]
        return all([(await bench.manage("GET", name)).status_code == 200 for name in names])

    await eventually(both, "an app has not registered")
    event = {"name": "shop/paid", "data": {"label": label}}
    started = await bench.until(f"{bench.engine_url}/e/{EVENT_KEY}", "POST", json=event)
    headers = {"authorization": f"Bearer {EVENT_KEY}"}
    invoked = await bench.until(
        f"{bench.engine_url}/invoke/store-pack", "POST", json=event, headers=headers
    )
    for event_id in (started.json()["ids"][0], invoked.json()["id"]):
        await function_ended(bench, event_id)
    for what, paused in (("pause", True), ("resume", False)):
        changed = await bench.manage("POST", f"/v1/stephttp/functions/store-pack/{what}")
        assert changed.json()["data"]["paused"] is paused
        views = (await bench.manage("GET", "/v1/apps/store/functions")).json()
        (view,) = [one for one in views if one["slug"] == "store-pack"]
        assert view.get("paused", False) is paused
    # 404: it was received, but the answer was lost.
    removed = await bench.manage("DELETE", "/fn/remove", params={"url": url})
    assert removed.status_code in (200, 404), removed.text
    assert (await bench.manage("GET", "/v1/apps/store/functions")).status_code == 404


async def ends_of_runs(bench: Bench) -> None:
    """Runs fail, and are cancelled by an event; a function that is there for both is started once
    for each of them."""
    await register_store(bench)
    label = bench.label()
    for data in ({"fails": True}, {"sleeps": True}):
        await send_to_store(bench, [{"name": "store/paid", "data": {"label": label, **data}}])

    async def has_slept() -> bool:
        sleeping = (
            "SELECT step_id, kind FROM timers JOIN runs USING (run_id) "
            "WHERE slug = 'store-pack' AND kind = 'sleep'"
        )
        return bool(rows_of(bench, sleeping))

    await eventually(has_slept, "no run sleeps")
    await send_to_store(bench, [{"name": "store/stopped", "data": {"label": label}}])

    async def all_told() -> bool:
        ended = rows_of(bench, "SELECT run_id, status FROM runs WHERE slug = 'store-pack'")
        told = rows_of(
            bench,
            "SELECT events ->> '$[0].data.run_id', status FROM function_runs "
            "JOIN runs USING (run_id) WHERE slug = 'store-unpack'",
        )
        names = [run_id for run_id, _ in told]
        assert len(names) == len(set(names)), "a function was started twice for an end"
        return (
            {status for _, status in told} == {"completed"}
            and sorted(names)
            == sorted(run_id for run_id, status in ended if status in ("failed", "cancelled"))
            and not any(status == "async" for _, status in ended)
        )

    await eventually(all_told, "an end has started nothing")


async def many_starts(bench: Bench) -> None:
    """One request starts more runs than one transaction does."""
    await register_store(bench)
    label, count = bench.label(), MOST_AT_ONCE + 30
    sent = [
        {"name": "store/paid", "data": {"label": f"{label}-{n}"}, "id": f"{label}-{n}"}
        for n in range(count)
    ]
    await send_to_store(bench, sent)

    async def all_ended() -> bool:
        runs = rows_of(
            bench,
            "SELECT events ->> '$[0].id', status FROM function_runs JOIN runs USING (run_id) "
            f"WHERE slug = 'store-pack' AND events ->> '$[0].id' LIKE '{label}-%'",
        )
        names = [name for name, _ in runs]
        assert len(names) == len(set(names)), "an event has started a function twice"
        return len(names) == count and {status for _, status in runs} == {"completed"}

    await eventually(all_ended, "an event has started nothing")


async def register_store(bench: Bench) -> None:
    asked = (await bench.until(f"{bench.app_url}/functions/store", "PUT")).json()
    answer = await bench.manage("POST", "/fn/register", json=asked)
    assert answer.status_code == 200, answer.text


async def send_to_store(bench: Bench, sent: Sequence[Mapping[str, object]]) -> None:
    answer = await bench.until(f"{bench.engine_url}/e/{EVENT_KEY}", "POST", json=sent)
    assert answer.status_code == 200, answer.text


def rows_of(bench: Bench, query: str) -> list[tuple[str, str]]:
    with closing(database.connect_read_only(str(bench.database))) as connection:
        return connection.execute(query).fetchall()


async def timed(bench: Bench) -> None:
    """An app registers a function that time starts, once for each of its times; then it goes."""
    url = f"{bench.app_url}/functions/clock"
    asked = (await bench.until(url, "PUT")).json()
    answer = await bench.manage("POST", "/fn/register", json=asked)
    assert answer.status_code == 200, answer.text

    async def runs() -> list[str]:
        listed = await bench.manage("GET", "/v1/runs?endpoint=clock-tick&limit=100")
        return [run["run_id"] for run in listed.json()["data"]]

    before = len(await runs())

    async def twice() -> bool:
        return len(await runs()) > before + 2

    await eventually(twice, "time starts nothing")
    removed = await bench.manage("DELETE", "/fn/remove", params={"url": url})
    assert removed.status_code in (200, 404), removed.text
    times = []
    for run_id in await runs():
        event_id = (await bench.manage("GET", f"/v1/runs/{run_id}")).json()["data"]["event_id"]
        event = await bench.manage("GET", f"/v1/events/{event_id}")
        times.append(event.json()["data"]["ts"])
    assert len(set(times)) == len(times), f"started twice for a time: {sorted(times)}"


async def metadata(bench: Bench) -> None:
    """A run is rated while it waits."""
    label = bench.label()
    order = asyncio.create_task(bench.order({"kind": "signal", "name": label}, RUN, label=label))
    run_id = await bench.waiting(label)
    scored = {"kind": "inngest.score", "op": "merge", "values": {"good": {"value": True}}}
    body = {"target": {"run_id": run_id}, "metadata": [scored]}
    answer = await bench.manage("POST", f"/v1/runs/{run_id}/metadata", json=body)
    assert answer.status_code == 204, answer.text
    (kept,) = (await bench.manage("GET", f"/v1/runs/{run_id}")).json()["data"]["metadata"]
    assert kept["values"] == {"good": {"value": True}}
    answer = await bench.manage("POST", "/v1/signals", json={"signal": label, "data": 1})
    assert answer.status_code in (200, 404), answer.text
    await order


async def batches(bench: Bench) -> None:
    """Events start a function together: a complete batch, and one whose time has come."""

    async def registered() -> bool:
        return (await bench.manage("GET", "/v1/apps/shop/functions")).status_code == 200

    await eventually(registered, "the app has not registered")
    events = [{"name": "shop/packed", "data": {"label": bench.label()}} for _ in range(4)]
    sent = await bench.until(f"{bench.engine_url}/e/{EVENT_KEY}", "POST", json=events)
    event_ids = sent.json()["ids"]

    async def started() -> bool:
        about = [f"/v1/events/{event_id}/runs" for event_id in event_ids]
        return all([(await bench.manage("GET", one)).json()["data"] for one in about])

    await eventually(started, "a batch has not begun")
    for event_id in event_ids:
        await function_ended(bench, event_id)


async def function_ended(bench: Bench, event_id: str) -> None:
    """Wait until the one run that an event has started has ended well."""

    async def ended() -> bool:
        (run,) = (await bench.manage("GET", f"/v1/events/{event_id}/runs")).json()["data"]
        return bool(run["status"] == "Completed")

    await eventually(ended, "a function has not ended")


async def signal(bench: Bench) -> None:
    label = bench.label()
    order = asyncio.create_task(bench.order({"kind": "signal", "name": label}, RUN, label=label))
    await bench.waiting(label)
    answer = await bench.manage("POST", "/v1/signals", json={"signal": label, "data": 1})
    # 404: it was received, but the answer was lost, and nothing waits for it any more.
    assert answer.status_code in (200, 404), answer.text
    await order


async def fetch(bench: Bench) -> None:
    await bench.order(RUN, {"kind": "fetch", "url": bench.app_url + "/up"}, RUN)


async def resent(bench: Bench) -> None:
    """A kept connection breaks under a call, which is sent again on another one."""
    await bench.order(NAP, {"kind": "sleep", "ms": 1}, {"kind": "run", "dies": True}, RUN)


async def by_hand(bench: Bench) -> None:
    """An application that reports a run itself, and does that again if it was not answered."""
    run_id = ulid(time.time_ns() // 1_000_000, int.from_bytes(os.urandom(10)))
    answer = await bench.until(f"{bench.app_url}/by-hand/{run_id}", "POST")
    assert answer.status_code == 200, answer.text
    (run,) = [one for one in await bench.runs("completed") if one["run_id"] == run_id]
    assert run["run_id"] == run_id


async def restart(bench: Bench) -> None:
    """The engine starts with runs whose processes hold leases, and with one that waits."""
    label = bench.label()
    orders = [
        asyncio.create_task(bench.order({"kind": "run", "ms": 800}, RUN, mode="safe")),
        asyncio.create_task(bench.order({"kind": "event", "name": label}, RUN, label=label)),
    ]
    await bench.waiting(label)
    bench.engine.kill()
    await send_event(bench, label)
    await asyncio.gather(*orders)


async def begin_waiting(bench: Bench) -> str:
    """Let a run wait for what never comes; its id."""
    label = bench.label()
    await bench.order(RUN, {"kind": "event", "name": label}, label=label, judged=False)
    return await bench.waiting(label)


async def cancel(bench: Bench) -> None:
    run_id = await begin_waiting(bench)
    answer = await bench.manage("DELETE", f"/v1/runs/{run_id}")
    assert answer.status_code < 300 or answer.status_code == 409, answer.text
    await has_status(bench, run_id, "cancelled")


async def has_status(bench: Bench, run_id: str, status: str) -> None:
    async def look() -> bool:
        return any(run["run_id"] == run_id for run in await bench.runs(status))

    await eventually(look, f"{run_id} is not {status}")


async def from_outside(bench: Bench) -> None:
    """An application signals a run, waits for the result of another, and cancels a third."""
    url, label = bench.app_url + "/outside", bench.label()
    order = asyncio.create_task(bench.order({"kind": "signal", "name": label}, RUN, label=label))
    await bench.waiting(label)
    answers = [await bench.until(f"{url}/signal/{label}", "POST")]
    await order
    answers.append(await bench.until(f"{url}/result/{bench.run_of(label)}", "POST"))
    assert answers[1].json() == {"status": 201}
    run_id = await begin_waiting(bench)
    answers.append(await bench.until(f"{url}/cancel/{run_id}", "POST"))
    assert [one.status_code for one in answers] == [200, 200, 200]
    await has_status(bench, run_id, "cancelled")


async def cancel_many(bench: Bench) -> None:
    run_id = await begin_waiting(bench)
    answer = await bench.manage("POST", "/v1/stephttp/runs/cancel?all=true")
    assert answer.status_code == 200, answer.text
    await has_status(bench, run_id, "cancelled")


async def cancel_by_time(bench: Bench) -> None:
    """Cancel the runs of a function that begin in a period; then let others begin again."""
    run_id = await begin_waiting(bench)
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 600))
    about = {"app_id": bench.app_url, "function_id": "work", "started_before": until}
    answer = await bench.manage("POST", "/v1/cancellations", json=about)
    assert answer.status_code < 300, answer.text
    await has_status(bench, run_id, "cancelled")
    for one in (await bench.manage("GET", "/v1/cancellations")).json()["data"]:
        deleted = await bench.manage("DELETE", f"/v1/cancellations/{one['id']}")
        assert deleted.status_code in (204, 404), deleted.text
    await naps(bench)


async def rerun(bench: Bench) -> None:
    """Run a request again; the first run keeps what it has."""
    label = bench.label()
    await bench.order(RUN, NAP, label=label, key=False)
    run_id = bench.run_of(label)
    answer = await bench.manage("POST", f"/v1/stephttp/runs/{run_id}/rerun", json={})
    assert answer.status_code == 200, answer.text
    await has_status(bench, answer.json()["data"]["run_id"], "completed")


async def resume(bench: Bench) -> None:
    label = bench.label()
    order = asyncio.create_task(bench.order(RUN, {"kind": "sleep", "ms": 600_000}, label=label))
    run_id = await bench.waiting(label)
    answer = await bench.manage("POST", f"/v1/stephttp/runs/{run_id}/resume", json={})
    # 409: it had been received, but the answer was lost.
    assert answer.status_code in (200, 409), answer.text
    await order


async def spans(bench: Bench) -> None:
    """An exporter sends a span of a run, until that is acknowledged."""
    label = bench.label()
    await bench.order(RUN, NAP, label=label)
    run_id = bench.run_of(label)
    span = {
        "traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174",
        "name": "query", "kind": 3, "startTimeUnixNano": str(time.time_ns()),
        "endTimeUnixNano": str(time.time_ns()),
        "attributes": [{"key": "sdk.run.id", "value": {"stringValue": run_id}}],
    }  # fmt: skip
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
    answer = await bench.manage("POST", "/v1/traces/userland", json=body)
    assert answer.status_code == 200, answer.text
    stored = (await bench.manage("GET", f"/v1/runs/{run_id}/spans")).json()["data"]
    assert [one["name"] for one in stored] == ["query"]


async def logout(bench: Bench) -> None:
    """A user who logs out and sees the page for that is logged out, also after a crash."""
    url = bench.engine_url
    found = re.search(r'name="csrf" value="(\w+)"', (await bench.until(url + "/login")).text)
    assert found is not None
    form = {"csrf": found.group(1), "password": PASSWORD}
    logged_in = await bench.until(url + "/login", "POST", data=form)
    assert logged_in.status_code == 303, logged_in.text
    cookies = dict(bench.http.cookies)
    page = await bench.until(url + "/events/new")
    found = re.search(r'name="csrf" value="(\w+)"', page.text)
    assert found is not None, page.text
    await bench.until(url + "/logout", "POST", data={"csrf": found.group(1)})
    bench.http.cookies.clear()
    again = await bench.until(url + "/events/new", cookies=cookies)
    assert again.status_code == 303, "the session has survived its end"


async def sweep(bench: Bench) -> None:
    """Runs whose time is over are deleted, and their space is given back."""
    await bench.order({"kind": "run", "size": 3_000_000}, NAP, key=False)
    await bench.order(RUN, NAP, key=False)
    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 600))
    about = {"app_id": bench.app_url, "function_id": "work", "started_before": until}
    await bench.manage("POST", "/v1/cancellations", json=about)
    before = bench.engine.lives
    bench.engine.kill()  # the sweep begins with the next life

    async def swept() -> bool:
        left = [*await bench.runs("completed"), *(await all_cancellations(bench))]
        return bench.engine.lives > before and not left

    await eventually(swept, "something is left")


async def all_cancellations(bench: Bench) -> list[object]:
    found: list[object] = (await bench.manage("GET", "/v1/cancellations")).json()["data"]
    return found


async def eventually(look: Callable[[], Awaitable[bool]], otherwise: str) -> None:
    deadline = time.monotonic() + 60
    while not await look():
        assert time.monotonic() < deadline, otherwise
        await asyncio.sleep(0.02)
