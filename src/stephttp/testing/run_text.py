"""A run as plain text, for failed tests and snapshots: what happened, and when."""

from __future__ import annotations

import json
import re

from stephttp._core.remembered import title_of
from stephttp.engine.reading.waterfall import SpanKind, WaterfallSpan
from stephttp.testing.recorded import RecordedRun, RecordedStep, read_error, waits_for

_LONGEST = 80
_ID = re.compile("[0-9A-HJKMNP-TV-Z]{26}")
"""Those of runs and events are others in each test."""
_STATES = {"completed": "ok", "failed": "failed", "waiting": "waits", "cancelled": "cut off"}


def text_of(run: RecordedRun) -> str:
    """Return a run as text: its head, its steps with their times, and how it ended.

    It has no ids and no points in time, only times since the start of the run, so that it can be
    compared with a stored one.
    """
    detail = run.detail
    request, began_ms = detail.request, detail.row.began_ms
    query = f"?{request.query}" if request.query else ""
    lines = [f"{request.method} {request.path}{query}  {run.endpoint}  {run.status}"]
    rows = [
        *(_attempt(span, began_ms) for span in detail.spans if _is_failed_attempt(span)),
        *(_step(step, began_ms) for step in run.steps),
    ]
    width = max((len(row[1]) for row in rows), default=0)
    for at, title, *rest in sorted(rows, key=lambda row: row[0]):
        lines.append(f"  {_after(at):>9}  {title:<{width}}  {'  '.join(filter(None, rest))}")
    lines += [
        f"  waits for {waits_for(wait)}, until {_after(wait.until.timestamp() * 1000 - began_ms)}"
        for wait in run.waits
    ]
    lines += [f"  warning: {message}" for message in run.warnings]
    if run.error is not None:
        lines.append(f"  error: {_short(str(run.error))}")
    if run.status_code is not None:
        lines.append(f"  answered {run.status_code}")
    return "\n".join(line.rstrip() for line in lines)


def _is_failed_attempt(span: WaterfallSpan) -> bool:
    return span.failed and span.kind in (SpanKind.ATTEMPT, SpanKind.CALL, SpanKind.UNREACHED)


def _attempt(span: WaterfallSpan, began_ms: float) -> tuple[float, str, str, str, str]:
    what = "attempt failed" if span.kind is SpanKind.ATTEMPT else "call failed"
    error = read_error(span.error)
    return (span.start_ms - began_ms, span.title, what, "", _short(str(error or "")))


def _step(step: RecordedStep, began_ms: float) -> tuple[float, str, str, str, str]:
    title = title_of(step.id, step.index)
    took = "" if (step.duration or 0) < 0.001 else f"after {_length((step.duration or 0) * 1000)}"
    tries = f"{step.attempts} attempts" if step.attempts > 1 else ""
    if step.failed:
        said = str(step.error)
    elif step.state == "completed" and step.tool != "sleep":
        # Of an event, not its id and time, which are others each time.
        shown = step.result
        if step.tool == "wait_for_event" and isinstance(shown, dict):
            shown = shown.get("data")
        said = "-> " + json.dumps(shown, ensure_ascii=False)
    else:
        said = ""
    state = f"{step.tool} {_STATES.get(step.state, step.state)}"
    about = ", ".join(filter(None, (took, tries)))
    return (step.started.timestamp() * 1000 - began_ms, title, state, about, _short(said))


def _after(ms: float) -> str:
    return f"+{_length(max(0.0, ms))}"


def _length(ms: float) -> str:
    """Return a length of time, in the two largest units that it has."""
    left = round(ms)
    if left < 1000:
        return f"{left / 1000:g}s"
    parts = []
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    if left:
        parts.append(f"{left / 1000:g}s")
    return " ".join(parts[:2])


def _short(text: str) -> str:
    line = _ID.sub("(id)", " ".join(text.split()))
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
