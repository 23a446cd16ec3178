"""`GET /metrics` against the database, after loads that hold every kind of run."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import httpx2
import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from stephttp.engine.api.manage.scrape import OPENMETRICS
from stephttp.engine.metrics import MOST_ENDPOINTS, OTHER

from .support import (
    DONE,
    KEY,
    RUN,
    A,
    B,
    World,
    Z,
    answer,
    complete,
    new_run,
    sleep,
    step,
    step_error,
    world,
)

TOKEN = "token-of-prometheus"
Labels = frozenset[tuple[str, str]]


async def scrape(w: World, **headers: str) -> dict[str, dict[Labels, float]]:
    """Each sample's value, by its name and its labels."""
    response = await w.http.get("/metrics", headers=headers)
    assert response.status_code == 200, response.text
    samples: dict[str, dict[Labels, float]] = {}
    for family in parse_text(response.text):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return samples


def summed(samples: dict[Labels, float], *labels: str) -> dict[tuple[str, ...], float]:
    """Those that are not 0, by the values of some labels."""
    totals: Counter[tuple[str, ...]] = Counter()
    for pairs, value in samples.items():
        values = dict(pairs)
        totals[tuple(values[label] for label in labels)] += value  # type: ignore[assignment]
    return {key: value for key, value in totals.items() if value}


async def counts(w: World, query: str) -> dict[tuple[str, ...], float]:
    """Rows of a query, the last column by the others."""
    rows = await w.engine.store.read(lambda connection: connection.execute(query).fetchall())
    return {tuple(row[:-1]): row[-1] for row in rows if row[-1]}


def one(samples: dict[Labels, float]) -> float:
    (value,) = samples.values()
    return value


async def equals_the_database(w: World) -> None:
    found = await scrape(w)
    names = "domain, slug"
    assert summed(found["stephttp_runs_started_total"], "app", "endpoint") == await counts(
        w, f"SELECT {names}, count(*) FROM runs GROUP BY {names}"
    )
    assert summed(found["stephttp_runs_ended_total"], "app", "endpoint", "status") == await counts(
        w,
        f"SELECT {names}, status, count(*) FROM runs WHERE ended_ms IS NOT NULL "
        f"GROUP BY {names}, status",
    )
    assert summed(found["stephttp_open_runs"], "app", "endpoint", "status") == await counts(
        w,
        f"SELECT {names}, status, count(*) FROM runs WHERE ended_ms IS NULL "
        f"GROUP BY {names}, status",
    )
    executed = "('StepRun', 'Step', 'StepError', 'StepFailed')"
    assert summed(found["stephttp_step_duration_seconds_count"], "app", "endpoint") == await counts(
        w,
        f"SELECT {names}, sum(steps.attempts) FROM steps JOIN runs USING (run_id) "
        f"WHERE op IN {executed} GROUP BY {names}",
    )
    stored = sum((await counts(w, "SELECT count(*) FROM events")).values())
    assert one(found["stephttp_events_received_total"]) == stored
    assert summed(found["stephttp_waits"], "kind") == await counts(
        w, "SELECT kind, count(*) FROM timers WHERE key IS NOT NULL GROUP BY kind"
    )


def run_id(number: int) -> str:
    return f"01M81KWY2JTNRXZTV817{number:06}"


async def load(w: World, rng: Random) -> None:
    """Runs of many kinds, requests that are repeated or refused, retries, waits, cancellations."""
    paths = ["/orders", "/users", "/reports"]
    wait = {"op": "WaitForEvent", "id": B, "opts": {"event": "paid", "timeout": "1d"}}
    child = {"op": "InvokeFunction", "id": B, "opts": {"function_id": "POST /users", "payload": {}}}
    kinds: list[list[dict[str, Any]]] = [
        [step(timing={"a": 1, "b": 20_000_000}), DONE],
        [step(), step(B), DONE],
        [complete({"status": 500, "headers": {}, "body": "", "error": {"name": "E"}})],
        [step(), sleep()],
        [step_error(A)],
        [wait],
        [child],
        [step()],
    ]

    def endpoint(request: httpx2.Request) -> httpx2.Response:
        return rng.choice(
            [
                answer([step(Z), DONE]),
                answer([step_error(B)]),
                answer([sleep(Z, "1m")]),
                httpx2.Response(503),
                httpx2.Response(200, text="plain"),
            ]
        )

    w.script = [endpoint] * 10_000
    bodies = [
        new_run(
            *rng.choice(kinds), run_id=run_id(n), retries=rng.randrange(3),
            data={"path": rng.choice(paths), "domain": rng.choice(["http://a.test", "http://b.t"])},
        )
        for n in range(150)
    ]  # fmt: skip
    for start in range(0, 150, 50):
        sent = bodies[start : start + 50]
        response = await w.http.post("/v1/checkpoint/batch", json=sent[:30])
        assert response.status_code == 200
        # Some of them a second time, one that is refused, and some on their own, side by side.
        again = [*sent[:5], {**sent[0], "retries": 9}]
        await w.http.post("/v1/checkpoint/batch", json=again)
        await asyncio.gather(*(w.http.post("/v1/checkpoint", json=body) for body in sent[25:]))
        await w.http.post(f"/v1/checkpoint/{run_id(start + 1)}/steps", json={"steps": [step(Z)]})
        await w.http.post("/v1/checkpoint", json={"run_id": "no"})
        await w.http.delete(f"/v1/runs/{run_id(start + 2)}")
        events = [{"name": "paid", "id": "same"}, {"name": "other"}]
        await w.http.post("/e/k", json=events)
        for _ in range(10):
            await w.after(30)


async def test_counters_equal_the_database_after_a_load() -> None:
    async with world() as w:
        await load(w, Random(5))
        await w.engine.idle()
        found = await scrape(w)
        # The load holds what is compared.
        assert set(summed(found["stephttp_runs_ended_total"], "status")) == {
            ("completed",),
            ("failed",),
            ("cancelled",),
        }
        assert sum(found["stephttp_open_runs"].values()) > 0
        await equals_the_database(w)
        calls = summed(found["stephttp_reentry_duration_seconds_count"], "result")
        assert sum(calls.values()) == len(w.calls)
        assert set(calls) == {("ok",), ("foreign",), ("transient",)}
        late = summed(found["stephttp_timer_lateness_seconds_count"], "kind")
        assert {("sleep",), ("retry",), ("resume",)} <= set(late)


async def test_counters_begin_anew_with_the_process_and_gauges_do_not(tmp_path: Path) -> None:
    async with world(path=tmp_path / "runs.db") as w:
        await w.post(step(), sleep(text="1h"))
        await equals_the_database(w)
        found = await scrape(w)
        assert one(found["stephttp_database_size_bytes"]) > 0
        assert one(found["stephttp_database_wal_size_bytes"]) > 0
        clock = w.clock
    async with world(clock, tmp_path / "runs.db", script=[answer(DONE)]) as w:
        found = await scrape(w)
        assert sum(found["stephttp_runs_started_total"].values()) == 0
        assert summed(found["stephttp_open_runs"], "app", "endpoint", "status") == {
            ("http://app.test", "POST /orders", "async"): 1
        }
        # Of a run that this process has not begun, the endpoint is known all the same.
        await w.after(3600)
        found = await scrape(w)
        assert summed(found["stephttp_runs_ended_total"], "app", "endpoint", "status") == {
            ("http://app.test", "POST /orders", "completed"): 1
        }


async def test_durations_and_lateness() -> None:
    def slow(request: httpx2.Request) -> httpx2.Response:
        w.clock.advance(2)
        return answer([step(B, timing={"a": 1, "b": 40_000_000}), DONE])

    async with world(script=[slow]) as w:
        await w.post(step(timing={"a": 1, "b": 300_000_000}), sleep(text="10s"))
        await w.after(25)
        found = await scrape(w)
    assert one(found["stephttp_reentry_duration_seconds_sum"]) == 2.0
    steps = found["stephttp_step_duration_seconds_sum"]
    assert summed(steps, "outcome") == {("completed",): pytest.approx(0.34)}
    late = found["stephttp_timer_lateness_seconds_sum"]
    assert summed(late, "kind") == {("sleep",): 15.0}
    assert one(found["stephttp_commit_batch_size_count"]) > 0
    assert one(found["stephttp_commit_duration_seconds_count"]) == one(
        found["stephttp_commit_batch_size_count"]
    )


async def test_what_waits_and_what_is_under_way() -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def endpoint(request: httpx2.Request) -> httpx2.Response:
        entered.set()
        await leave.wait()
        return answer(DONE)

    async with world(concurrency=1) as w:
        w.reach(httpx2.MockTransport(endpoint))
        await w.post(sleep(text="1s"))
        await w.post(sleep(text="1s"), run_id=run_id(1))
        w.clock.advance(5)
        await entered.wait()
        found = await scrape(w)
        assert summed(found["stephttp_calls_in_progress"], "kind") == {("reentry",): 1}
        assert summed(found["stephttp_call_slots"], "kind") == {("reentry",): 1, ("gateway",): 32}
        assert summed(found["stephttp_due_timers"], "kind") == {("sleep",): 1}
        assert one(found["stephttp_oldest_due_timer_seconds"]) == 4.0
        leave.set()
        await w.engine.idle()
        found = await scrape(w)
        assert summed(found["stephttp_due_timers"], "kind") == {}
        assert one(found["stephttp_oldest_due_timer_seconds"]) == 0.0


async def test_endpoints_beyond_the_first_share_their_series() -> None:
    many = MOST_ENDPOINTS + 20
    async with world() as w:
        items = [
            new_run(step(), DONE, run_id=run_id(n), data={"path": f"/users/{n}"})
            for n in range(many)
        ]
        await w.http.post("/v1/checkpoint/batch", json=items)
        found = await scrape(w)
    started = summed(found["stephttp_runs_started_total"], "app", "endpoint")
    assert len(started) == MOST_ENDPOINTS + 1
    assert started[OTHER] == 20


async def test_both_formats_are_accepted_by_parsers_and_by_promtool(tmp_path: Path) -> None:
    async with world(path=tmp_path / "runs.db") as w:
        await load(w, Random(6))
        text = await w.http.get("/metrics")
        assert text.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        offer = f"{OPENMETRICS};version=1.0.0,text/plain;version=0.0.4;q=0.5"
        other = await w.http.get("/metrics", headers={"accept": offer})
        assert other.headers["content-type"].startswith(f"{OPENMETRICS}; version=1.0.0")
    families = {family.name: family for family in parse_text(text.text)}
    openmetrics = {family.name for family in parse_openmetrics(other.text)}  # type: ignore[no-untyped-call]
    assert openmetrics == set(families)
    assert all(family.documentation for family in families.values())
    promtool_accepts(text.text)


def promtool_accepts(text: str) -> None:
    """By the rules of Prometheus itself, where it is installed."""
    promtool = shutil.which("promtool")
    if promtool:
        checked = subprocess.run(
            [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
        )
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("settings", "authorization", "status"),
    [
        ({}, "", 200),
        ({"signing_keys": (KEY,)}, "", 401),
        ({"signing_keys": (KEY,)}, f"Bearer {KEY}", 200),
        ({"signing_keys": (KEY,)}, f"Bearer {TOKEN}", 401),
        ({"signing_keys": (KEY,), "metrics_token": TOKEN}, f"Bearer {TOKEN}", 200),
        ({"signing_keys": (KEY,), "metrics_token": TOKEN}, f"bearer  {TOKEN} ", 200),
        ({"signing_keys": (KEY,), "metrics_token": TOKEN}, f"Bearer {KEY}", 200),
        ({"signing_keys": (KEY,), "metrics_token": TOKEN}, f"Basic {TOKEN}", 401),
        ({"signing_keys": (KEY,), "metrics_token": TOKEN}, "Bearer é", 401),
        ({"signing_keys": (KEY,), "metrics_token": TOKEN}, "", 401),
        ({"signing_keys": (KEY,), "open_metrics": True}, "", 200),
    ],
)
async def test_who_may_read_them(settings: dict[str, Any], authorization: str, status: int) -> None:
    async with world(**settings) as w:
        headers = {b"authorization": authorization.encode()} if authorization else {}
        assert (await w.http.get("/metrics", headers=headers)).status_code == status
        # The token opens nothing else.
        other = await w.http.get("/v1/runs", headers={"authorization": f"Bearer {TOKEN}"})
        assert other.status_code == (401 if settings.get("signing_keys") else 200)


async def test_engines_of_one_process_count_apart() -> None:
    async with world() as first, world() as second:
        await first.post(DONE)
        assert sum((await scrape(first))["stephttp_runs_started_total"].values()) == 1
        assert "stephttp_runs_started_total" not in await scrape(second)


async def test_a_failed_commit_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world() as w:
        connection = w.engine.store._writer.connections[0]
        connection.execute("PRAGMA max_page_count = 1")
        body = new_run(step(data="x" * 200_000), DONE)
        assert (await w.http.post("/v1/checkpoint", json=body)).status_code == 503
        assert one((await scrape(w))["stephttp_commits_failed_total"]) == 1
        assert (await w.http.get(f"/v1/runs/{RUN}")).status_code == 404
