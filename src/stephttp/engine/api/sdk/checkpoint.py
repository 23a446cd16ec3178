"""`POST /v1/checkpoint` and its steps: what handlers report (docs/protocol.md 4.2, 4.3)."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import Response

from stephttp._wire.ids import ulid_ms
from stephttp._wire.limits import MAX_RETRIES
from stephttp.engine.api.sdk.checkpoint_messages import (
    METHOD_PATTERN,
    ClaimRequest,
    NewRunAnswer,
    NewRunRequest,
    RequestData,
    StepsRequest,
)
from stephttp.engine.live.channels import STREAM
from stephttp.engine.model import tokens
from stephttp.engine.model.function_ids import ids
from stephttp.engine.model.inputs import Hints
from stephttp.engine.model.refused import SUPERSEDED, Refused
from stephttp.engine.model.run import NewRun, Run, RunStatus
from stephttp.engine.rules.answers import leaves_failed_steps
from stephttp.engine.rules.endpoint_gates import gates_of
from stephttp.engine.web.requests import decode, engine_of, parse_run_id, read_body
from stephttp.engine.web.responses import wrapped
from stephttp.engine.work.keys import ScopedKey
from stephttp.engine.work.report import FurtherSteps
from stephttp.engine.work.start import FirstCheckpoint

if TYPE_CHECKING:
    from stephttp.engine.engine import Engine

_NEW_RUN = msgspec.json.Decoder(NewRunRequest)
_STEPS = msgspec.json.Decoder(StepsRequest)
_ORIGIN = re.compile(r"https?://[^\s/?#@\\]+/?", re.IGNORECASE)
_METHOD = re.compile(METHOD_PATTERN)
_NEGATIVE_RETRIES = 4
_SDK_LENGTH = 100
_UNNAMED_JS = "inngest-js:"
_LONGEST_DELAY_MS = 86_400_000
"""An id that is older when its run is first reported does not say when the request came in."""

TAKEN_OVER = "run_id: the run is no longer in the hands of its first process"


async def first(request: Request) -> Response:
    """Make a run, with the steps that it has done so far."""
    engine = engine_of(request)
    body = await read_body(request, engine.settings.max_body)
    opening, claim = read_opening(engine, body, request.headers.get("x-inngest-sdk", ""))
    run_id, retry_after = opening.new.run_id, 0
    if opening.within_limits:
        outcome = await engine.open_within_limits(opening)
        if isinstance(outcome, int):
            retry_after = outcome
        elif outcome.lost:
            raise Refused(TAKEN_OVER, 409)
    elif claim is not None:
        key = ScopedKey.of(claim.scope, claim.key, claim.request)
        run_id = await engine.claim(key, opening)
    elif opening.lease_ms is not None:
        (taken,) = await engine.take([opening])
        if isinstance(taken, Refused):
            raise taken
        if taken.lost and opening.ops:  # another call has the run, and may not know of them
            raise Refused(TAKEN_OVER, 409)
    else:
        await engine.start_run(opening)
    return wrapped(_answer(engine, run_id, opening, retry_after), engine.clock.now_ms())


def _answer(
    engine: Engine, run_id: str, opening: FirstCheckpoint, retry_after: int
) -> NewRunAnswer:
    now_ms, secret, settings = engine.clock.now_ms(), engine.store.secret, engine.settings
    jti = tokens.new_ulid(now_ms, engine.rng)
    return NewRunAnswer(
        fn_id=opening.run.fn_id,
        app_id=opening.new.app_id,
        run_id=run_id,
        token=tokens.run_token(run_id, secret, now_ms // 1000),
        realtime_token=tokens.realtime_token(
            [(run_id, STREAM)], secret, now_ms // 1000, settings.realtime_token_lifetime, jti
        ),
        retry_after=retry_after,
    )


def read_opening(
    engine: Engine, body: bytes, sdk: str
) -> tuple[FirstCheckpoint, ClaimRequest | None]:
    """Read a first checkpoint.

    Raises:
        Refused: it is not acceptable; the text names the field.
    """
    message = decode(_NEW_RUN, body)
    engine.caller.note_process(message.event.data.domain, message.process)
    run_id = parse_run_id(message.run_id)
    event, data = message.event, message.event.data
    _check_endpoint(data)
    forbidden = engine.egress.refuse_origin(data.domain)
    if forbidden:
        raise Refused(f"event.data.domain: {forbidden}", 403)
    now_ms = engine.clock.now_ms()
    slug = data.fn or f"{data.method} {data.path}"
    app_id, fn_id = ids(data.domain, slug)
    new = NewRun(
        run_id=run_id,
        app_id=app_id,
        slug=slug,
        digest=sha256(body).digest(),
        event_id=event.id or tokens.new_ulid(now_ms, engine.rng),
        event_name=event.name,
        event_ts=now_ms if event.ts is None else event.ts,
        fn=data.fn,
        domain=data.domain,
        method=data.method,
        path=data.path,
        query=data.query_params,
        content_type=data.content_type,
        ip=data.ip,
        # Some versions of the TypeScript SDK do not name themselves here.
        sdk=sdk[:_SDK_LENGTH] or ("" if message.ts is None else _UNNAMED_JS),
        reads_state=message.reads_state,
        created_ms=now_ms,
        began_ms=_began_ms(run_id, now_ms),
        body=_body(data.body),
    )
    version = message.request_version
    state = Run(
        run_id=run_id,
        status=RunStatus.SYNC,
        retries=_retries(message.retries if message.own_retries is None else message.own_retries),
        request_version=-1 if version is None else version,
        fn_id=fn_id,
    )
    if message.claim is not None and message.lease is None:
        raise Refused("lease: a claim needs one, so that a run whose process dies is taken over")
    if message.within_limits:
        _check_within_limits(message)
    hints = Hints(leaves=leaves_failed_steps(new.sdk))
    opening = FirstCheckpoint(new, state, message.steps or [], message.lease, hints)
    limits = message.limits
    if limits is not None:
        gates = gates_of(limits, app_id, fn_id)
        opening = replace(
            opening, gates=gates, priority=limits.priority, within_limits=message.within_limits
        )
    return opening, message.claim


async def steps(request: Request) -> Response:
    """Accept more steps of a run."""
    engine = engine_of(request)
    run_id = parse_run_id(request.path_params["run"])
    report = read_report(await read_body(request, engine.settings.max_body), run_id)
    if report.run_id != run_id:
        raise Refused("run_id: the path names another run than the body")
    if report.lease_ms is None:
        if await engine.report(run_id, list(report.ops), call=report.call):
            raise Refused(SUPERSEDED, 409)
        return Response()
    (taken,) = await engine.take([report])
    if isinstance(taken, Refused):
        raise taken
    if taken.lost:
        raise Refused(TAKEN_OVER, 409)
    return Response()


def read_report(body: bytes, run_id: str | None = None) -> FurtherSteps:
    """Read a further checkpoint, of the run `run_id` unless it names another.

    Raises:
        Refused: it is not acceptable; the text names the field.
    """
    message = decode(_STEPS, body)
    for field in ("fn_id", "app_id"):
        check_uuid(field, getattr(message, field))
    run_id = parse_run_id(message.run_id or run_id or "")
    return FurtherSteps(run_id, message.steps, message.lease, message.call)


def check_origin(origin: str, field: str) -> None:
    """Check that a text is an origin.

    Raises:
        Refused: it is not; the text names the field.
    """
    if not _is_origin(origin):
        raise Refused(f"{field}: {origin[:200]!r} is not an origin such as https://host:port")


def _check_endpoint(data: RequestData) -> None:
    check_origin(data.domain, "event.data.domain")
    if not _METHOD.fullmatch(data.method):
        raise Refused(f"event.data.method: {data.method[:64]!r} is not an HTTP method")


@lru_cache(maxsize=1024)
def _is_origin(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return bool(_ORIGIN.fullmatch(text) and parts.port != 0 and parts.hostname)
    except ValueError:
        return False


def _check_within_limits(message: NewRunRequest) -> None:
    if message.limits is None:
        raise Refused("limits: within_limits needs them; send them, or leave it out")
    if message.lease is None:
        raise Refused(
            "lease: within_limits needs one, so that a run whose process dies gives up its place"
        )
    if message.claim is not None:
        raise Refused("claim: a run cannot be opened for a key and within_limits; leave one out")


def check_uuid(field: str, value: str | None) -> None:
    """Check that an id that others use is one.

    Raises:
        Refused: it is not; the text names the field.
    """
    try:
        UUID(value or tokens.ENVIRONMENT_ID)
    except ValueError:
        raise Refused(f"{field}: {(value or '')[:64]!r} is not a UUID") from None


def _retries(value: int | None) -> int:
    if value is None:
        return 0
    return _NEGATIVE_RETRIES if value < 0 else min(value, MAX_RETRIES)


def _began_ms(run_id: str, now_ms: int) -> int:
    """Return when the request came in: SDKs make the id of its run then, unless that cannot be."""
    made_ms = ulid_ms(run_id)
    return made_ms if now_ms - _LONGEST_DELAY_MS <= made_ms <= now_ms else now_ms


def _body(text: str | None) -> bytes | None:
    """Return the original request's body, which JS sends as plain text (docs/protocol.md J1)."""
    if text is None:
        return None
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return text.encode()
