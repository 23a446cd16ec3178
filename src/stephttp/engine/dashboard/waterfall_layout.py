"""How the waterfall of a run is drawn: rows, bars, scale, and folds for long idle stretches. Pure.

Time runs from left to right, but not evenly: a run computes for milliseconds and sleeps for days.
A stretch in which nothing happens, and which is much longer than everything that does happen, is
*folded*: it gets a narrow strip of fixed width, whatever its length. The other stretches share the
rest in proportion.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from stephttp.engine.reading import SpanKind, StepDetail, WaterfallSpan

_TELLING = frozenset({"failed", "waiting"})
"""States of steps that people look for on the page of a run."""

_BUSY = frozenset({SpanKind.REQUEST, SpanKind.STEP, SpanKind.CALL, SpanKind.ATTEMPT})
"""Spans in which something happens; in the others the run only waits."""

_FOLD_WIDTH = 9.0
"""Percent of the width that one fold takes, if there are few."""

_ALL_FOLDS = 45.0
"""Percent that all folds together take at most."""

_NARROWEST = 0.6
"""Percent; a narrower bar would not be seen."""

_TICKED = 30.0
"""Percent; only stretches of this width or more get marks for the time."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One span of the waterfall.

    Attributes:
        x, width: percent of the whole width.
        open: it has not ended.
    """

    kind: SpanKind
    x: float
    width: float
    span: WaterfallSpan
    open: bool
    failed: bool


@dataclass(frozen=True, slots=True)
class WaterfallRow:
    """One line: the request, the calls of the endpoint, or a step.

    Attributes:
        key: identifies the row within its run.
        duration_ms: from the begin of its first bar to the end of its last; `None` until it ends.
        since_ms: when its first bar begins.
    """

    key: str
    title: str
    bars: tuple[Bar, ...]
    since_ms: float
    duration_ms: float | None
    step: StepDetail | None = None

    @property
    def failed(self) -> bool:
        """Whether the step, or the last bar, failed."""
        return self.step.state == "failed" if self.step else self.bars[-1].failed


@dataclass(frozen=True, slots=True)
class Fold:
    """A stretch of `ms` in which nothing happened."""

    x: float
    width: float
    ms: float


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on the axis, `ms` after the start of the run."""

    x: float
    ms: float


@dataclass(frozen=True, slots=True)
class WaterfallLayout:
    """A waterfall, laid out. `total_ms` is the whole time, `idle_ms` the part that is folded."""

    rows: tuple[WaterfallRow, ...]
    folds: tuple[Fold, ...]
    ticks: tuple[Tick, ...]
    total_ms: float
    idle_ms: float = field(default=0.0)


@dataclass(frozen=True, slots=True)
class _Stretch:
    start: float
    end: float
    folded: bool
    x: float = 0.0
    width: float = 0.0


def lay_out(
    spans: Sequence[WaterfallSpan], steps: Sequence[StepDetail], now_ms: float
) -> WaterfallLayout:
    """Lay out the waterfall of a run.

    Args:
        spans: see `RunDetail`.
        steps: all steps of the run. One without a span (nothing of it happened in this run yet,
            or a rerun took it over) gets a row without bars.
        now_ms: where open spans end.
    """
    if not spans:
        return WaterfallLayout((), (), (), 0.0)
    begin = min(span.start_ms for span in spans)
    end = max(begin, *(_end(span, now_ms) for span in spans))
    scale = _Scale(_stretches(spans, begin, end, now_ms))
    by_step = {step.step_id: step for step in steps}
    groups: dict[str, list[WaterfallSpan]] = {}
    for span in spans:
        groups.setdefault(_row_key(span, by_step), []).append(span)
    rows = [_row(key, group, by_step.get(key), scale, now_ms) for key, group in groups.items()]
    bare = [
        WaterfallRow(step.step_id, step.title, (), step.started_ms, step.duration_ms, step)
        for step in steps
        if step.step_id not in groups
    ]
    # Only the request came before the steps that were taken over.
    rows[1:1] = bare
    folds = tuple(
        Fold(one.x, one.width, one.end - one.start) for one in scale.stretches if one.folded
    )
    idle_ms = sum(fold.ms for fold in folds)
    return WaterfallLayout(tuple(rows), folds, tuple(_ticks(scale, begin)), end - begin, idle_ms)


def abridged(rows: Sequence[WaterfallRow], most: int) -> Sequence[WaterfallRow]:
    """Return the rows that are shown of a long run, in their order.

    Steps that failed or wait come first, the latest of them if they are too many: they are what
    people look for. Then comes what began first.

    Args:
        rows: all of them.
        most: how many are shown.
    """
    if len(rows) <= most:
        return rows
    telling = [at for at, row in enumerate(rows) if row.step and row.step.state in _TELLING]
    kept = set(telling[-most:])
    for at in range(len(rows)):
        if len(kept) == most:
            break
        kept.add(at)
    return [rows[at] for at in sorted(kept)]


def _row_key(span: WaterfallSpan, by_step: dict[str, StepDetail]) -> str:
    if span.kind is SpanKind.REQUEST:
        return "request"
    return span.step_id if span.step_id in by_step else "calls"


def _row(
    key: str,
    spans: Sequence[WaterfallSpan],
    step: StepDetail | None,
    scale: _Scale,
    now_ms: float,
) -> WaterfallRow:
    bars = []
    for span in spans:
        x = scale.at(span.start_ms)
        width = max(_NARROWEST, scale.at(_end(span, now_ms)) - x)
        # A bar that begins at the very end would lie outside.
        x = max(0.0, min(x, 100.0 - width))
        bars.append(Bar(span.kind, x, width, span, span.end_ms is None, span.failed))
    since = min(span.start_ms for span in spans)
    ends = [span.end_ms for span in spans]
    known = [end for end in ends if end is not None]
    duration = max(known) - since if len(known) == len(ends) else None
    title = "Re-entries" if key == "calls" else spans[-1].title
    return WaterfallRow(key, title, tuple(bars), since, duration, step)


def _end(span: WaterfallSpan, now_ms: float) -> float:
    return max(span.start_ms, now_ms if span.end_ms is None else span.end_ms)


def _stretches(
    spans: Iterable[WaterfallSpan], begin: float, end: float, now_ms: float
) -> list[_Stretch]:
    """Cut the run's time into busy stretches and folded ones."""
    pieces = [(begin, begin), (end, end)]
    for span in spans:
        start, stop = span.start_ms, _end(span, now_ms)
        pieces += [(start, stop)] if span.kind in _BUSY else [(start, start), (stop, stop)]
    merged: list[list[float]] = []
    for start, stop in sorted(pieces):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], stop)
        else:
            merged.append([start, stop])
    busy = sum(stop - start for start, stop in merged)
    gaps = [(left[1], right[0]) for left, right in pairwise(merged)]
    # Short gaps first: each one that stays makes room for slightly longer ones.
    shown, folded = busy, set()
    for start, stop in sorted(gaps, key=lambda gap: gap[1] - gap[0]):
        if stop - start <= max(0.75 * shown, 1.0):
            shown += stop - start
        else:
            folded.add((start, stop))
    if not shown:
        return [_Stretch(begin, end, folded=False)]
    stretches, last = [], begin
    for start, stop in sorted(folded):
        stretches += [_Stretch(last, start, folded=False), _Stretch(start, stop, folded=True)]
        last = stop
    return [*stretches, _Stretch(last, end, folded=False)]


class _Scale:
    """Translates times into horizontal positions."""

    def __init__(self, stretches: Sequence[_Stretch]) -> None:
        folds = sum(one.folded for one in stretches)
        fold = min(_FOLD_WIDTH, _ALL_FOLDS / folds) if folds else 0.0
        rest = 100.0 - folds * fold
        shown = sum(one.end - one.start for one in stretches if not one.folded)
        self.stretches: list[_Stretch] = []
        x = 0.0
        for one in stretches:
            share = (one.end - one.start) / shown if shown else 1.0
            width = fold if one.folded else rest * share
            self.stretches.append(_Stretch(one.start, one.end, one.folded, x, width))
            x += width

    def at(self, ms: float) -> float:
        """Return the position of a time, in percent of the width."""
        for one in self.stretches:
            if ms <= one.end:
                length = one.end - one.start
                part = (ms - one.start) / length if length else 0.0
                return one.x + one.width * max(0.0, part)
        return 100.0


def _ticks(scale: _Scale, begin: float) -> list[Tick]:
    ticks = []
    for one in scale.stretches:
        if one.folded or one.width < _TICKED:
            continue
        step = _round_step((one.end - one.start) / (one.width / 16.0))
        offset = one.start - begin
        at = offset if offset == 0 else (offset // step + 1) * step
        while begin + at < one.end and step > 0:
            x = scale.at(begin + at)
            if x < one.x + one.width - 6:
                ticks.append(Tick(x, at))
            at += step
    return ticks


def _round_step(raw: float) -> float:
    """Return the next of 1, 2, 5, 10, 20, ... (milliseconds)."""
    if raw <= 0:
        return 0.0
    power = 1.0
    while power > raw:
        power /= 10
    while power * 10 <= raw:
        power *= 10
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
