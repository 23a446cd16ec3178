"""Runs and events, printed for people: the table of `runs list`, and all of `runs show`."""

from __future__ import annotations

import json
from base64 import b64decode
from datetime import datetime
from typing import Any

from rich.text import Text

from stephttp.cli.printing import clean, console, duration, local_time, print_table, state

_LONGEST = 2_000


def run_table(runs: list[dict[str, Any]]) -> None:
    """Print a list of runs."""
    rows = [
        (
            one["run_id"],
            state(one["state"]),
            one["function"],
            local_time(one["began_at"]),
            duration(_lasted(one)),
            str(one["steps"]),
            _about(one),
        )
        for one in runs
    ]
    print_table(("RUN", "STATE", "ENDPOINT", "BEGAN", "LASTED", "STEPS", ""), rows)


def run(detail: dict[str, Any]) -> None:
    """Print a run in full."""
    out = console()
    request, response = detail["request"], detail["response"]
    query = f"?{request['query']}" if request["query"] else ""
    target = f"{request['origin']}{request['path']}{query}"
    head = Text.assemble(detail["run_id"], "  ", state(detail["state"]))
    out.print(head, "", Text(clean(detail["function"])))
    _line("request", f"{request['method']} {target}")
    event = detail.get("started_by")
    if event is not None:
        data = _short(json.dumps(event.get("data"), ensure_ascii=False), 80)
        _line("started by", f"{event['name']} {data}")
    _line("began", local_time(detail["began_at"]))
    _line("ended", local_time(detail["ended_at"]))
    _line("lasted", duration(_lasted(detail)))
    _line("rerun of", detail["rerun_of"])
    _line("reruns", ", ".join(detail["reruns"]))
    if detail["attempt"] and not detail["ended_at"]:
        _line("attempt of the handler", f"{detail['attempt'] + 1} of {detail['retries'] + 1}")
    for one in detail["waiting_for"]:
        _line("waits for", wait(one))
    for one in detail.get("limits") or ():
        _line("may be cancelled", _limit(one))
    if detail["error"]:
        _line("error", _error(detail["error"]))
    elif detail["last_error"]:
        why = "cancelled" if detail["state"] == "cancelled" else "last error"
        _line(why, detail["last_error"])
    for warning in detail.get("warnings") or ():
        _line("warning", warning["message"])
    for one in detail.get("metadata") or ():
        of = f" of {one['step'] or one['step_id']}" if one["step_id"] else ""
        values = _short(json.dumps(one["values"], ensure_ascii=False), 80)
        _line("metadata", f"{one['kind']}{of} {values}")
    for key, session in sorted((detail.get("sessions") or {}).items()):
        _line("session", f"{key} {session}")
    if detail["step_list"]:
        out.print()
        print_table(("STEP", "STATE", "OP", "TRIES", "LASTED", "RESULT"), _steps(detail))
    if response:
        out.print()
        _line("response", str(response["status"]))
        out.print(Text(_body(response["body"])))


def event_table(events: list[dict[str, Any]]) -> None:
    """Print a list of events."""
    rows = [
        (
            one["internal_id"],
            one["name"],
            local_time(one["received_at"]),
            _short(json.dumps(one.get("data"), ensure_ascii=False), 80),
        )
        for one in events
    ]
    print_table(("EVENT", "NAME", "RECEIVED", "DATA"), rows)


def _steps(detail: dict[str, Any]) -> list[tuple[str | Text, ...]]:
    rows: list[tuple[str | Text, ...]] = []
    spans = detail.get("user_spans") or []
    for step in detail["step_list"]:
        result = _error(step["error"]) if step["error"] else _compact(step["output"])
        title = step["id"] or step["name"] or step["step_id"]
        if step["index"]:
            title = f"{title}:{step['index']}"
        rows.append(
            (
                title,
                state(step["state"]),
                step["op"],
                str(step["attempts"]),
                duration(step["duration_ms"]),
                _short(result, 80),
            )
        )
        for span in spans:
            if span["step_id"] == step["step_id"]:
                failed = span["status"] == "error"
                rows.append(
                    (f"  {span['name']}", state("failed") if failed else "", "span", "",
                     duration(span["duration_ms"]), "")
                )  # fmt: skip
    return rows


def _line(name: str, value: str | None) -> None:
    if value:
        console().print(Text(f"{name:<10}", style="bold"), Text(clean(value)), sep=" ")


def _about(one: dict[str, Any]) -> str:
    if one["error"]:
        return _short(_error(one["error"]), 60)
    if one["waiting_for"]:
        return wait(one["waiting_for"][0])
    return _short(one["last_error"] or "", 60)


def wait(one: dict[str, Any]) -> str:
    """Return what a run waits for, as text."""
    if one.get("behind_limit"):
        return f"its turn behind a limit, since {local_time(one['due_at'])}"
    if one["kind"] == "resume":
        return f"the next call, due {local_time(one['due_at'])}"
    what = " ".join(part for part in (one["kind"], one["step"], one["key"]) if part)
    return f"{what} until {local_time(one['due_at'])}" if one["due_at"] else what


def _limit(one: dict[str, Any]) -> str:
    """Return what may cancel a run, as text."""
    if one["kind"] == "cancel":
        return f"by {one['key']}" + (f" if {one['condition']}" if one["condition"] else "")
    what = "is not called" if one["kind"] == "start" else "has not ended"
    return f"if it {what} by {local_time(one['due_at'])}"


def _error(error: dict[str, Any]) -> str:
    name, message = error.get("name") or "Error", error.get("message") or ""
    return f"{name}: {message}" if message else name


def _lasted(one: dict[str, Any]) -> float | None:
    if not one["ended_at"]:
        return None
    began, ended = (datetime.fromisoformat(one[name]) for name in ("began_at", "ended_at"))
    return max(0.0, (ended - began).total_seconds() * 1000)


def _compact(value: Any) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _body(encoded: str) -> str:
    raw = b64decode(encoded)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return f"({len(raw)} bytes that are not text)"
    return "\n".join(map(clean, _short(text, _LONGEST).splitlines()))
