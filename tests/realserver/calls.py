"""The request by which the server calls an application again (docs/protocol.md 6.1)."""

from __future__ import annotations

import base64

import httpx2
from ulid import ULID

from stephttp._wire.signatures import sign
from tests.realserver.state import EVENT_NAME, Item, RealRun


def request_of(run: RealRun, item: Item, *, key: str, now: float, plan: bool) -> httpx2.Request:
    """Return the re-entry for an item.

    Args:
        key: the signing key; empty: none.
        now: seconds since the epoch.
        plan: whether step plans are asked for on every call.
    """
    data = run.event["data"]
    faithful = run.event["name"] == EVENT_NAME
    body = base64.b64decode(data.get("body") or "") if faithful else b""
    url = data["domain"] + data["path"]
    if faithful and data["query_params"]:
        url += "?" + data["query_params"]
    headers = {
        "user-agent": "Inngest",
        "connection": "close",
        "accept-encoding": "gzip",
        "content-type": (data["content_type"] if faithful else "") or "application/json",
        "x-inngest-generation-id": str(item.generation),
        "x-inngest-job-id": item.job,
        "x-inngest-req-version": str(run.version),
        "x-inngest-signature": sign(key, body, int(now)) if key else "",
        "x-request-id": str(ULID()),
        "x-run-id": run.run_id,
    }
    if run.force_plan or plan:
        headers["x-inngest-force-step-plan"] = "true"
    if item.step_id:
        headers["x-inngest-step-id"] = item.step_id
    # The method is the function's: that of whichever run was the last to say another one.
    return httpx2.Request(run.function.config.method, url, headers=headers, content=body)
