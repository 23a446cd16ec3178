"""What people see of runs: lists with filters and pages, one run in full, overviews."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stephttp._wire.ids import CAPSULE, CAPSULE_NAME, ulid
from stephttp.engine.model.change import Change
from stephttp.engine.model.function_ids import ids
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.run import NewRun, Run, RunStatus
from stephttp.engine.reading import (
    Paging,
    Period,
    RunFilter,
    RunState,
    SpanKind,
    list_runs,
    overview,
    run_detail,
    scanning,
)
from stephttp.engine.reading.overview import percentile
from stephttp.engine.retention import purge
from stephttp.engine.store import counts, database, runs
from tests.examples import examples

from .support import (
    DONE,
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

NOW_MS = 1_800_000_000_000
ENDPOINTS = ("GET /a", "GET /b")
STATUSES = list(RunStatus)
MINUTE_MS = 60_000


def put(
    connection: sqlite3.Connection, number: int, status: RunStatus, slug: str, body: bytes = b""
) -> str:
    """Store a run; each begins a second after the one before it."""
    at_ms = NOW_MS + number * 1000
    run_id = ulid(at_ms, number)
    app_id, fn_id = ids("http://app", slug)
    new = NewRun(
        run_id=run_id, app_id=app_id, slug=slug, digest=b"", event_id="e", event_name="n",
        event_ts=0, fn="", domain="http://app", method="GET", path=slug[4:], query="",
        content_type="", ip="", sdk="", created_ms=at_ms, began_ms=at_ms, body=body,
    )  # fmt: skip
    run = Run(run_id, status, fn_id=fn_id, ended_ms=at_ms if status.ended else None)
    runs.insert(connection, new, Change(run))
    return run_id


def pages(
    connection: sqlite3.Connection, wanted: RunFilter, limit: int, *, newer: bool = False
) -> list[str]:
    """Ids of all pages, one after the other, in the order of the whole list."""
    found: list[str] = []
    cursor: str | None = None
    for _ in range(100):
        page = list_runs(connection, wanted, Paging(limit, cursor, newer=newer), NOW_MS)
        rows = [row.run_id for row in page.items]
        found = rows + found if newer else found + rows
        cursor = page.newer if newer else page.older
        if cursor is None or (newer and not rows):
            return found
    raise AssertionError("the pages do not end")


_runs = st.lists(st.tuples(st.sampled_from(STATUSES), st.sampled_from(ENDPOINTS)), max_size=30)
_filters = st.builds(
    RunFilter,
    endpoints=st.lists(st.sampled_from([*ENDPOINTS, "GET /none"]), max_size=2).map(tuple),
    states=st.frozensets(st.sampled_from(list(RunState)), max_size=3),
    after_ms=st.none() | st.integers(0, 30).map(lambda n: NOW_MS + n * 1000),
    before_ms=st.none() | st.integers(0, 30).map(lambda n: NOW_MS + n * 1000),
    text=st.sampled_from([None, "odd", "EVEN", "none"]),
)


def is_wanted(wanted: RunFilter, number: int, status: RunStatus, slug: str) -> bool:
    """The same as the filter, in plain words. Nothing is due, so async runs wait."""
    state = {RunStatus.SYNC: RunState.RUNNING, RunStatus.ASYNC: RunState.WAITING}.get(status)
    at_ms = NOW_MS + number * 1000
    return (
        (not wanted.endpoints or slug in wanted.endpoints)
        and (not wanted.states or (state or RunState(status.value)) in wanted.states)
        and (wanted.after_ms is None or at_ms >= wanted.after_ms)
        and (wanted.before_ms is None or at_ms < wanted.before_ms)
        and (wanted.text is None or wanted.text.lower() == ("even", "odd")[number % 2])
    )


@given(runs=_runs, wanted=_filters, limit=st.integers(1, 7), later=_runs)
@settings(max_examples=examples(50, 1000), deadline=None, suppress_health_check=list(HealthCheck))
def test_pages_make_up_the_whole_list(
    runs: list[tuple[RunStatus, str]],
    wanted: RunFilter,
    limit: int,
    later: list[tuple[RunStatus, str]],
) -> None:
    with closing(database.open_for_writing(database.MEMORY)) as connection:
        known = [put(connection, n, *run, (b"even", b"odd")[n % 2]) for n, run in enumerate(runs)]
        expected = [
            known[n] for n, run in reversed(list(enumerate(runs))) if is_wanted(wanted, n, *run)
        ]
        assert pages(connection, wanted, limit) == expected
        assert pages(connection, wanted, limit, newer=True) == expected
        # What comes while somebody turns pages neither shifts nor repeats anything.
        first = list_runs(connection, wanted, Paging(limit), NOW_MS)
        for number, run in enumerate(later, len(runs)):
            put(connection, number, *run, (b"even", b"odd")[number % 2])
        shown = [row.run_id for row in first.items]
        cursor = first.older
        while cursor is not None:
            page = list_runs(connection, wanted, Paging(limit, cursor), NOW_MS)
            shown += [row.run_id for row in page.items]
            cursor = page.older
        assert shown == expected
        if first.newer is not None:
            more = Paging(100, first.newer, newer=True)
            news = list_runs(connection, wanted, more, NOW_MS)
            assert len(news.items) == sum(
                is_wanted(wanted, n, *run) for n, run in enumerate(later, len(runs))
            )


def test_a_search_that_ends_early_says_where_and_can_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scanning, "MOST_EXAMINED", 10)
    monkeypatch.setattr(scanning, "_LARGEST_CHUNK", 5)
    with closing(database.open_for_writing(database.MEMORY)) as connection:
        known = [
            put(connection, n, RunStatus.COMPLETED, "GET /a", b"needle" if n == 3 else b"hay")
            for n in range(40)
        ]
        wanted = RunFilter(text="needle")
        page = list_runs(connection, wanted, Paging(5), NOW_MS)
        assert (page.items, page.searched_to_ms) == ((), NOW_MS + 30_000)
        assert pages(connection, wanted, 5) == [known[3]]
        # Time ends it as well.
        page = list_runs(connection, wanted, Paging(2), NOW_MS, stop=lambda: True)
        assert page.searched_to_ms == NOW_MS + 38_000


def test_what_a_text_may_hold() -> None:
    with closing(database.open_for_writing(database.MEMORY)) as connection:
        for number, body in enumerate(
            [b'{"a": "50% of_it"}', b'{"say": "\\"hi\\""}', b"caf\xc3\xa9"]
        ):
            put(connection, number, RunStatus.COMPLETED, "GET /a", body)
        for text, count in [
            ("50%", 1), ("0% OF_IT", 1), ("50_", 0), ("o%it", 0), ('"hi"', 1), ("café", 1),
            ("/a", 3),
        ]:  # fmt: skip
            page = list_runs(connection, RunFilter(text=text), Paging(10), NOW_MS)
            assert len(page.items) == count, text


def test_run_ids_are_found_by_their_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(database.open_for_writing(database.MEMORY)) as connection:
        known = [put(connection, n, RunStatus.COMPLETED, "GET /a") for n in range(5)]
        for prefix, found in [
            (known[2], [known[2]]), (known[2].lower(), [known[2]]), (known[0][:6], known[::-1]),
            ("7ZZZ", []),
        ]:  # fmt: skip
            assert pages(connection, RunFilter(run_id=prefix), 2) == found, prefix


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (Paging(0), "limit: 0"), (Paging(101), "limit: 101"),
        (Paging(cursor="x"), "cursor: 'x'"), (Paging(cursor="-1"), "cursor: '-1'"),
    ],
)  # fmt: skip
def test_pages_that_cannot_be(page: Paging, message: str) -> None:
    with (
        closing(database.open_for_writing(database.MEMORY)) as connection,
        pytest.raises(Refused, match=message),
    ):
        list_runs(connection, RunFilter(), page, NOW_MS)


async def listed(w: World, query: str = "") -> list[str]:
    response = await w.http.get(f"/v1/runs{query}")
    assert response.status_code == 200, response.text
    return [run["run_id"] for run in response.json()["data"]]


async def detail(w: World, run_id: str = RUN) -> dict[str, Any]:
    response = await w.http.get(f"/v1/stephttp/runs/{run_id}")
    assert response.status_code == 200, response.text
    data: dict[str, Any] = response.json()["data"]
    return data


async def test_a_run_waits_until_its_time_has_come_and_runs_from_then_on() -> None:
    states: list[Any] = []

    async with world() as w:

        def look(request: httpx2.Request) -> httpx2.Response:
            # The very query that the list makes, while the endpoint is being called.
            connection = w.engine.store._writer.connections[0]
            states.append(run_detail(connection, RUN, w.clock.now_ms()).row.state)
            for state in (RunState.RUNNING, RunState.WAITING):
                wanted = RunFilter(states=frozenset({state}))
                page = list_runs(connection, wanted, Paging(), w.clock.now_ms())
                states.append(len(page.items))
            return answer(DONE)

        w.script = [look]
        await w.post(sleep(text="5s"))
        assert await listed(w, "?status=waiting") == [RUN]
        assert await listed(w, "?status=running") == []
        await w.after(5)
        assert states == [RunState.RUNNING, 1, 0]
        assert await listed(w, "?status=completed&status=failed") == [RUN]


async def test_results_errors_and_steps_are_searched_but_secrets_are_not() -> None:
    kept = {"secrets": {"headers": [["cookie", "hush"]]}, "headers": [["accept", "text/html"]]}
    capsule = {"op": "StepRun", "id": CAPSULE, "name": CAPSULE_NAME, "data": kept}
    async with world(script=[answer([step(B, {"word": "walnut"})]), answer(DONE)]) as w:
        await w.post(capsule, step(A, {"word": "hazel"}), sleep(), data={"path": "/pecan"})
        await w.after(5)
        for text, found in [
            ("walnut", 1), ("HAZEL", 1), ("pecan", 1), ("hush", 0), ("text/html", 0), ('"a": 1', 1),
        ]:  # fmt: skip
            query = httpx2.QueryParams(text=text)
            assert len(await listed(w, f"?{query}")) == found, text


async def test_one_run_in_full_without_its_secrets() -> None:
    kept = {"secrets": {"headers": [["authorization", "Bearer x"]]}, "headers": [["accept", "*"]]}
    capsule = {"op": "StepRun", "id": CAPSULE, "name": CAPSULE_NAME, "data": kept}
    done = complete(
        {"status": 201, "headers": {"set-cookie": "s=1", "x-a": "b"}, "body": '{"id": 1}'}
    )
    async with world(script=[answer([step_error(A)]), answer(done)]) as w:
        await w.post(capsule, step(B, 7), sleep(Z, "5s"), retries=3)
        waiting = await detail(w)
        assert [wait["kind"] for wait in waiting["waiting_for"]] == ["sleep"]
        assert [step["state"] for step in waiting["step_list"]] == ["completed", "waiting"]
        assert waiting["response"] is None
        await w.after(5)
        await w.after(60)
        run = await detail(w)
    assert run["request"]["headers"] == [
        {"name": "accept", "value": "*", "masked": False},
        {"name": "authorization", "value": "••••••", "masked": True},
    ]
    assert run["response"]["headers"] == [
        {"name": "set-cookie", "value": "••••••", "masked": True},
        {"name": "x-a", "value": "b", "masked": False},
    ]
    assert "Bearer x" not in str(run)
    assert "s=1" not in str(run)
    assert [(step["step_id"], step["output"]) for step in run["step_list"]] == [
        (B, 7), (Z, None), (A, None),
    ]  # fmt: skip
    kinds = [(span["kind"], span["failed"]) for span in run["spans"]]
    assert kinds == [
        ("request", False), ("step", False), ("sleep", False), ("call", False), ("attempt", True),
        ("call", False),
    ]  # fmt: skip
    assert run["request"]["body"] == "eyJhIjogMX0="
    assert run["steps"] == len(run["step_list"])


async def test_sealed_secrets_are_mentioned_and_other_capsules_do_not_matter() -> None:
    cases: list[tuple[Any, bool]] = [
        ({"sealed": "AAAA"}, True), ({"headers": 3}, False), ("what", False),
    ]  # fmt: skip
    for kept, sealed in cases:
        async with world() as w:
            await w.post({"op": "StepRun", "id": CAPSULE, "data": kept}, sleep())
            request = (await detail(w))["request"]
            assert (request["headers"], request["sealed"]) == ([], sealed)


async def test_the_waterfall_tells_of_retries_and_of_endpoints_that_are_not_there() -> None:
    gone = httpx2.ConnectError("refused")
    async with world(script=[gone, gone, answer([step(B)]), answer(DONE)]) as w:
        await w.post(step(A), sleep(Z, "5s"))
        await w.after(5)
        spans = (await detail(w))["spans"]
        (unreached,) = [span for span in spans if span["kind"] == "unreached"]
        (backoff,) = [span for span in spans if span["kind"] == "backoff"]
        assert unreached["error"]["name"] == "ConnectError"
        assert (backoff["duration_ms"], backoff["until"]) == (None, "2027-01-15T08:00:06.000Z")
        await w.after(1)
        await w.after(60)
        spans = (await detail(w))["spans"]
        assert [(s["kind"], s["tries"]) for s in spans if s["kind"] in ("call", "unreached")] == [
            ("unreached", 2), ("call", 1), ("call", 1),
        ]  # fmt: skip
        assert not [span for span in spans if span["duration_ms"] is None]


async def test_a_failure_in_the_first_request_is_told_with_it() -> None:
    failed = {"op": "StepError", "id": "0737c22d3bfae812339732d14d8c7dbd6dc4e09c",
              "error": {"name": "E", "message": "m", "stack": "at x"}}  # fmt: skip
    async with world(script=[answer(DONE)]) as w:
        await w.post(failed, retries=2)
        (request, backoff) = (await detail(w))["spans"]
        assert request["error"] == {"name": "E", "message": "m", "stack": "at x"}
        assert backoff["kind"] == SpanKind.BACKOFF
        await w.after(60)
        assert (await detail(w))["state"] == "completed"


async def test_keys_of_other_services_are_not_kept_with_a_step() -> None:
    ask = {"op": "AIGateway", "id": Z, "name": "ai", "opts": {
        "url": "http://127.0.0.1:1/v1", "auth_key": "hush", "format": "openai-chat",
        "headers": {"x-key": "hush too"}, "body": {"model": "m"}}}  # fmt: skip
    wait = {"op": "WaitForEvent", "id": B, "name": "e", "opts": {"event": "e", "timeout": "1d"}}
    async with world(script=[answer([sleep(A, "1d")])]) as w:
        await w.post(ask, wait)
        steps = {step["step_id"]: step["opts"] for step in (await detail(w))["step_list"]}
        assert steps[Z] == {
            "url": "http://127.0.0.1:1/v1", "format": "openai-chat", "body": {"model": "m"},
        }  # fmt: skip
        assert await listed(w, "?text=hush") == []
        await w.http.delete(f"/v1/runs/{RUN}")


async def test_runs_that_never_wait_have_no_history() -> None:
    async with world() as w:
        await w.post(step(), DONE)
        tables = await w.engine.store.read(
            lambda c: [
                c.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                for table in ("history", "links", "timers")
            ]
        )
        assert tables == [0, 0, 0]


async def test_events_are_linked_with_the_runs_that_send_and_await_them() -> None:
    wait = {"op": "WaitForEvent", "id": Z, "name": "paid", "userland": {"id": "z"},
            "opts": {"event": "paid", "timeout": "1d"}}  # fmt: skip
    async with world(script=[answer(DONE)]) as w:
        sent = (await w.http.post("/e/k", json={"name": "began"})).json()["ids"]
        sending = step(A, {"ids": sent}, opts={"type": "step.sendEvent"})
        await w.post(sending, wait)
        (paid,) = (await w.http.post("/e/k", json={"name": "paid"})).json()["ids"]
        await w.engine.idle()
        events = [(e["internal_id"], e["received"]) for e in (await detail(w))["events"]]
        assert sorted(events) == sorted([(sent[0], False), (paid, True)])
        told = (await w.http.get(f"/v1/stephttp/events/{paid}")).json()["data"]
        assert told["runs"] == [
            {"run_id": RUN, "status": "Completed", "function": "POST /orders", "step_id": Z,
             "step": "z", "received": True},
        ]  # fmt: skip
        page = (await w.http.get("/v1/stephttp/events?text=PAID")).json()
        assert [(e["internal_id"], e["linked_runs"]) for e in page["data"]] == [(paid, 1)]
        assert page["metadata"]["page"]["older"] is None


async def test_overview_and_endpoints_count_what_happened() -> None:
    bad = complete({"status": 500, "headers": {}, "body": "", "duration": 4_000_000})
    good = complete({"status": 200, "headers": {}, "body": "", "duration": 2_000_000})
    async with world(script=[answer(DONE)]) as w:
        await w.post(good, run_id=f"{RUN[:-1]}1")
        await w.post(bad, run_id=f"{RUN[:-1]}2")
        await w.post(sleep(text="30s"), run_id=f"{RUN[:-1]}3")
        await w.post(sleep(text="1d"), run_id=f"{RUN[:-1]}4", data={"path": "/other"})
        await w.after(30)
        view = (await w.http.get("/v1/stephttp/overview")).json()["data"]
        total = view["total"]
        counted = [total[k] for k in ("began", "went_async", "completed", "failed", "cancelled")]
        assert counted == [4, 2, 2, 1, 0]
        assert total["error_rate"] == pytest.approx(1 / 3)
        assert total["async_share"] == 0.5
        assert total["first"]["p50_ms"] == pytest.approx(0.001, abs=0.001)
        assert total["whole"]["p99_ms"] == pytest.approx(30_000, rel=0.1)
        assert (view["open_runs"], view["waiting"]) == (1, 1)
        by_name = {one["function"]: one for one in view["endpoints"]}
        assert by_name["POST /orders"]["began"] == 3
        assert by_name["POST /other"]["open_runs"] == 1
        assert len(view["points"]) == 60
        assert sum(point["began"] for point in view["points"]) == 4
        fn_id = by_name["POST /other"]["function_id"]
        one = (await w.http.get(f"/v1/stephttp/overview?span=day&endpoint={fn_id}")).json()["data"]
        assert (one["total"]["began"], len(one["points"])) == (1, 96)
        rows = (await w.http.get("/v1/stephttp/endpoints")).json()["data"]
        assert [(r["function"], r["runs"], r["failed_runs"], r["open_runs"]) for r in rows] == [
            ("POST /orders", 3, 1, 0), ("POST /other", 1, 0, 1),
        ]  # fmt: skip
        assert rows[0]["last_failure"]["error"]["name"] == "HTTPError"
        wrong = await w.http.get("/v1/stephttp/overview?span=year")
        assert (wrong.status_code, wrong.json()["error"][:12]) == (400, "span: 'year'")


async def test_runs_that_the_engine_began_have_no_first_phase() -> None:
    bad = complete({"status": 500, "headers": {}, "body": "", "duration": 4_000_000})
    async with world(script=[answer(DONE)] * 3) as w:
        await w.post(bad)
        for _ in range(3):
            await w.http.post(f"/v1/stephttp/runs/{RUN}/rerun", json={})
        await w.after(1)
        total = (await w.http.get("/v1/stephttp/overview")).json()["data"]["total"]
        assert [total[name] for name in ("began", "completed", "failed")] == [4, 3, 1]
        assert total["first"]["p50_ms"] == pytest.approx(4, rel=0.1)
        assert (total["went_async"], total["async_share"]) == (0, 0)


async def test_counts_outlive_runs_and_go_when_charts_end(tmp_path: Path) -> None:
    async with world(path=tmp_path / "db", retain=60.0, sweep_interval=10.0) as w:
        await w.post(step(), DONE, data={"fn": "order"})

        def look(connection: sqlite3.Connection) -> list[tuple[int, int]]:
            return connection.execute(
                "SELECT width_s, n FROM counts WHERE what = 'began' ORDER BY width_s"
            ).fetchall()

        assert await w.engine.store.browse(look) == [(0, 1), (60, 1), (900, 1), (7200, 1)]
        await w.engine.store.write(lambda c: purge(c, w.clock.now_ms() + 1, 10))
        w.clock.advance(3 * 86_400)
        await w.post(step(), DONE, data={"fn": "order"})
        counted = await w.engine.store.browse(look)
        assert counted == [(0, 2), (60, 1), (900, 1), (7200, 1), (7200, 1)]


async def test_what_is_rolled_back_is_not_counted() -> None:
    async with world() as w:
        store = w.engine.store

        def half(connection: sqlite3.Connection) -> None:
            put(connection, 1, RunStatus.COMPLETED, "GET /a")
            raise ValueError("no")

        with pytest.raises(ValueError, match="no"):
            await store.write(half)
        await store.write(lambda connection: put(connection, 2, RunStatus.FAILED, "GET /a"))
        total = await store.read(lambda c: overview(c, Period.HOUR, NOW_MS + MINUTE_MS).total)
        assert (total.began, total.failed, total.completed) == (1, 1, 0)


@given(st.lists(st.integers(1_000, 10**13), min_size=1, max_size=200), st.floats(0.01, 1))
def test_percentiles_are_within_a_tenth(durations: list[int], part: float) -> None:
    histogram: dict[int, int] = {}
    for duration in durations:
        bucket = counts.bucket_of(duration)
        histogram[bucket] = histogram.get(bucket, 0) + 1
    exact = sorted(durations)[max(0, -int(-part * len(durations) // 1) - 1)]
    assert percentile(histogram, part) == pytest.approx(exact / 1_000_000, rel=0.1)


def test_reading_is_quick_because_indexes_serve_it() -> None:
    """Each list walks along an index; none is sorted, and none looks at every run."""
    with closing(database.open_for_writing(database.MEMORY)) as connection:
        plans: list[str] = []
        for n in range(3):
            put(connection, n, RunStatus.COMPLETED, "GET /a")

        def explain(statement: str) -> None:
            if statement.lstrip().upper().startswith("SELECT SEQ FROM RUNS"):
                plans.append(statement)

        connection.set_trace_callback(explain)
        for wanted in (
            RunFilter(), RunFilter(states=frozenset({RunState.FAILED})), RunFilter(("GET /a",)),
            RunFilter(rerun_of="x"), RunFilter(("GET /a",), frozenset({RunState.WAITING})),
        ):  # fmt: skip
            list_runs(connection, wanted, Paging(), NOW_MS)
        connection.set_trace_callback(None)
        assert len(plans) >= 5
        for statement in plans:
            steps = connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
            text = " ".join(row[3] for row in steps)
            assert "SEARCH" in text, (statement, text)
            assert "B-TREE" not in text, (statement, text)


@pytest.mark.parametrize("seed", range(3))
async def test_lists_are_read_beside_the_writer(tmp_path: Path, seed: int) -> None:
    """Readers see whole transactions, while others are being written."""
    rng = Random(seed)
    async with world(path=tmp_path / "db") as w:
        seen = 0
        for number in range(20):
            await w.http.post("/v1/checkpoint", json=new_run(DONE, run_id=ulid(NOW_MS, number)))
            if rng.random() < 0.5:
                seen = len(await listed(w, "?limit=100"))
                assert seen == number + 1
        assert seen


async def test_the_end_of_a_run_ends_what_it_left_open() -> None:
    async with world() as w:
        await w.post(sleep(B, "1h"))
        await w.after(60)
        await w.http.delete(f"/v1/runs/{RUN}")
        await w.after(7200)
        run = (await w.http.get(f"/v1/stephttp/runs/{RUN}")).json()["data"]
        (nap,) = run["step_list"]
        assert (nap["state"], nap["duration_ms"]) == ("cancelled", pytest.approx(60_000))
        (span,) = [one for one in run["spans"] if one["kind"] == "sleep"]
        assert (span["duration_ms"], span["until"]) == (pytest.approx(60_000), None)
        page = (await w.http.get(f"/runs/{RUN}")).text
        assert '<dt>Took</dt><dd class="num">1 min</dd>' in page
