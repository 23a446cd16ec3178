"""The stream of a run over HTTP: `/v1/realtime/publish/tee`, and following it
(docs/protocol.md 8.3, 8.4).
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from stephttp._wire import stream_frames
from stephttp._wire.ids import ULID_PATTERN, ulid_ms
from stephttp._wire.stream_frames import FrameReader, written
from stephttp.engine.api.sdk.publishing import channel_of, while_it_may_last
from stephttp.engine.model import tokens
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.sdk_links import STILL_COMING_S
from stephttp.engine.model.stream_state import Arrival
from stephttp.engine.web.event_stream import KEEP_ALIVE, event_number
from stephttp.engine.web.requests import call_of, engine_of, read_body

if TYPE_CHECKING:
    from stephttp.engine.engine import Engine

_MOST_TEED = 1_024_000
_ULID = re.compile(ULID_PATTERN, re.ASCII)
_WRITER = re.compile(r"([A-Za-z0-9_-]{1,64}) ([0-9]{1,9})", re.ASCII)


async def tee(request: Request) -> Response:
    """Add the events of the body to the stream of a run, as they come."""
    engine = engine_of(request)
    channel = channel_of(request, "the run whose stream this is")
    header = request.headers.get(stream_frames.WRITER)
    if header is not None:
        return await _from_ours(request, engine, channel, header)
    # JS never ends the body that it began in a re-entry which did not finish the run.
    with engine.streams.writing(channel):
        await while_it_may_last(engine, _pass_on(request, engine, channel))
    return Response()


async def _from_ours(request: Request, engine: Engine, run_id: str, header: str) -> Response:
    """Add what a call of a handler sends: all at once, each event once."""
    named = _WRITER.fullmatch(header)
    if named is None:
        raise Refused(f"{stream_frames.WRITER}: {header[:64]!r} is not '<writer> <number>'")
    if not _ULID.fullmatch(run_id):
        raise Refused(f"channel: {run_id[:64]!r} is not a ULID")
    body = await read_body(request, engine.settings.max_body)
    frames = stream_frames.read(body)
    arrival = Arrival(run_id, frames, named[1], int(named[2]), call_of(request))
    kept = await engine.streams.append(arrival)
    new = kept.frames if kept.answer is None else [*kept.frames, kept.answer]
    if new:
        engine.channels.tee(run_id, b"".join(map(written, new)))
    headers = {stream_frames.WRITER: stream_frames.FULL} if kept.state.full else {}
    if named[1] == stream_frames.FIRST_CALL and named[2] == "0":
        now_s = int(engine.clock.now())
        headers[stream_frames.LINK] = tokens.run_token(run_id, engine.store.secret, now_s)
    return Response(headers=headers)


async def _pass_on(request: Request, engine: Engine, channel: str) -> None:
    size, reader = 0, FrameReader()
    writer = tokens.new_ulid(engine.clock.now_ms(), engine.rng)
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > _MOST_TEED:
                raise Refused(f"body: larger than {_MOST_TEED} bytes", 413)
            if chunk:
                frames = reader.feed(chunk)
                if frames and _ULID.fullmatch(channel):
                    await engine.streams.append(Arrival(channel, frames, writer))
                engine.channels.tee(channel, chunk)
    except ClientDisconnect:
        pass  # What had arrived is passed on.


def wants_stream(request: Request) -> bool:
    """Whether a caller of the output wants the stream, as the TypeScript SDK's client reads it."""
    return request.query_params.get("events") == "inngest"


def follow_run(
    engine: Engine, run_id: str, request: Request, headers: Mapping[str, str]
) -> Response:
    """Answer with the stream of a run, from its beginning or from what the client has.

    A client that is slow holds up no other: it is sent what is stored, piece by piece.
    """
    said = request.headers.get("last-event-id") or request.query_params.get("after") or "0"
    body = _events(engine, run_id, event_number(said))
    return StreamingResponse(body, headers=headers, media_type="text/event-stream")


async def _events(engine: Engine, run_id: str, after: int) -> AsyncGenerator[bytes]:
    clock, streams = engine.clock, engine.streams
    end = clock.monotonic() + engine.settings.stream_lifetime
    # When the client leaves, Starlette cancels this.
    with streams.listening(run_id) as wake:
        yield KEEP_ALIVE
        begun = not await streams.begins_itself(run_id)
        if begun:
            yield stream_frames.metadata(run_id)
        quiet_at = clock.monotonic() + engine.settings.stream_keep_alive
        while not streams.released and clock.monotonic() < end:
            wake.clear()
            part = await streams.read(run_id, after)
            after = part.last
            if part.frames:
                if not begun and part.frames[0][1].event != stream_frames.METADATA:
                    yield stream_frames.metadata(run_id)
                begun = True
                yield b"".join(written(frame, number) for number, frame in part.frames)
                quiet_at = clock.monotonic() + engine.settings.stream_keep_alive
            if part.more or part.frames:
                continue
            if part.ended or not (part.known or _may_come(run_id, clock.now_ms())):
                answer = await streams.end(run_id, after)
                if answer is not None:
                    if not begun:
                        yield stream_frames.metadata(run_id)
                    yield b"event: %s\ndata: %s\n\n" % (stream_frames.RESPONSE.encode(), answer)
                    return
                continue
            if clock.monotonic() >= quiet_at:
                yield KEEP_ALIVE
                quiet_at = clock.monotonic() + engine.settings.stream_keep_alive
            left = min(end, quiet_at) - clock.monotonic()
            await clock.wait_for(left, wake)


def _may_come(run_id: str, now_ms: int) -> bool:
    """Whether a run that is not stored may still be reported."""
    return not _ULID.fullmatch(run_id) or abs(now_ms - ulid_ms(run_id)) < STILL_COMING_S * 1000
