"""The extensions of Inngest's protocol (docs/design.md 3.8): batches of checkpoints, renewal
of leases, outcomes.
"""

from __future__ import annotations

import sqlite3
from base64 import b64encode
from functools import partial

import msgspec
from msgspec import Raw, Struct
from starlette.requests import Request
from starlette.responses import Response

from stephttp.engine.api.sdk.checkpoint import TAKEN_OVER, read_opening, read_report
from stephttp.engine.api.sdk.checkpoint_messages import RenewRequest
from stephttp.engine.live.changes import FIRST_PHASE
from stephttp.engine.model import tokens
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.run import RunStatus
from stephttp.engine.rules.results import render
from stephttp.engine.store.runs import unknown
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.web.fields import AnswerBody, Base64, NameAndValue, RunId
from stephttp.engine.web.requests import decode, engine_of, parse_run_id, read_json
from stephttp.engine.web.responses import error_response, wrapped
from stephttp.engine.work.checkpoints import Item, Taken

_LARGEST_BATCH = 1000
_LONGEST_WAIT = 20.0
"""Seconds."""


class _EventOnly(Struct):
    """As much of an item as it takes to see what it is."""

    event: Raw = Raw()


class BatchItem(AnswerBody, omit_defaults=True):
    """What became of one item: 200, or a status and the reason."""

    status: int
    error: str = ""


class BatchAnswer(AnswerBody):
    """One for each item of the batch, in its order."""

    items: list[BatchItem]


class LostLeases(AnswerBody):
    """Runs that have no lease any more: another process has taken them over, or they ended."""

    lost: list[RunId]


class StillSync(AnswerBody, tag_field="state", tag="sync"):
    """The handler still answers the first request."""


class NowAsync(AnswerBody, tag_field="state", tag="async"):
    """The run continues in the background; `token` opens its output."""

    token: str


class Ended(AnswerBody, tag_field="state", tag="ended"):
    """The run has ended, with this answer."""

    status: int
    headers: list[NameAndValue]
    body: Base64


Outcome = StillSync | NowAsync | Ended

_ITEMS = msgspec.json.Decoder(list[Raw])
_KIND = msgspec.json.Decoder(_EventOnly)
_RENEW = msgspec.json.Decoder(RenewRequest)


async def batch(request: Request) -> Response:
    """Accept many checkpoints: a JSON array of what `/v1/checkpoint` and `.../steps` take.

    Each gets an answer of its own, so that a bad one does not spoil the others.
    """
    engine = engine_of(request)
    raws = await read_json(request, _ITEMS)
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
            if opening.within_limits:
                raise Refused("within_limits: not possible in a batch; its sender waits for it")
            read.append(opening)
        except Refused as error:
            read.append(error)
    taken = iter(await engine.take([item for item in read if not isinstance(item, Refused)]))
    outcomes = [item if isinstance(item, Refused) else next(taken) for item in read]
    answer = BatchAnswer([_batch_item(outcome) for outcome in outcomes])
    return wrapped(answer, engine.clock.now_ms())


async def renew(request: Request) -> Response:
    """Move leases ahead, all of a process at once."""
    engine = engine_of(request)
    message = await read_json(request, _RENEW)
    run_ids = [parse_run_id(run_id, f"runs[{index}]") for index, run_id in enumerate(message.runs)]
    lost = await engine.renew(run_ids, message.lease)
    return wrapped(LostLeases(lost), engine.clock.now_ms())


async def outcome(request: Request) -> Response:
    """Report how a run's first phase ended; wait so many seconds for that.

    With `cookies=no` its token opens an output that sets none.
    """
    engine = engine_of(request)
    run_id = parse_run_id(request.path_params["run"])
    end = engine.clock.monotonic() + _seconds(request, "wait")
    look = partial(_look, run_id=run_id)
    with engine.waiters.waiting(FIRST_PHASE + run_id) as moved:
        found = await engine.store.read(look)
        if isinstance(found, StillSync):
            await engine.clock.wait_for(end - engine.clock.monotonic(), moved)
            if engine.waiters.released:
                return error_response("the engine is stopping", 503, {"retry-after": "1"})
            found = await engine.store.read(look)
    now_ms = engine.clock.now_ms()
    if found is None:
        token = tokens.run_token(
            run_id, engine.store.secret, now_ms // 1000,
            cookies=request.query_params.get("cookies") != "no",
        )  # fmt: skip
        return wrapped(NowAsync(token), now_ms)
    return wrapped(found, now_ms)


def _batch_item(outcome: Taken | Refused) -> BatchItem:
    if isinstance(outcome, Refused):
        return BatchItem(outcome.status, str(outcome))
    return BatchItem(409, TAKEN_OVER) if outcome.lost else BatchItem(200)


def _look(connection: sqlite3.Connection, run_id: str) -> StillSync | Ended | None:
    """Look where a run stands; `None`: it is async."""
    row = connection.execute(QUERIES["run_output"], (run_id,)).fetchone()
    if row is None:
        raise unknown(run_id)
    status = RunStatus(row[0])
    if not status.ended:
        return StillSync() if status is RunStatus.SYNC else None
    answer = render(status, *row[1:4])
    headers = [[name, value] for name, value in answer.headers]
    return Ended(answer.status, headers, b64encode(answer.body).decode())


def _seconds(request: Request, name: str) -> float:
    text = request.query_params.get(name, "0")
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Refused(f"{name}: {text[:64]!r} is not a whole number of seconds")
    return min(float(text), _LONGEST_WAIT)
