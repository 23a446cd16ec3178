"""`POST /v1/traces/userland`: takes OpenTelemetry spans of the code in handlers; and reads them."""

from __future__ import annotations

import asyncio
import sqlite3
import zlib
from collections.abc import Callable
from functools import partial

from google.protobuf.json_format import MessageToJson
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from starlette.requests import Request
from starlette.responses import Response

from stephttp.engine.api.run_parts import SpanView, span_view
from stephttp.engine.model.refused import Refused
from stephttp.engine.store.runs import unknown
from stephttp.engine.store.sql import QUERIES
from stephttp.engine.traces import otlp, spans
from stephttp.engine.web.requests import engine_of, media_type_of, parse_run_id, read_body
from stephttp.engine.web.responses import wrapped

PROTOBUF, JSON = "application/x-protobuf", "application/json"

_READERS: dict[str, Callable[[bytes], otlp.ReceivedSpans]] = {
    PROTOBUF: otlp.read_protobuf,
    JSON: otlp.read_json,
}
_GZIP = 16 + zlib.MAX_WBITS


async def receive(request: Request) -> Response:
    """Keep spans with their runs; answer in the type of the request."""
    engine = engine_of(request)
    kind = media_type_of(request)
    read = _READERS.get(kind)
    if read is None:
        raise Refused(f"content-type: expected {PROTOBUF} or {JSON}, got {kind[:64]!r}", 415)
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity", "gzip"):
        raise Refused(f"content-encoding: expected gzip or none, got {encoding[:64]!r}", 415)
    limit = engine.settings.max_body
    body = await read_body(request, limit)
    if encoding == "gzip":
        body = _unzipped(body, limit)
    # Large requests take a while, and nothing else should wait for that.
    received = await asyncio.to_thread(read, body)
    full = await engine.spans.keep(received)
    problems = received.problems[:3]
    if full:
        problems.append(f"{full} spans of runs that have as many as are kept")
    answer = ExportTraceServiceResponse()
    if problems:
        answer.partial_success.rejected_spans = len(received.problems) + full
        answer.partial_success.error_message = "; ".join(problems)
    content = answer.SerializeToString() if kind == PROTOBUF else MessageToJson(answer, indent=None)
    return Response(content, media_type=kind)


async def listing(request: Request) -> Response:
    """List the spans of a run, in the order in which they began."""
    engine = engine_of(request)
    run_id = parse_run_id(request.path_params["run"])
    return wrapped(await engine.store.read(partial(_listing, run_id=run_id)), engine.clock.now_ms())


def _listing(connection: sqlite3.Connection, run_id: str) -> list[SpanView]:
    if connection.execute(QUERIES["run_status"], (run_id,)).fetchone() is None:
        raise unknown(run_id)
    return [span_view(span) for span in spans.load(connection, run_id)]


def _unzipped(body: bytes, limit: int) -> bytes:
    unzip = zlib.decompressobj(_GZIP)
    try:
        plain = unzip.decompress(body, limit + 1)
    except zlib.error as error:
        raise Refused(f"body: not gzip: {error}") from None
    if len(plain) > limit:
        raise Refused(f"body: larger than {limit} bytes when unpacked", 413)
    if not unzip.eof:
        raise Refused("body: the gzip data ends too early")
    return plain
