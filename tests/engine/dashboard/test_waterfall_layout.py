"""The layout of a run's waterfall: scale, folds, rows."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stephttp.engine.dashboard.waterfall_layout import abridged, lay_out
from stephttp.engine.reading import SpanKind, StepDetail, WaterfallSpan

HOUR = 3_600_000


def span(
    kind: SpanKind, start: float, end: float | None, step: str | None = None, **more: Any
) -> WaterfallSpan:
    return WaterfallSpan(kind, step, step or "POST /orders", start, end, **more)


def step(step_id: str, state: str = "completed") -> StepDetail:
    return StepDetail(
        step_id, 1, step_id, 0, None, "StepRun", state, 1, 0, 1, None, None, None, None, None
    )


def test_a_run_that_never_waits_is_drawn_to_scale() -> None:
    spans = [span(SpanKind.REQUEST, 1000, 1100), span(SpanKind.STEP, 1025, 1075, "a")]
    layout = lay_out(spans, [step("a")], 5000)
    request, row = layout.rows
    assert (request.key, request.title, request.duration_ms) == ("request", "POST /orders", 100)
    assert (request.bars[0].x, request.bars[0].width) == (0, 100)
    assert (row.key, row.bars[0].x, row.bars[0].width) == ("a", 25, 50)
    assert layout.folds == ()
    assert (layout.total_ms, layout.idle_ms) == (100, 0)
    assert [tick.ms for tick in layout.ticks] == [0, 20, 40, 60, 80]


def test_a_long_sleep_is_folded_and_the_work_around_it_keeps_its_proportions() -> None:
    spans = [
        span(SpanKind.REQUEST, 0, 100),
        span(SpanKind.SLEEP, 90, 90 + HOUR, "nap"),
        span(SpanKind.CALL, 90 + HOUR, 190 + HOUR),
    ]
    layout = lay_out(spans, [step("nap")], 9 * HOUR)
    (fold,) = layout.folds
    assert fold.ms == HOUR - 10
    assert fold.width == 9
    request, nap, calls = layout.rows
    assert request.bars[0].width == pytest.approx(calls.bars[0].width)
    assert calls.title == "Re-entries"
    assert nap.bars[0].x < fold.x < nap.bars[0].x + nap.bars[0].width
    assert layout.idle_ms == HOUR - 10


def test_attempts_and_back_off_of_a_step_share_its_row() -> None:
    spans = [
        span(SpanKind.REQUEST, 0, 50),
        span(SpanKind.ATTEMPT, 10, 40, "a", failed=True, error=b"{}"),
        span(SpanKind.BACKOFF, 50, None, "a", until_ms=9000),
    ]
    layout = lay_out(spans, [step("a", "waiting")], 60)
    row = layout.rows[1]
    assert [bar.kind for bar in row.bars] == ["attempt", "backoff"]
    assert [bar.open for bar in row.bars] == [False, True]
    assert row.duration_ms is None
    assert not row.failed, "it is not over"


def test_a_step_that_was_taken_over_has_a_row_without_bars() -> None:
    spans = [span(SpanKind.REQUEST, 0, 0), span(SpanKind.CALL, 0, 50)]
    layout = lay_out(spans, [step("a"), step("b")], 60)
    assert [row.key for row in layout.rows] == ["request", "a", "b", "calls"]
    assert layout.rows[1].bars == ()


def test_a_run_without_any_length() -> None:
    layout = lay_out([span(SpanKind.REQUEST, 7, 7)], [], 7)
    assert layout.rows[0].bars[0].width > 0
    assert lay_out([], [], 7).rows == ()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(list(SpanKind)),
            st.integers(0, 10**9),
            st.none() | st.integers(0, 10**9),
            st.sampled_from([None, "a", "b", "c"]),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_every_bar_lies_in_the_picture_and_time_never_runs_back(drawn: list[Any]) -> None:
    spans = [
        span(kind, start, None if length is None else start + length, step_id)
        for kind, start, length, step_id in drawn
    ]
    layout = lay_out(spans, [step(name) for name in "abc"], 2 * 10**9)
    assert sum(len(row.bars) for row in layout.rows) == len(spans)
    bars = [bar for row in layout.rows for bar in row.bars]
    for bar in bars:
        assert 0 <= bar.x <= 100
        assert bar.width > 0
        assert bar.x + bar.width <= 100 + 1e-6
    ordered = sorted(bars, key=lambda bar: bar.span.start_ms)
    assert all(b.x >= a.x - 0.6 for a, b in pairwise(ordered))
    assert sum(fold.width for fold in layout.folds) <= 45 + 1e-6
    assert layout.idle_ms <= layout.total_ms


@pytest.mark.parametrize(
    ("telling", "shown"),
    [
        ({}, [0, 1, 2, 3]),
        ({9: "failed"}, [0, 1, 2, 9]),
        ({0: "failed", 5: "waiting", 9: "failed"}, [0, 1, 5, 9]),
        (dict.fromkeys(range(10), "failed"), [6, 7, 8, 9]),
    ],
)
def test_what_is_shown_of_a_long_run_has_the_steps_that_failed_or_wait(
    telling: dict[int, str], shown: list[int]
) -> None:
    spans = [span(SpanKind.STEP, at, at + 1, str(at)) for at in range(10)]
    steps = [step(str(at), telling.get(at, "completed")) for at in range(10)]
    rows = lay_out(spans, steps, 10).rows
    assert [row.key for row in abridged(rows, 4)] == [str(at) for at in shown]
    assert abridged(rows, 10) == rows
