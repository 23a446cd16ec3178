"""`doctor`'s look at an application, by the engine: whether it can be reached, knows the engine's
key, and reaches the engine.

The engine calls it like a re-entry, of a run that does not exist. An application with stephttp
verifies the signature (401 if it does not know the key), asks this engine for the run (503 if it
cannot) and answers 404: then all is well, and nothing was run. For other applications such a call
might run something, so they get a plain GET of their origin.
"""

from __future__ import annotations

import asyncio
import sqlite3
from enum import StrEnum
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

from msgspec import Struct

from stephttp.engine.model.call import EndpointCall
from stephttp.engine.model.tokens import new_ulid
from stephttp.engine.outbound.connection import TLSError
from stephttp.engine.rules.answers import HTTPResponse
from stephttp.engine.store.sql import QUERIES

if TYPE_CHECKING:
    from random import Random

    from stephttp.engine.model.clock import Clock
    from stephttp.engine.outbound.egress import Egress
    from stephttp.engine.outbound.reentry_call import EndpointCaller
    from stephttp.engine.store.store import Store

SECONDS = 10.0
"""How long a probe may take."""

_OURS = "stephttp-"


class ProbeVerdict(StrEnum):
    """The finding of a probe.

    `OK`: both directions work, keys included. `ANSWERS`: something answers; nothing more can be
    found out about an application that has no runs here, or another SDK. `WRONG_KEY`: it does not
    know the key that this engine signs with. `NO_WAY_BACK`: it cannot ask this engine for runs, or
    is refused. `NOT_OURS`: the answer does not come from an application with stephttp (any more).
    `UNREACHABLE`: there is no answer. `TLS`: there is no secure connection. `FORBIDDEN`: this
    engine may not call it.
    """

    OK = "ok"
    ANSWERS = "answers"
    WRONG_KEY = "wrong_key"
    NO_WAY_BACK = "no_way_back"
    NOT_OURS = "not_ours"
    UNREACHABLE = "unreachable"
    TLS = "tls"
    FORBIDDEN = "forbidden"


_VERDICTS: dict[int, ProbeVerdict] = {
    HTTPStatus.NOT_FOUND: ProbeVerdict.OK,
    HTTPStatus.UNAUTHORIZED: ProbeVerdict.WRONG_KEY,
    HTTPStatus.SERVICE_UNAVAILABLE: ProbeVerdict.NO_WAY_BACK,
}


class ProbeFinding(Struct, frozen=True, forbid_unknown_fields=True):
    """The result of a probe; `status` is that of the answer, if there was one."""

    verdict: ProbeVerdict
    status: int | None
    took_ms: int
    detail: str | None


async def probe(
    origin: str, store: Store, egress: Egress, caller: EndpointCaller, clock: Clock, rng: Random
) -> ProbeFinding:
    """Call an application.

    Args:
        origin: such as `https://app.example.com`.
        store: remembers which SDK the application has.
        egress: says whether it may be called.
        caller: calls it.
    """
    forbidden = egress.refuse_origin(origin)
    if forbidden:
        return ProbeFinding(ProbeVerdict.FORBIDDEN, None, 0, forbidden)
    sdk = await store.read(partial(_sdk, origin=origin)) or ""
    is_ours = sdk.startswith(_OURS)
    begun_ms = clock.now_ms()
    run_id = new_ulid(begun_ms, rng)
    call = EndpointCall(run_id, "probe", 0, -1, "", sdk, origin, "GET", "/", "", "")
    try:
        async with asyncio.timeout(SECONDS):
            answer = await caller.call(call, bare=not is_ours)
    except TimeoutError:
        return ProbeFinding(
            ProbeVerdict.UNREACHABLE, None, round(SECONDS * 1000), "it takes too long"
        )
    took_ms = clock.now_ms() - begun_ms
    if not isinstance(answer, HTTPResponse):
        verdict = ProbeVerdict.TLS if answer.name == TLSError.__name__ else ProbeVerdict.UNREACHABLE
        return ProbeFinding(verdict, None, took_ms, answer.message)
    verdict = ProbeVerdict.ANSWERS
    if is_ours:
        marked = any(name == "x-inngest-sdk" for name, _ in answer.headers)
        verdict = (
            _VERDICTS.get(answer.status, ProbeVerdict.NOT_OURS) if marked else ProbeVerdict.NOT_OURS
        )
    return ProbeFinding(verdict, answer.status, took_ms, None)


def _sdk(connection: sqlite3.Connection, origin: str) -> str | None:
    row = connection.execute(QUERIES["sdk_of_origin"], {"origin": origin}).fetchone()
    return None if row is None else str(row[0])
