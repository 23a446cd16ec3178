"""How pages write values: durations, times, JSON, long texts, a request as a curl command.
Pure; the functions are filters of the templates.
"""

from __future__ import annotations

import re
import shlex
from typing import Any

import msgspec
from markupsafe import Markup, escape

from stephttp._wire.json import UNREADABLE
from stephttp.engine.model.clock import rfc3339
from stephttp.engine.reading import SourceRequest

LONGEST_SHOWN = 20_000
"""Characters of a value that a page shows; the rest can be downloaded."""

NOTHING = "\u2013"
"""What a page shows in place of a missing value."""

# Once begun, a text matches to its end, which may be cut off. To search again from each quotation
# mark in it would take quadratic time, and strangers choose what the text is.
_TOKEN = re.compile(
    r'(?P<text>"(?:[^"\\]|\\.)*+"?)'
    r"|(?P<number>-?\b\d+(?:\.\d+)?(?:[eE][+-]?\d+)?\b)|(?P<word>\b(?:true|false|null)\b)",
    re.DOTALL,
)
_COLON = re.compile(r"\s*:")
_ZEROS = re.compile(r"\.0+(?= )|(?<=\.\d)0+(?= )")


def duration(ms: float | None) -> str:
    """Write a length of time, in at most two units."""
    if ms is None:
        return NOTHING
    if ms < 0.05:
        return "0 ms"
    if ms < 9.95:
        return f"{ms:.1f} ms"
    if ms < 999.5:
        return f"{ms:.0f} ms"
    seconds = ms / 1000
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def period(ms: int) -> str:
    """Write a length of time that was chosen, such as a limit's, without decimals of no value."""
    return _ZEROS.sub("", duration(ms))


def number(value: float | None) -> str:
    """Write a count or a rate."""
    if value is None:
        return NOTHING
    if value == int(value):
        return f"{int(value):,}".replace(",", "\u202f")
    return f"{value:.1f}" if value >= 0.1 else f"{value:.2f}"


def percent(part: float | None) -> str:
    """Write a fraction as a percentage."""
    if part is None:
        return NOTHING
    shown = part * 100
    return f"{shown:.0f} %" if shown == int(shown) or shown >= 10 else f"{shown:.1f} %"


def iso(ms: float | None) -> str:
    """Write a time for machines."""
    return rfc3339(None if ms is None else round(ms)) or ""


def utc_time(ms: float | None) -> str:
    """Write a time in UTC; scripts, where they run, show it in the viewer's zone."""
    text = iso(ms)
    return f"{text[:10]} {text[11:19]} UTC" if text else ""


def as_text(raw: bytes | str | None) -> str:
    """Return a value as text: JSON indented, other text unchanged, other bytes replaced."""
    if raw is None:
        return ""
    data = raw.encode() if isinstance(raw, str) else raw
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
        data = msgspec.json.format(data, indent=2)
    except UNREADABLE:
        pass
    return data.decode("utf-8", "replace")


def shown(raw: bytes | str | None) -> Markup:
    """Return `as_text`, in colours, cut to what a page shows."""
    return highlighted(as_text(raw)[:LONGEST_SHOWN])


def is_cut(raw: bytes | str | None) -> bool:
    """Return whether `shown` leaves something out."""
    return raw is not None and len(as_text(raw)) > LONGEST_SHOWN


def highlighted(text: str) -> Markup:
    """Return JSON with its parts marked up; everything is escaped."""
    if text[:1] not in ("{", "["):
        return escape(text)
    parts, last = [], 0
    for match in _TOKEN.finditer(text):
        parts.append(escape(text[last : match.start()]))
        mark = Markup('<span class="j-{}">{}</span>')
        last = match.end()
        kind = match.lastgroup
        if kind == "text" and _COLON.match(text, last):
            kind = "key"
        parts.append(mark.format(kind, match.group()))
    return Markup("").join([*parts, escape(text[last:])])


def error_of(raw: bytes | None) -> dict[str, Any]:
    """Return name, message and stack of a stored error."""
    try:
        value = msgspec.json.decode(raw or b"null")
    except UNREADABLE:
        value = None
    if not isinstance(value, dict):
        text = as_text(raw)
        return {"name": "Error", "message": text, "stack": None} if text else {}
    return {
        "name": str(value.get("name") or "Error"),
        "message": str(value.get("message") or ""),
        "stack": value.get("stack") and str(value["stack"]),
    }


def curl(request: SourceRequest) -> str:
    """Write the request as a command line, without secrets and without a body that is not text."""
    query = f"?{request.query}" if request.query else ""
    url = request.origin.rstrip("/") + request.path + query
    lines = [f"curl -X {shlex.quote(request.method)} {shlex.quote(url)}"]
    headers = [(one.name, one.value) for one in request.headers or () if not one.masked]
    if request.content_type and not any(name.lower() == "content-type" for name, _ in headers):
        headers.insert(0, ("content-type", request.content_type))
    lines += [f"-H {shlex.quote(f'{name}: {value}')}" for name, value in headers]
    if request.body and len(request.body) > LONGEST_SHOWN:
        lines.append("--data-binary @body  # too long for a command: download it")
    elif request.body:
        try:
            lines.append(f"--data-binary {shlex.quote(request.body.decode())}")
        except UnicodeDecodeError:
            lines.append("--data-binary @body  # not text: download it")
    return " \\\n  ".join(lines)


def event_data(raw: bytes) -> str:
    """Return the data of an event, in one line."""
    try:
        event = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        return msgspec.json.format(event.get("data", msgspec.Raw(b"null")), indent=-1).decode()
    except UNREADABLE:
        return as_text(raw)


def step_input(raw: bytes | None) -> bytes:
    """Return the input of a step, from its options; empty if the SDK did not send it."""
    try:
        opts = msgspec.json.decode(raw or b"null", type=dict[str, msgspec.Raw] | None) or {}
        return bytes(opts.get("input", b""))
    except UNREADABLE:
        return b""
