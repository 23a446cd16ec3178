"""Ops that wait for something from outside: `wait_for_event`, `wait_for_signal`, and `invoke`, with
the run that it starts. Pure.

How an endpoint is invoked: there is no request to send again, so the engine makes one from domain,
method, path, retries and SDK of the endpoint's latest first request, and the `data` of the payload
as JSON body, or as the query if the method has no body. The query, the body and the client address
of that request belong to another caller and are not used. The new run starts like one that waits:
with a re-entry.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode

import msgspec
from msgspec.structs import replace

from stephttp._wire.opcodes import Op
from stephttp.engine.model.change import Change
from stephttp.engine.model.known_endpoint import Endpoint
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.run import NewRun, Run, RunStatus
from stephttp.engine.model.timer import RESUME, Timer, TimerKind
from stephttp.engine.model.tokens import new_job_id, new_ulid
from stephttp.engine.rules.change_builder import ChangeBuilder
from stephttp.engine.rules.conditions import expressions
from stephttp.engine.rules.due_times import lookback_ms, timeout_ms
from stephttp.engine.rules.functions.planning import plan
from stephttp.engine.rules.functions.starting import invoked_event
from stephttp.engine.rules.results import Rendered, error_result, http_result

_YEAR_MS = 365 * 86_400_000
_BODILESS = frozenset({"GET", "HEAD"})
_CONFLICTS = ("", "fail", "replace")
_TRIGGER = "inngest/http.request"
_WHEN_KNOWN = (
    "endpoints are known after their first durable request, functions once their app has registered"
)


INVOKE_TIMED_OUT = error_result(
    "InngestInvokeTimeoutError", "Timed out waiting for invoked function to complete"
)


def wait_for_event(builder: ChangeBuilder, op: Op, field: str) -> None:
    """Wait for the first event of this name that fulfils the condition (`WaitForEvent`)."""
    name = _option(op, "event", field) or op.name
    if not name:
        raise Refused(f"{field}.opts.event: a {op.op.value} needs the name of an event")
    condition = _option(op, "if", field) or None
    timer = Timer(
        op.id,
        TimerKind.EVENT,
        timeout_ms(op, field, builder.at.now_ms, 0),
        key=name,
        condition=condition,
        lookback_ms=lookback_ms(op, field),
    )
    # No condition of a step for which there is no room is compiled: that takes a while.
    if condition is not None and builder.has_room(op):
        try:
            where = f"step {_shown(op)!r}: if"
            wanted = expressions.check(condition, where, expressions.WAIT_NAMES).wanted
        except Refused as error:
            _fail(builder, op, field, error_result("ConditionError", str(error)))
            return
        if wanted is not None:
            timer = replace(timer, match_keys=wanted.keys, match_values=wanted.values)
    builder.wait(op, timer)


def wait_for_signal(builder: ChangeBuilder, op: Op, field: str) -> None:
    """Wait for the next signal of this name, for which only one step can wait (`WaitForSignal`)."""
    name = _option(op, "signal", field) or op.name
    if not name:
        raise Refused(f"{field}.opts.signal: a {op.op.value} needs the name of a signal")
    conflict = _option(op, "conflict", field)
    if conflict not in _CONFLICTS:
        raise Refused(f"{field}.opts.conflict: expected 'fail' or 'replace', got {conflict[:64]!r}")
    due_ms = timeout_ms(op, field, builder.at.now_ms, _YEAR_MS)
    holder = builder.signals.get(name)
    if holder is not None and conflict != "replace" and op.id not in builder.known:
        message = f"step {holder[1]} of run {holder[0]} waits for the signal {name!r} already"
        _fail(builder, op, field, error_result("SignalConflictError", message))
        return
    if not builder.wait(op, Timer(op.id, TimerKind.SIGNAL, due_ms, key=name)):
        return
    if holder is not None:
        builder.displaced.append(holder)
    builder.signals[name] = (builder.run.run_id, op.id)


def invoke_function(builder: ChangeBuilder, op: Op, field: str) -> None:
    """`InvokeFunction`: the result of a new run of another endpoint."""
    function_id = _option(op, "function_id", field)
    if not function_id:
        raise Refused(f"{field}.opts.function_id: must name a function")
    payload = (op.opts or {}).get("payload")
    if not isinstance(payload, dict):
        raise Refused(f"{field}.opts.payload: expected an object such as {{'data': {{}}}}")
    now_ms, rng = builder.at.now_ms, builder.at.rng
    due_ms = timeout_ms(op, field, now_ms, _YEAR_MS)
    endpoint = builder.endpoints.get(function_id)
    if endpoint is None:
        message = f"could not find function with ID: {function_id}; {_WHEN_KNOWN}"
        _fail(builder, op, field, error_result("Error", message))
        return
    function = builder.functions.get(function_id)
    if reason := endpoint.refused if function is None else function.why_not_started:
        message = f"function {function_id} is not started: {reason}"
        _fail(builder, op, field, error_result("Error", message))
        return
    child_id = new_ulid(now_ms, rng)
    invoked_by = f"{builder.run.run_id}.{op.id}"
    event = None
    if function is not None:  # before anything is noted, because the event may be refused
        event = invoked_event(endpoint, payload, builder.at, invoked_by, due_ms)
    if builder.wait(op, Timer(op.id, TimerKind.INVOKE, due_ms, key=child_id)):
        if function is not None and event is not None:
            start = plan(function, event, expressions.read_event(event.body), now_ms)
            builder.starts.append(replace(start, run_id=child_id, invoked_by=invoked_by))
            return
        new = _new_run(endpoint, payload.get("data"), child_id, new_ulid(now_ms, rng), now_ms)
        run = Run(
            run_id=child_id,
            status=RunStatus.ASYNC,
            retries=endpoint.retries,
            request_version=endpoint.request_version,
            job_id=new_job_id(rng),
            invoked_by=invoked_by,
            fn_id=endpoint.fn_id,
        )
        first = Change(run, timers=(Timer(RESUME, TimerKind.RESUME, now_ms),))
        builder.invoked.append((new, first))


def refuse(builder: ChangeBuilder, op: Op, field: str, error: Refused) -> None:
    """Let the step of an op fail that asks for what the engine cannot do, or not clearly."""
    message = f"step {_shown(op)!r}: {str(error).removeprefix(f'{field}.')}"
    _fail(builder, op, field, error_result("RefusedError", message))


def _fail(builder: ChangeBuilder, op: Op, field: str, memo: bytes) -> None:
    """Let a step fail that cannot begin to wait, so that its handler learns it at the step.

    A request that is refused would take the finished steps that came with it along.
    """
    if op.id not in builder.known:
        builder.save(op, field, memo)
        builder.call_again = True
    elif not builder.settled(op):
        builder.has_waits = True


def not_started(reason: str) -> bytes:
    """Write the memo for a step that invoked a function which is not started."""
    return error_result("NotStartedError", f"the invoked function is not started: {reason}")


def invoked_result(run: Run, limit: int, *, function: bool = False) -> bytes:
    """Write the memo for the step that invoked `run`, which has just ended.

    Args:
        run: with its output.
        limit: bytes that the memo may have.
        function: it is a run of a function, whose output is what that returned.

    Returns:
        `{"data": ...}`, the answer as `{"status", "headers", "body"}`, or the output as it is if
        it describes no HTTP answer; `{"error": ...}` if the run failed, with the answer as `data`.
    """
    answer = None if function else http_result(run.output, run.head)
    if run.status is RunStatus.COMPLETED:
        result = run.output or b"null" if answer is None else msgspec.json.encode(_plain(answer))
        memo = b'{"data":' + result + b"}"
    elif run.status is RunStatus.CANCELLED:
        memo = error_result("CancelledError", "the invoked run was cancelled")
    else:
        error = msgspec.json.decode(run.error or b"{}")
        data = error.get("data") if answer is None else _plain(answer)
        # What a function says of its error is kept whole. Go needs `data`, even if it is null.
        whole = {"name": "Error", "message": ""} | error | {"data": data}
        memo = msgspec.json.encode({"error": whole})
    if len(memo) > limit:
        message = f"the result of the invoked run is larger than {limit} bytes"
        return error_result("ResultError", message)
    return memo


def _plain(answer: Rendered) -> dict[str, Any]:
    """Write an answer as data; a body that is not text becomes base64."""
    result: dict[str, Any] = {"status": answer.status, "headers": dict(answer.headers)}
    try:
        return result | {"body": answer.body.decode()}
    except UnicodeDecodeError:
        return result | {"body": b64encode(answer.body).decode(), "encoding": "base64"}


def _new_run(endpoint: Endpoint, data: object, run_id: str, event_id: str, now_ms: int) -> NewRun:
    bodiless = endpoint.method.upper() in _BODILESS
    body = None if data is None or bodiless else msgspec.json.encode(data)
    return NewRun(
        run_id=run_id,
        app_id=endpoint.app_id,
        slug=endpoint.slug,
        # No SDK reports the start of this run; this digest only has to differ from all others.
        digest=sha256(run_id.encode()).digest(),
        event_id=event_id,
        # What Go calls its event decides how calls are signed.
        event_name=endpoint.event_name or _TRIGGER,
        event_ts=now_ms,
        fn=endpoint.fn,
        domain=endpoint.domain,
        method=endpoint.method,
        path=endpoint.path,
        query=_query(data) if bodiless else "",
        content_type="" if bodiless else "application/json",
        ip="",
        sdk=endpoint.sdk,
        reads_state=endpoint.reads_state,
        created_ms=now_ms,
        began_ms=now_ms,
        body=body,
    )


def _query(data: object) -> str:
    """Write an object as a query: texts as they are, lists as repeated names, others as JSON."""
    if not isinstance(data, dict):
        return ""
    pairs = [
        (name, item)
        for name, value in data.items()
        for item in (value if isinstance(value, list) else [value])
    ]
    return urlencode(
        [(n, v if isinstance(v, str) else msgspec.json.encode(v).decode()) for n, v in pairs]
    )


def _shown(op: Op) -> str:
    """Return what people know the step of `op` by."""
    return (op.userland.id if op.userland else None) or op.display_name or op.name or op.id


def _option(op: Op, name: str, field: str) -> str:
    """Return a text option; an empty text if it is absent or null."""
    value = (op.opts or {}).get(name)
    if value is not None and not isinstance(value, str):
        raise Refused(f"{field}.opts.{name}: expected text, got {type(value).__name__}")
    return value or ""
