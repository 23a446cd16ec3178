"""Arguments of `sleep`, `sleep_until`, `wait_for_event`, `wait_for_signal` and `invoke`, checked,
and the op that they become. Pure.

    tool              op               name       opts                                    memo
    sleep             Sleep            duration   duration                                null
    sleep_until       Sleep            time       duration                                null
    wait_for_event    WaitForEvent     event      event, timeout, if?, lookback?          event, or null
    wait_for_signal   WaitForSignal    signal     signal, timeout, conflict               data, or null
    invoke(_by_id)    InvokeFunction   step id    function_id, payload {data, v?}, timeout?  data or error
    fetch             Gateway          step id    url, method, headers?, body?            data or error
    ai.infer          AIGateway        step id    type, url, headers, auth_key, format, body  data or error

The last two are in `http_steps`. docs/protocol.md 5.2 has them as the other SDKs send them, 5.3 what is remembered, 5.4 the rules for
arguments. Bad arguments are a `TypeError` or `ValueError` that names step and argument, before
anything is recorded.
"""  # noqa: E501

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import msgspec
from msgspec import Raw, Struct, ValidationError

from stephttp._core.conversion import CONVERSIONS
from stephttp._core.encoding import decode_result, encode_argument, result_conversion
from stephttp._core.retry_policy import RetryPolicy
from stephttp._core.tool_types import EndpointResult, MatchValue, ReceivedEvent, Signal
from stephttp._wire.durations import MAX_WAIT, format_duration
from stephttp._wire.opcodes import OpCode
from stephttp.errors import StepError

_NAMES_TRIGGER = re.compile(r"\bevent\s*[.\[]")
_CONFLICTS = ("fail", "replace")
_RESPONSE_FIELDS = {"status", "headers", "body"}
"""A result that has exactly these is the response of an endpoint (docs/protocol.md 7.2)."""
IsEndpoint = Callable[[str], bool]
"""Says whether an id is that of a decorated handler in this process."""
_endpoint_result = msgspec.json.Decoder(EndpointResult)
_fields = msgspec.json.Decoder(dict[str, Raw])


class Wait(Struct, frozen=True):
    """A request of a step to the server."""

    step_id: str
    op: OpCode
    name: str
    opts: dict[str, Any]
    result: Any = Any
    """The type in which the server's answer is read."""
    convert: Callable[[Any], Any] | None = None
    """Makes of it the value that the handler gets."""
    late: bool = False
    """Must not travel in a first checkpoint (docs/protocol.md 12.1)."""
    policy: RetryPolicy | None = None
    """How the server tries it again, where the step itself says it."""
    only_ours: Callable[[IsEndpoint], str] | None = None
    """Says why no other server than the stephttp engine can do it right; empty if others can."""


def sleep(step_id: str, duration: timedelta) -> Wait:
    """Sleep for a time; a negative one ends at once."""
    text = _duration(step_id, "duration", duration)
    return Wait(step_id, OpCode.SLEEP, text, {"duration": text})


def sleep_until(step_id: str, until: datetime, now_ns: int | None = None) -> Wait:
    """Sleep until a point in time, which needs a time zone.

    Args:
        step_id: names the step within the run.
        until: when it ends.
        now_ns: the present time; `None` where there is no run, and so no clock.
    """
    if not isinstance(until, datetime):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise _type_error(step_id, "until", until, "a datetime")
    if until.tzinfo is None:
        raise ValueError(
            f"step {step_id!r}: sleep_until needs a time zone; use for example "
            "datetime.now(timezone.utc) + timedelta(hours=1)"
        )
    if now_ns is not None and until.timestamp() - now_ns / 1e9 > MAX_WAIT.total_seconds():
        raise ValueError(f"step {step_id!r}: until may be {MAX_WAIT.days} days ahead at most")
    text = until.isoformat(timespec="milliseconds")
    return Wait(step_id, OpCode.SLEEP, text, {"duration": text})


def wait_for_event(
    step_id: str,
    event: str,
    timeout: timedelta,
    if_exp: str | None,
    match: Mapping[str, MatchValue] | None = None,
    lookback: timedelta | None = None,
) -> Wait:
    """Wait for an event; `None` at the timeout."""
    opts = {
        "event": check_text(step_id, "event", event),
        "timeout": _duration(step_id, "timeout", timeout),
    }
    if if_exp is not None:
        opts["if"] = check_text(step_id, "if_exp", if_exp)
    if match is not None:
        from stephttp._core.event_matches import condition

        wanted = condition(match, f"step {step_id!r}: match")
        opts["if"] = wanted if if_exp is None else f"{wanted} && ({if_exp})"
    if lookback is not None:
        opts["lookback"] = _duration(step_id, "lookback", lookback)
        if lookback < timedelta(0):
            raise ValueError(f"step {step_id!r}: lookback must not be negative")
    return Wait(
        step_id,
        OpCode.WAIT_FOR_EVENT,
        event,
        opts,
        ReceivedEvent | None,
        _event,
        # A real server has no trigger while it handles a first checkpoint, and breaks down.
        late=if_exp is not None and _NAMES_TRIGGER.search(if_exp) is not None,
    )


def wait_for_signal(step_id: str, signal: str, timeout: timedelta, on_conflict: str) -> Wait:
    """Wait for a signal; `None` at the timeout."""
    if on_conflict not in _CONFLICTS:
        raise ValueError(
            f"step {step_id!r}: on_conflict must be 'fail' or 'replace', not {on_conflict!r}"
        )
    opts = {
        "signal": check_text(step_id, "signal", signal),
        "timeout": _duration(step_id, "timeout", timeout),
        "conflict": on_conflict,
    }
    return Wait(step_id, OpCode.WAIT_FOR_SIGNAL, signal, opts, Signal | None)


def invoke(
    step_id: str,
    function: Any,
    data: Mapping[str, Any] | None,
    timeout: timedelta | None,
    v: str | None,
    output_type: Any = Any,
) -> Wait:
    """Invoke a function: a durable endpoint, an `inngest.Function`, or an id.

    An endpoint gives the response that it ended with, whose body is what the handler gets. An id
    may be that of an endpoint, too.
    """
    payload: dict[str, Any] = {"data": Raw(encode_argument(data or {}, step_id, "data"))}
    if v is not None:
        payload["v"] = v
    opts: dict[str, Any] = {"function_id": _function_id(step_id, function), "payload": payload}
    if timeout is not None:
        opts["timeout"] = _duration(step_id, "timeout", timeout)
    result: Any = output_type
    convert: Callable[[Any], Any] | None = None
    if endpoint_id(function) is not None:
        if output_type is Any:
            output_type = result_conversion(function).annotation
        result, convert = EndpointResult, partial(_endpoint_value, output_type, step_id)
    elif isinstance(function, str):
        result, convert = Raw, partial(_value_by_id, output_type, step_id)
    return Wait(
        step_id, OpCode.INVOKE_FUNCTION, step_id, opts, result, convert,
        only_ours=partial(_unless_function, function),
    )  # fmt: skip


def function_slug(step_id: str, app_id: str | None, function_id: str) -> str:
    """Return the id under which the server knows a function of an app."""
    function_id = check_text(step_id, "function_id", function_id)
    return (
        function_id if app_id is None else f"{check_text(step_id, 'app_id', app_id)}-{function_id}"
    )


ENDPOINT_ID = "__stephttp_id__"
"""The attribute of a decorated handler that holds its endpoint's id."""
_ENDPOINT_THERE = (
    "an Inngest server cannot invoke durable endpoints, and would wait until the timeout; call the "
    "endpoint's address with step.fetch, or its function in step.run"
)
_METHOD_AND_PATH = re.compile(r"[A-Z]+ /")


def _unless_function(function: Any, is_endpoint: IsEndpoint) -> str:
    """Say why an endpoint cannot be invoked; empty for other functions, as far as is known."""
    if isinstance(function, str):
        found = _METHOD_AND_PATH.match(function) is not None or is_endpoint(function)
    else:
        found = endpoint_id(function) is not None
    return _ENDPOINT_THERE if found else ""


def endpoint_id(function: Any) -> str | None:
    """Return the id of a durable endpoint; `None` for anything else."""
    found = getattr(function, ENDPOINT_ID, None)
    return found if isinstance(found, str) and found else None


def _function_id(step_id: str, function: Any) -> str:
    if isinstance(function, str):
        return check_text(step_id, "function_id", function)
    found = endpoint_id(function) or getattr(function, "id", None)
    if not isinstance(found, str) or not found:
        raise _type_error(
            step_id, "function", function, "a durable endpoint with an id, or an inngest.Function"
        )
    return found


def _event(received: ReceivedEvent | None) -> Any:
    return None if received is None else received.event()


def _value_by_id(type_: Any, step_id: str, raw: Raw) -> Any:
    """Return what was returned under an id: that of an endpoint, or of another function."""
    try:
        exact = _fields.decode(raw).keys() - {"encoding"} == _RESPONSE_FIELDS
        response = _endpoint_result.decode(raw) if exact else None
    except ValidationError:
        response = None
    if response is None:
        return decode_result(raw, CONVERSIONS.of(type_), step_id)
    return _endpoint_value(type_, step_id, response)


def _endpoint_value(type_: Any, step_id: str, result: EndpointResult) -> Any:
    if result.status >= 400:
        raise StepError(
            f"the endpoint answered {result.status}: {result.body[:500]}",
            "EndpointError",
            data={"status": result.status, "headers": result.headers, "body": result.body},
        )
    names = {name.lower(): value for name, value in result.headers.items()}
    if "json" in names.get("content-type", ""):
        return decode_result(result.body.encode(), CONVERSIONS.of(type_), step_id)
    return b64decode(result.body) if result.encoding == "base64" else result.body


def _duration(step_id: str, argument: str, value: Any) -> str:
    if not isinstance(value, timedelta):
        raise _type_error(step_id, argument, value, "a timedelta")
    if value > MAX_WAIT:
        raise ValueError(f"step {step_id!r}: {argument} may be {MAX_WAIT.days} days at most")
    return format_duration(value)


def check_text(step_id: str, argument: str, value: Any, *, empty: bool = False) -> str:
    """Return an argument that is a text.

    Raises:
        TypeError, ValueError: it is not one, empty, or not valid Unicode.
    """
    if not isinstance(value, str):
        raise _type_error(step_id, argument, value, "text")
    if not value and not empty:
        raise ValueError(f"step {step_id!r}: {argument} must not be empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"step {step_id!r}: {argument} must be valid Unicode") from None
    return value


def _type_error(step_id: str, argument: str, value: Any, wanted: str) -> TypeError:
    return TypeError(f"step {step_id!r}: {argument} must be {wanted}, not {value!r}")
