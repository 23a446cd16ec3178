"""The events that started runs: of functions, and for endpoints their requests in the form of an
event, as SDKs get them."""

from __future__ import annotations

import sqlite3
from base64 import b64encode
from typing import Any

import msgspec

from stephttp.engine.store.runs import unknown
from stephttp.engine.store.sql import QUERIES


def load_trigger(connection: sqlite3.Connection, run_id: str) -> tuple[str, dict[str, Any]]:
    """Load the status of a run, and the event that started it, the first one of a batch.

    Raises:
        Refused: there is no such run.
    """
    status, events = load_triggers(connection, run_id)
    return status, events[0]


def load_triggers(connection: sqlite3.Connection, run_id: str) -> tuple[str, list[dict[str, Any]]]:
    """Load the status of a run, and the events that started it, in their order.

    Raises:
        Refused: there is no such run.
    """
    row = connection.execute(QUERIES["run_event"], (run_id,)).fetchone()
    if row is None:
        raise unknown(run_id)
    status, events, *http = row
    if events is not None:
        return status, msgspec.json.decode(events, type=list[dict[str, Any]])
    event_id, name, ts, domain, method, path, query, content_type, ip, fn, body = http
    data = {
        "body": None if body is None else b64encode(body).decode(),
        "content_type": content_type,
        "domain": domain,
        "fn": fn,
        "ip": ip,
        "method": method,
        "path": path,
        "query_params": query,
    }
    return status, [{"data": data, "id": event_id, "name": name, "ts": ts}]
