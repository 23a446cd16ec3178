"""The extras beyond Inngest's protocol (docs/design.md 3.8): batches, leases, outcomes."""

from __future__ import annotations

import sqlite3
from base64 import b64encode
from functools import partial
from typing import Any

import msgspec
from msgspec import Raw, Struct
from starlette.requests import Request
from starlette.responses import Response

from stephttp.engine.api.sdk.checkpoint import TAKEN_OVER, read_opening, read_report
from stephttp.engine.live.waiters import FIRST_PHASE
from stephttp.engine.model import tokens
from stephttp.engine.model.run import Refused, RunStatus
from stephttp.engine.rules.decoding import decode
from stephttp.engine.rules.results import render
from stephttp.engine.store.runs import unknown
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.web.requests import (
    RenewRequest,
    engine_of,
    error_response,
    parse_run_id,
    read_body,
    wrapped,
)
from stephttp.engine.work.batches import Item, Taken

_LARGEST_BATCH = 1000
_LONGEST_WAIT = 20.0
"""Seconds."""


class _Kind(Struct):
    """As much of an item as it takes to tell what it is."""

    event: Raw = Raw()


_ITEMS = msgspec.json.Decoder(list[Raw])
_KIND = msgspec.json.Decoder(_Kind)
_RENEW = msgspec.json.Decoder(RenewRequest)


async def batch(request: Request) -> Response:
    """Take many checkpoints: a JSON array of what `/v1/checkpoint` and `.../steps` take.

    Each gets an answer of its own, so that a bad one does not spoil the others.
    """
    engine = engine_of(request)
    raws = decode(_ITEMS, await read_body(request, engine.settings.max_body))
    if len(raws) > _LARGEST_BATCH:
        raise Refused(f"body: {len(raws)} items, at most {_LARGEST_BATCH} are possible", 413)
    sdk = request.headers.get("x-inngest-sdk", "")
    read: list[Item | Refused] = []
    for raw in raws:
        try:
            body = bytes(raw)
            if not bytes(decode(_KIND, body).event):
                read.append(read_report(body))
                continue
            opening, claim = read_opening(engine, body, sdk)
            if claim is not None:
                raise Refused("claim: not possible in a batch, because its sender waits for it")
            read.append(opening)
        except Refused as error:
            read.append(error)
    taken = iter(await engine.take([item for item in read if not isinstance(item, Refused)]))
    outcomes = [item if isinstance(item, Refused) else next(taken) for item in read]
    return wrapped({"items": [_told(outcome) for outcome in outcomes]}, engine.clock.now_ms())


async def renew(request: Request) -> Response:
    """Move leases ahead, all of a process at once; tells which of the runs have none any more."""
    engine = engine_of(request)
    message = decode(_RENEW, await read_body(request, engine.settings.max_body))
    run_ids = [parse_run_id(run_id, f"runs[{index}]") for index, run_id in enumerate(message.runs)]
    lost = await engine.renew(run_ids, message.lease)
    return wrapped({"lost": lost}, engine.clock.now_ms())


async def outcome(request: Request) -> Response:
    """How a run's first phase ended: `wait` so many seconds for that.

    States: `sync` (it goes on), `async` (then with the token of the output), `ended` (then with
    status, headers and base64 body of the answer).
    """
    engine = engine_of(request)
    run_id = parse_run_id(request.path_params["run"])
    deadline_ms = engine.clock.now_ms() + round(_seconds(request, "wait") * 1000)
    look = partial(_look, run_id=run_id)
    with engine.waiters.waiting(FIRST_PHASE + run_id) as moved:
        data = await engine.store.read(look)
        if data["state"] == RunStatus.SYNC:
            while not moved.is_set() and engine.clock.now_ms() < deadline_ms:
                await engine.clock.wait_until(deadline_ms, moved)
            if engine.waiters.released:
                return error_response("the engine is stopping", 503, {"retry-after": "1"})
            data = await engine.store.read(look)
    now_ms = engine.clock.now_ms()
    if data["state"] == RunStatus.ASYNC:
        lifetime = engine.settings.token_lifetime
        data["token"] = tokens.run_token(run_id, engine.store.secret, now_ms // 1000, lifetime)
    return wrapped(data, now_ms)


def _told(outcome: Taken | Refused) -> dict[str, Any]:
    if isinstance(outcome, Refused):
        return {"status": outcome.status, "error": str(outcome)}
    return {"status": 409, "error": TAKEN_OVER} if outcome.lost else {"status": 200}


def _look(connection: sqlite3.Connection, run_id: str) -> dict[str, Any]:
    row = connection.execute(QUERIES["run_output"], (run_id,)).fetchone()
    if row is None:
        raise unknown(run_id)
    status = RunStatus(row[0])
    if not status.ended:
        return {"state": status.value}
    answer = render(status, *row[1:])
    return {
        "state": "ended",
        "status": answer.status,
        "headers": answer.headers,
        "body": b64encode(answer.body).decode(),
    }


def _seconds(request: Request, name: str) -> float:
    text = request.query_params.get(name, "0")
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Refused(f"{name}: {text[:64]!r} is not a whole number of seconds")
    return min(float(text), _LONGEST_WAIT)
