"""OpenTelemetry spans: read in both formats, kept with their runs, within bounds."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from stephttp.engine.api.sdk.user_spans import JSON, PROTOBUF
from stephttp.engine.traces.otlp import MOST_DETAILS

from .support import DONE, KEY, OTHER, RUN, A, World, sleep, step, world

TRACE, SPAN, CHILD = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"
MS = 1_000_000
LATER = {"startTimeUnixNano": str(1_001 * MS)}
OF_RUN = {"sdk.run.id": RUN, "inngest.step.hash": A, "inngest.step.attempt": 1}


def attributes(values: dict[str, Any]) -> list[dict[str, Any]]:
    kinds = {str: "stringValue", bool: "boolValue", int: "intValue", float: "doubleValue"}
    return [{"key": key, "value": {kinds[type(v)]: v}} for key, v in values.items()]


def span(name: str = "query", span_id: str = SPAN, **more: Any) -> dict[str, Any]:
    return {
        "traceId": TRACE,
        "spanId": span_id,
        "name": name,
        "kind": 3,
        "startTimeUnixNano": str(1_000 * MS),
        "endTimeUnixNano": str(1_250 * MS),
        "attributes": attributes({**OF_RUN, **more.pop("values", {})}),
        **more,
    }


def export(*spans: dict[str, Any], resource: dict[str, Any] | None = None) -> dict[str, Any]:
    scope = {"scope": {"name": "shop.db"}, "spans": list(spans)}
    attached = {"attributes": attributes({"service.name": "shop", **(resource or {})})}
    return {"resourceSpans": [{"resource": attached, "scopeSpans": [scope]}]}


def as_protobuf(document: dict[str, Any]) -> bytes:
    """The same in protobuf, made by other means than the engine's."""
    message = ExportTraceServiceRequest()
    for resource in document["resourceSpans"]:
        made = message.resource_spans.add()
        made.resource.attributes.extend(map(_pair, resource["resource"]["attributes"]))
        for scope in resource["scopeSpans"]:
            inner = made.scope_spans.add()
            inner.scope.name = scope["scope"]["name"]
            for one in scope["spans"]:
                inner.spans.add(
                    trace_id=bytes.fromhex(one["traceId"]),
                    span_id=bytes.fromhex(one["spanId"]),
                    parent_span_id=bytes.fromhex(one.get("parentSpanId", "")),
                    name=one["name"],
                    kind=one["kind"],
                    start_time_unix_nano=int(one["startTimeUnixNano"]),
                    end_time_unix_nano=int(one["endTimeUnixNano"]),
                    attributes=map(_pair, one["attributes"]),
                )
    return message.SerializeToString()


def _pair(pair: dict[str, Any]) -> KeyValue:
    ((kind, value),) = pair["value"].items()
    name = {"stringValue": "string_value", "boolValue": "bool_value", "intValue": "int_value"}
    return KeyValue(key=pair["key"], value=AnyValue(**{name.get(kind, "double_value"): value}))


async def send(w: World, body: bytes, kind: str = JSON, **headers: str) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await w.http.post(
        "/v1/traces/userland", content=body, headers={"content-type": kind, **named}
    )


async def accept(w: World, document: dict[str, Any]) -> dict[str, Any]:
    response = await send(w, json.dumps(document).encode())
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def spans_of(w: World, run_id: str = RUN) -> list[dict[str, Any]]:
    response = await w.http.get(f"/v1/runs/{run_id}/spans")
    assert response.status_code == 200, response.text
    data: list[dict[str, Any]] = response.json()["data"]
    return data


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("kind", [JSON, PROTOBUF])
async def test_both_formats_plain_and_zipped(kind: str, zipped: bool) -> None:
    values = {"rows": 3, "ok": True, "ratio": 0.5, "text": "é"}
    document = export(
        span(values=values),
        span("fetch", CHILD, parentSpanId=SPAN, values={"host": "db"}, **LATER),
    )
    plain = json.dumps(document).encode() if kind == JSON else as_protobuf(document)
    async with world() as w:
        await w.post(step(), sleep())
        response = await send(
            w, gzip.compress(plain) if zipped else plain, kind,
            **({"content_encoding": "gzip"} if zipped else {}),
        )  # fmt: skip
        assert (response.status_code, response.headers["content-type"]) == (200, kind)
        if kind == PROTOBUF:
            answer = ExportTraceServiceResponse.FromString(response.content)
            assert MessageToDict(answer) == {}
        else:
            assert response.json() == {}
        first, second = await spans_of(w)
    assert first == {
        "trace_id": TRACE,
        "span_id": SPAN,
        "parent_id": None,
        "step_id": A,
        "attempt": 1,
        "name": "query",
        "kind": "client",
        "status": "unset",
        "started_at": "1970-01-01T00:00:01.000Z",
        "duration_ms": 250.0,
        "details": {
            "service": "shop",
            "scope": "shop.db",
            "attributes": {**OF_RUN, **values},
        },
    }
    assert (second["parent_id"], second["details"]["attributes"]["host"]) == (SPAN, "db")


async def test_errors_events_and_nested_attributes() -> None:
    nested = AnyValue(
        kvlist_value=KeyValueList(
            values=[
                KeyValue(
                    key="list",
                    value=AnyValue(array_value=ArrayValue(values=[AnyValue(bytes_value=b"\0")])),
                )
            ]
        )
    )
    event = {
        "name": "exception", "timeUnixNano": "1", "attributes": attributes({"type": "E"}),
    }  # fmt: skip
    one = span(events=[event], status={"code": 2, "message": "no"})
    one["attributes"].append({"key": "nested", "value": MessageToDict(nested)})
    async with world() as w:
        await w.post(step(), sleep())
        assert await accept(w, export(one)) == {}
        (stored,) = await spans_of(w)
    assert (stored["status"], stored["details"]["message"]) == ("error", "no")
    assert stored["details"]["events"] == [
        {"name": "exception", "time_ns": 1, "attributes": {"type": "E"}}
    ]
    assert stored["details"]["attributes"]["nested"] == {"list": ["AA=="]}


async def test_a_span_belongs_where_its_ancestor_does() -> None:
    grandchild = "1" * 16
    bare: dict[str, Any] = {"attributes": []}
    async with world() as w:
        await w.post(step(), sleep())
        await accept(
            w,
            export(
                span("c", grandchild, parentSpanId=CHILD, **bare),
                span("b", CHILD, parentSpanId=SPAN, **bare),
                span("a"),
                span("loop", "2" * 16, parentSpanId="2" * 16, **bare),
            ),
        )
        assert {one["name"]: one["step_id"] for one in await spans_of(w)} == dict.fromkeys("abc", A)
        named = {"sdk.run.id": RUN.lower()}
        await accept(w, export(span("d", "3" * 16, **bare), resource=named))
        assert [one["name"] for one in await spans_of(w) if one["step_id"] is None] == ["d"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"traceId": "00" * 16}, "traceId: expected 16 bytes that are not all 0"),
        ({"spanId": "abcd"}, "spanId: expected 8 bytes"),
        ({"attributes": []}, "attributes: no sdk.run.id, so it belongs to no run"),
        ({"attributes": attributes({"sdk.run.id": "x"})}, "sdk.run.id: 'X' is not a ULID"),
        ({"endTimeUnixNano": "5"}, "endTimeUnixNano: 5 is not after the begin"),
        ({"startTimeUnixNano": "0"}, "is not after the begin, 0"),
        ({"endTimeUnixNano": str(2**64 - 1)}, "is not after the begin"),
    ],
)
async def test_a_bad_span_is_named_and_the_others_are_kept(
    change: dict[str, Any], reason: str
) -> None:
    async with world() as w:
        await w.post(step(), sleep())
        bad = {**span("bad", CHILD), **change}
        answer = await accept(w, export(span("good"), bad))
        assert answer["partialSuccess"]["rejectedSpans"] == "1"
        message = answer["partialSuccess"]["errorMessage"]
        assert message.startswith("resourceSpans[0].scopeSpans[0].spans[1].")
        assert reason in message
        assert [one["name"] for one in await spans_of(w)] == ["good"]


GOOD = json.dumps(export(span())).encode()


@pytest.mark.parametrize(
    ("body", "kind", "encoding", "status", "reason"),
    [
        (GOOD, "text/plain", "", 415, "content-type: expected application/x-protobuf or"),
        (GOOD, JSON, "br", 415, "content-encoding: expected gzip or none, got 'br'"),
        (GOOD, JSON, "gzip", 400, "body: not gzip"),
        (gzip.compress(GOOD)[:-9], JSON, "gzip", 400, "body: the gzip data ends too early"),
        (gzip.compress(b" " * 200_000), JSON, "gzip", 413, "body: larger than 100000 bytes when"),
        (b"x" * 100_001, PROTOBUF, "", 413, "body: larger than 100000 bytes"),
        (b"\xff\xff", PROTOBUF, "", 400, "body: not an ExportTraceServiceRequest in protobuf"),
        (b"{", JSON, "", 400, "body: invalid JSON"),
        (b"\xff", JSON, "", 400, "body: invalid JSON"),
        (b"[]", JSON, "", 400, "body: expected an object, got list"),
        (b'{"resourceSpans": 1}', JSON, "", 400, "resourceSpans"),
        (b'{"resourceSpans": [1]}', JSON, "", 400, "resourceSpans"),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": [3]}]}]}', JSON, "", 400, "spans"),
        (json.dumps(export({**span(), "name": 7})).encode(), JSON, "", 400, "name"),
        (json.dumps(export(span(traceId="zz"))).encode(), JSON, "", 400,
         "resourceSpans[0].scopeSpans[0].spans[0].traceId: 'zz' is not in hexadecimal digits"),
        (json.dumps(export(span(links=[{"spanId": 4}]))).encode(), JSON, "", 400,
         "spans[0].links[0].spanId: '4' is not in hexadecimal digits"),
        (b'{"resourceSpans":' + b"[" * 5_000 + b"]" * 5_000 + b"}", JSON, "", 400, "body: "),
    ],
)  # fmt: skip
async def test_a_bad_request_is_named(
    body: bytes, kind: str, encoding: str, status: int, reason: str
) -> None:
    async with world(max_body=100_000) as w:
        await w.post(step(), sleep())
        headers = {"content_encoding": encoding} if encoding else {}
        response = await send(w, body, kind, **headers)
        assert (response.status_code, response.json()["status"]) == (status, status)
        assert reason in response.json()["error"]
        assert await spans_of(w) == []


async def test_a_run_has_no_more_spans_than_it_may() -> None:
    async with world(max_run_spans=3) as w:
        await w.post(step(), sleep())
        await w.post(step(), sleep(), run_id=OTHER)
        mine = [span(str(n), f"{n:016x}") for n in range(1, 6)]
        others = span("other", values={"sdk.run.id": OTHER})
        answer = await accept(w, export(*mine, others))
        assert answer["partialSuccess"] == {
            "rejectedSpans": "2",
            "errorMessage": "2 spans of runs that have as many as are kept",
        }
        # The same again is no news, and takes no room.
        await accept(w, export(*mine[:3]))
        assert [one["name"] for one in await spans_of(w)] == ["1", "2", "3"]
        assert [one["name"] for one in await spans_of(w, OTHER)] == ["other"]


async def test_a_run_has_no_more_bytes_of_spans_than_it_may() -> None:
    async with world(max_run_spans_bytes=3_000) as w:
        await w.post(step(), sleep())
        spans = [span(str(n), f"{n:016x}", values={"x": "y" * 1_000}) for n in range(1, 6)]
        answer = await accept(w, export(*spans))
        assert answer["partialSuccess"]["rejectedSpans"] == "3"
        assert len(await spans_of(w)) == 2


async def test_what_is_too_long_is_cut() -> None:
    values = {f"k{n}": "é" * 5_000 for n in range(10)}
    async with world() as w:
        await w.post(step(), sleep())
        await accept(w, export(span(values={"long": "é" * 5_000}), span("n" * 999, CHILD, **LATER)))
        short, named = await spans_of(w)
        assert short["details"]["attributes"]["long"] == "é" * 4_096 + "…"
        assert named["name"] == "n" * 256
        await accept(w, export(span("big", "4" * 16, values=values)))
        big = next(one for one in await spans_of(w) if one["name"] == "big")
        assert big["details"] == {"service": "shop", "scope": "shop.db", "truncated": True}
        assert len(json.dumps(values)) > MOST_DETAILS


async def first_checkpoint(w: World) -> None:
    await w.post(DONE)


async def batch(w: World) -> None:
    run = {"op": "RunComplete", "id": "c", "data": {"status": 200, "headers": {}, "body": ""}}
    event = {"name": "n", "data": {"domain": "http://a.test", "method": "GET"}}
    body = [{"run_id": RUN, "event": event, "steps": [run]}]
    assert (await w.http.post("/v1/checkpoint/batch", json=body)).status_code == 200


@pytest.mark.parametrize("report", [first_checkpoint, batch])
async def test_spans_may_come_before_their_run(report: Callable[[World], Any]) -> None:
    """A request that never waits is reported when it is over, by a background task."""
    async with world() as w:
        assert await accept(w, export(span())) == {}
        assert (await w.http.get(f"/v1/runs/{RUN}/spans")).status_code == 404
        await report(w)
        while not await spans_of(w):
            pass
        assert [one["name"] for one in await spans_of(w)] == ["query"]


async def test_spans_do_not_wait_for_ever() -> None:
    async with world() as w:
        await accept(w, export(span()))
        await w.after(61)
        await accept(w, export(span("late", CHILD, values={"sdk.run.id": OTHER})))
        await w.post(DONE)
        await w.post(DONE, run_id=OTHER)
        while not await spans_of(w, OTHER):
            pass
        assert await spans_of(w) == []
        text = (await w.http.get("/metrics")).text
    assert 'stephttp_spans_received_total{result="stored"} 1.0' in text
    assert 'stephttp_spans_received_total{result="rejected"} 1.0' in text


async def test_early_spans_are_bounded() -> None:
    async with world() as w:
        for n in range(300):
            run_id = f"01M81KWY2JTNRXZTV817{n:06}"
            one = span(values={"sdk.run.id": run_id, "x": "y" * 4_000, "z": "y" * 4_000})
            many = [{**one, "spanId": f"{k:016x}"} for k in range(1, 11)]
            await accept(w, export(*many))
        early = w.engine.spans.early
        assert early.size <= 8 * 1024 * 1024
        assert 0 < len(early.run_ids) < 300
        # The oldest have gone.
        assert f"01M81KWY2JTNRXZTV817{299:06}" in early.run_ids


async def test_spans_go_with_their_run() -> None:
    async with world(retain=60, sweep_interval=10) as w:
        await w.post(DONE)
        await accept(w, export(span()))
        assert len(await spans_of(w)) == 1
        await w.engine._retention.sweep(60)
        w.clock.advance(61)
        assert (await w.engine._retention.sweep(60))["runs"] == 1
        left = await w.engine.store.read(
            lambda connection: connection.execute("SELECT count(*) FROM spans").fetchone()
        )
        assert left == (0,)


async def test_a_key_is_needed() -> None:
    async with world(signing_keys=(KEY,)) as w:
        assert (await send(w, GOOD)).status_code == 401
        response = await send(w, GOOD, authorization=f"Bearer {KEY}")
        assert response.status_code == 200
