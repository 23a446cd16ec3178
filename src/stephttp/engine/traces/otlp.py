"""Reads OpenTelemetry spans as senders write them: OTLP over HTTP, in protobuf or JSON. Pure.

https://opentelemetry.io/docs/specs/otlp/. A span belongs to the run that its attribute `sdk.run.id`
names, and to the step of `inngest.step.hash`: the names that SDKs of Inngest use. A span without
`sdk.run.id` belongs where its parent does, if that is in the same request, else where its resource
does.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan

from stephttp._wire.ids import ULID_PATTERN
from stephttp._wire.json import UNREADABLE
from stephttp.engine.model.refused import Refused

RUN_ID, STEP_HASH, STEP_ATTEMPT = "sdk.run.id", "inngest.step.hash", "inngest.step.attempt"
MOST_DETAILS = 32 * 1024
"""Bytes that are kept of a span beside its name and times."""

_ULID = re.compile(ULID_PATTERN, re.ASCII)
_HASH = re.compile(r"[0-9a-f]{40}", re.ASCII)
_LONGEST_NAME = 256
_LONGEST_TEXT = 4096
_DEEPEST = 8
_KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
_STATUSES = ("unset", "ok", "error")


@dataclass(frozen=True, slots=True)
class Span:
    """A span of users' code, as it is stored.

    Attributes:
        step_id: hash of the step in which it was made; empty: outside of steps.
        attempt: of that step, from 0.
        details: JSON with `service`, `scope`, `attributes`, `events` and `message` (of an error),
            without those that it does not have; `truncated` if it had more than is kept.
    """

    run_id: str
    trace_id: bytes
    span_id: bytes
    parent_id: bytes | None
    step_id: str
    attempt: int | None
    name: str
    kind: str
    status: str
    started_ns: int
    ended_ns: int
    details: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReceivedSpans:
    """The spans of a request that belong to runs, and why others cannot be taken."""

    spans: list[Span]
    problems: list[str]


@dataclass(frozen=True, slots=True)
class _Found:
    where: str
    wire: WireSpan
    attributes: dict[str, Any]
    resource: dict[str, Any]
    scope: str


def read_protobuf(body: bytes) -> ReceivedSpans:
    """Read the spans of a request.

    Raises:
        Refused: it is not such a message.
    """
    message = ExportTraceServiceRequest()
    try:
        message.ParseFromString(body)
    except DecodeError as error:
        raise Refused(f"body: not an ExportTraceServiceRequest in protobuf: {error}") from None
    return _read(message)


def read_json(body: bytes) -> ReceivedSpans:
    """Read the spans of a request.

    Raises:
        Refused: it is not JSON, or not of the right shape; the text names the field.
    """
    try:
        document = msgspec.json.decode(body)
    except UNREADABLE as error:
        raise Refused(f"body: invalid JSON: {error}") from None
    if not isinstance(document, dict):
        raise Refused(f"body: expected an object, got {type(document).__name__}")
    for where, span in _spans_in(document):
        # OTLP writes ids as hexadecimal digits, where protobuf's own JSON has base64.
        for name in ("traceId", "spanId", "parentSpanId"):
            if name in span:
                span[name] = _as_base64(span[name], f"{where}.{name}")
        for index, link in enumerate(_list(span.get("links"))):
            for name in ("traceId", "spanId"):
                if isinstance(link, dict) and name in link:
                    link[name] = _as_base64(link[name], f"{where}.links[{index}].{name}")
    message = ExportTraceServiceRequest()
    try:
        ParseDict(document, message, ignore_unknown_fields=True)
    except (ParseError, RecursionError, ValueError, TypeError, AttributeError) as error:
        raise Refused(f"body: not an ExportTraceServiceRequest in JSON: {error}") from None
    return _read(message)


def _spans_in(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for i, resource in enumerate(_list(document.get("resourceSpans"))):
        for j, scope in enumerate(_list(_get(resource, "scopeSpans"))):
            for k, span in enumerate(_list(_get(scope, "spans"))):
                if isinstance(span, dict):
                    yield f"resourceSpans[{i}].scopeSpans[{j}].spans[{k}]", span


def _get(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _as_base64(value: object, field: str) -> str:
    try:
        if isinstance(value, str):
            return b64encode(bytes.fromhex(value)).decode()
    except ValueError:
        pass
    raise Refused(f"{field}: {str(value)[:64]!r} is not in hexadecimal digits")


def _read(message: ExportTraceServiceRequest) -> ReceivedSpans:
    found = list(_walk(message))
    by_id = {(one.wire.trace_id, one.wire.span_id): one for one in found}
    spans, problems = [], []
    for one in found:
        try:
            spans.append(_span(one, by_id))
        except Refused as error:
            problems.append(f"{one.where}.{error}")
    return ReceivedSpans(spans, problems)


def _walk(message: ExportTraceServiceRequest) -> Iterator[_Found]:
    for i, resource in enumerate(message.resource_spans):
        shared = _attributes(resource.resource.attributes)
        for j, scope in enumerate(resource.scope_spans):
            for k, span in enumerate(scope.spans):
                where = f"resourceSpans[{i}].scopeSpans[{j}].spans[{k}]"
                yield _Found(where, span, _attributes(span.attributes), shared, scope.scope.name)


def _span(one: _Found, by_id: dict[tuple[bytes, bytes], _Found]) -> Span:
    wire = one.wire
    for name, value, length in (("traceId", wire.trace_id, 16), ("spanId", wire.span_id, 8)):
        if len(value) != length or not any(value):
            raise Refused(
                f"{name}: expected {length} bytes that are not all 0, got {value.hex()!r}"
            )
    owner = _owner(one, by_id)
    run_id = str((owner or one).attributes.get(RUN_ID) or one.resource.get(RUN_ID) or "").upper()
    if not run_id:
        raise Refused(f"attributes: no {RUN_ID}, so it belongs to no run")
    if not _ULID.fullmatch(run_id):
        raise Refused(f"attributes.{RUN_ID}: {run_id[:64]!r} is not a ULID")
    of_step = owner.attributes if owner is not None else {}
    step_id, attempt = of_step.get(STEP_HASH), of_step.get(STEP_ATTEMPT)
    started_ns, ended_ns = wire.start_time_unix_nano, wire.end_time_unix_nano
    if not 0 < started_ns <= ended_ns < 2**63:
        raise Refused(f"endTimeUnixNano: {ended_ns} is not after the begin, {started_ns}")
    return Span(
        run_id=run_id,
        trace_id=wire.trace_id,
        span_id=wire.span_id,
        parent_id=wire.parent_span_id if len(wire.parent_span_id) == 8 else None,
        step_id=step_id if isinstance(step_id, str) and _HASH.fullmatch(step_id) else "",
        attempt=attempt if type(attempt) is int and 0 <= attempt < 2**31 else None,
        name=wire.name[:_LONGEST_NAME],
        kind=_named(_KINDS, wire.kind),
        status=_named(_STATUSES, wire.status.code),
        started_ns=started_ns,
        ended_ns=ended_ns,
        details=_details(one),
    )


def _owner(one: _Found, by_id: dict[tuple[bytes, bytes], _Found]) -> _Found | None:
    """Find the nearest span, from this one upwards, that names its run."""
    current: _Found | None = one
    seen: set[bytes] = set()
    while current is not None and current.wire.span_id not in seen:
        if current.attributes.get(RUN_ID):
            return current
        seen.add(current.wire.span_id)
        current = by_id.get((current.wire.trace_id, current.wire.parent_span_id))
    return None


def _details(one: _Found) -> bytes:
    events = [
        {
            "name": event.name[:_LONGEST_NAME],
            "time_ns": event.time_unix_nano,
            "attributes": _attributes(event.attributes),
        }
        for event in one.wire.events
    ]
    whole = {
        "service": one.resource.get("service.name"),
        "scope": one.scope[:_LONGEST_NAME],
        "message": one.wire.status.message[:_LONGEST_TEXT],
        "attributes": one.attributes,
        "events": events,
    }
    whole = {name: value for name, value in whole.items() if value}
    details = msgspec.json.encode(whole)
    for name in ("events", "attributes", "service"):
        if len(details) <= MOST_DETAILS:
            break
        whole = {key: value for key, value in whole.items() if key != name}
        details = msgspec.json.encode(whole | {"truncated": True})
    return details


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key[:_LONGEST_NAME]: _value(pair.value) for pair in pairs}


def _value(value: AnyValue, depth: int = 0) -> Any:
    kind = value.WhichOneof("value")
    return None if kind is None or depth > _DEEPEST else _VALUES[kind](value, depth + 1)


_VALUES: dict[str, Callable[[AnyValue, int], Any]] = {
    "string_value": lambda value, _: _cut(value.string_value),
    "bool_value": lambda value, _: value.bool_value,
    "int_value": lambda value, _: value.int_value,
    "double_value": lambda value, _: value.double_value,
    "bytes_value": lambda value, _: _cut(b64encode(value.bytes_value).decode()),
    "array_value": lambda value, depth: [_value(one, depth) for one in value.array_value.values],
    "kvlist_value": lambda value, depth: {
        pair.key: _value(pair.value, depth) for pair in value.kvlist_value.values
    },
}


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"


def _named(names: tuple[str, ...], number: int) -> str:
    return names[number] if 0 <= number < len(names) else names[0]
