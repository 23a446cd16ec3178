"""Checkpoints that only other SDKs send: of calls that are still open, and answers that end runs
(docs/protocol.md 4.2, 4.4).
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from http import HTTPStatus
from typing import Any

import msgspec
from msgspec import Raw
from starlette.requests import Request
from starlette.responses import Response

from stephttp._wire.ids import COMPLETE
from stephttp._wire.opcodes import Op, OpCode
from stephttp.engine.api.sdk.checkpoint import check_uuid
from stephttp.engine.api.sdk.checkpoint_messages import ApiResult, AsyncStepsRequest, StepsRequest
from stephttp.engine.model.refused import Refused
from stephttp.engine.web.requests import engine_of, parse_run_id, read_json

_ASYNC_STEPS = msgspec.json.Decoder(AsyncStepsRequest)
_RESULT = msgspec.json.Decoder(ApiResult)
_ASYNC_OPS = frozenset({OpCode.STEP_RUN, OpCode.STEP, OpCode.STEP_PLANNED})


async def async_steps(request: Request) -> Response:
    """Accept steps of a call that is still open, as far as the handler continues after them."""
    engine = engine_of(request)
    run_id = parse_run_id(request.path_params["run"])
    message = await read_json(request, _ASYNC_STEPS)
    _check_names(message, run_id)
    for index, op in enumerate(message.steps):
        if op.op not in _ASYNC_OPS:
            raise Refused(f"steps[{index}].op: cannot checkpoint async steps ({op.op.value})")
    dispatch = _dispatch(message.qi_id, message.generation_id)
    try:
        await engine.report(run_id, message.steps, dispatch)
    except Refused as error:
        # An unknown run is 400 here, and only here (docs/protocol.md 4.4).
        status = 400 if error.status == HTTPStatus.NOT_FOUND else error.status
        raise Refused(str(error), status) from None
    return Response()


async def response(request: Request) -> Response:
    """End a run with the answer that its endpoint gave."""
    engine = engine_of(request)
    run_id = parse_run_id(request.path_params["run"])
    result = await read_json(request, _RESULT)
    pairs = list((result.headers or {}).items())
    data: dict[str, Any] = {
        "status": result.status_code,
        "headers": result.headers or {},
        "raw": {"headers": pairs, "body": _checked_base64(result.body or "")},
        "duration": result.duration,
    }
    if result.error:
        data["error"] = {"name": "Error", "message": result.error}
    op = Op(OpCode.RUN_COMPLETE, COMPLETE, data=Raw(msgspec.json.encode(data)))
    await engine.report(run_id, [op])
    return Response()


def _check_names(message: StepsRequest | AsyncStepsRequest, run_id: str) -> None:
    if message.run_id is not None and parse_run_id(message.run_id) != run_id:
        raise Refused("run_id: the path names another run than the body")
    for field in ("fn_id", "app_id"):
        check_uuid(field, getattr(message, field))


def _dispatch(qi_id: str | None, generation: int | None) -> tuple[str, int] | None:
    """Return the call that a checkpoint belongs to: job id and generation."""
    if not qi_id or generation is None:
        return None
    try:
        return b64decode(qi_id, validate=True).decode().partition("::")[0], generation
    except (binascii.Error, ValueError):
        raise Refused(f"qi_id: {qi_id[:64]!r} is not base64") from None


def _checked_base64(text: str) -> str:
    try:
        b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refused("body: not base64") from None
    return text
