"""Can an application be reached, does it know our key, and does it reach us?

It is called as for a re-entry of a run that there is not. An application with our SDK verifies the
signature (401 if it does not know the key), asks this engine for the run (503 if it cannot) and
answers 404: then all is well, and nothing was run. Of other applications, where such a call might
run something, only the origin is asked for, without any of that.
"""

from __future__ import annotations

import asyncio
import sqlite3
from enum import StrEnum
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

from msgspec import Struct

from stephttp.engine.model.run import Call
from stephttp.engine.model.tokens import new_ulid
from stephttp.engine.rules.answers import Answer
from stephttp.engine.store.sql import QUERIES

if TYPE_CHECKING:
    from random import Random

    from stephttp.engine.model.clock import Clock
    from stephttp.engine.outbound.egress import Egress
    from stephttp.engine.outbound.reentry_call import Caller
    from stephttp.engine.store.store import Store

SECONDS = 10.0
"""How long a probe may take."""

_OURS = "stephttp-"


class Verdict(StrEnum):
    """What a probe found.

    `OK`: it is well in both directions, keys included. `ANSWERS`: something answers; more cannot
    be told of an application that has no runs here, or another SDK. `WRONG_KEY`: it does not know
    the key that this engine signs with. `NO_WAY_BACK`: it cannot ask this engine for runs, or is
    refused. `NOT_OURS`: what answers is no application with our SDK (any more). `UNREACHABLE`.
    `FORBIDDEN`: this engine may not call it.
    """

    OK = "ok"
    ANSWERS = "answers"
    WRONG_KEY = "wrong_key"
    NO_WAY_BACK = "no_way_back"
    NOT_OURS = "not_ours"
    UNREACHABLE = "unreachable"
    FORBIDDEN = "forbidden"


_VERDICTS: dict[int, Verdict] = {
    HTTPStatus.NOT_FOUND: Verdict.OK,
    HTTPStatus.UNAUTHORIZED: Verdict.WRONG_KEY,
    HTTPStatus.SERVICE_UNAVAILABLE: Verdict.NO_WAY_BACK,
}


class Finding(Struct, frozen=True, forbid_unknown_fields=True):
    """What came of a probe; `status` of the answer, if there was one."""

    verdict: Verdict
    status: int | None
    took_ms: int
    detail: str | None


async def probe(
    origin: str, store: Store, egress: Egress, caller: Caller, clock: Clock, rng: Random
) -> Finding:
    """Call an application.

    Args:
        origin: such as `https://app.example.com`.
        store: remembers which SDK the application has.
        egress: says whether it may be called.
        caller: calls it.
    """
    forbidden = egress.refuse_origin(origin)
    if forbidden:
        return Finding(Verdict.FORBIDDEN, None, 0, forbidden)
    sdk = await store.read(partial(_sdk, origin=origin)) or ""
    is_ours = sdk.startswith(_OURS)
    begun_ms = clock.now_ms()
    run_id = new_ulid(begun_ms, rng)
    call = Call(run_id, "probe", 0, -1, "", sdk, origin, "GET", "/", "", "")
    try:
        async with asyncio.timeout(SECONDS):
            answer = await caller.call(call, bare=not is_ours)
    except TimeoutError:
        return Finding(Verdict.UNREACHABLE, None, round(SECONDS * 1000), "it takes too long")
    took_ms = clock.now_ms() - begun_ms
    if not isinstance(answer, Answer):
        return Finding(Verdict.UNREACHABLE, None, took_ms, answer.message)
    verdict = Verdict.ANSWERS
    if is_ours:
        marked = any(name == "x-inngest-sdk" for name, _ in answer.headers)
        verdict = _VERDICTS.get(answer.status, Verdict.NOT_OURS) if marked else Verdict.NOT_OURS
    return Finding(verdict, answer.status, took_ms, None)


def _sdk(connection: sqlite3.Connection, origin: str) -> str | None:
    row = connection.execute(QUERIES["sdk_of_origin"], {"origin": origin}).fetchone()
    return None if row is None else str(row[0])
