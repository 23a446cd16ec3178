"""The format of the engine's log (`--log-format`): a JSON object or a text for each line."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TextIO


class LogFormat(StrEnum):
    """The choices of `--log-format`."""

    JSON = "json"
    TEXT = "text"


# These log the URL, with its query, of every request.
_NOISY = ("httpx2", "httpcore2", "httpx", "httpcore")


def set_up(form: LogFormat, stream: TextIO = sys.stdout) -> None:
    """Send everything from level INFO to `stream`.

    Args:
        form: the format of each line.
        stream: where lines go. The log of a service is its output, not its errors.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Json() if form is LogFormat.JSON else _Text())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    # Its lines about start and end only repeat ours.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


def _entry(record: logging.LogRecord) -> dict[str, Any]:
    when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    entry: dict[str, Any] = {"time": when.replace("+00:00", "Z"), "level": record.levelname.lower()}
    event = getattr(record, "event", None)
    if event is None:
        entry |= {"event": "log", "message": record.getMessage(), "logger": record.name}
    else:
        entry |= {"event": event, "message": getattr(record, "summary", "")}
        entry |= {name: value for name, value in _fields(record).items() if name not in entry}
    if record.exc_info:
        entry["traceback"] = logging.Formatter().formatException(record.exc_info)
    return entry


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = getattr(record, "fields", {})
    return fields


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_entry(record), default=str)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = _entry(record)
        traceback = entry.pop("traceback", None)
        head = [entry.pop(name) for name in ("time", "level", "event", "message")]
        # As JSON, so that nothing in a value can look like another line.
        rest = [f"{name}={json.dumps(value, default=str)}" for name, value in entry.items()]
        head[1], head[3] = head[1].upper(), json.dumps(head[3])[1:-1]
        line = " ".join([*head, *rest])
        return f"{line}\n{traceback}" if traceback else line
