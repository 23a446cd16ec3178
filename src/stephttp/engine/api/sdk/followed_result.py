"""The output URL for those who ask for events (`Accept: text/event-stream`): `step`, `waiting`,
`stream`, `response`.

    step       a step has ended: its number, id and state
    waiting    the steps for which the run waits now
    stream     what the handler has pushed, with the hash of the step that it belongs to, if any;
               `commit` and `rollback` say of a step that its pushes stay, or do not count
    response   the answer of the handler, with which the stream ends

An event has as its id the number of the last push. A client that comes again with it
(`Last-Event-ID`) gets the pushes behind it. Steps are sent again, as they stand then.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from stephttp._wire import stream_frames
from stephttp._wire.json import encode_struct
from stephttp._wire.progress import Progress
from stephttp.engine.model.tokens import RunToken
from stephttp.engine.reading.progress import progress
from stephttp.engine.web.event_stream import KEEP_ALIVE, event_number

if TYPE_CHECKING:
    from stephttp.engine.engine import Engine

_MOST_STEPS = 10_000
_NOT_KNOWN = 1.0
"""Seconds until a run is looked for again."""
_NAMES = {
    stream_frames.STREAM: "stream",
    stream_frames.COMMIT: "commit",
    stream_frames.ROLLBACK: "rollback",
}
_SOON = b"retry: 1000\n\n"
"""After how many milliseconds a client whose stream has broken comes again."""


def follow_result(
    engine: Engine,
    link: RunToken,
    request: Request,
    headers: Mapping[str, str],
    seconds: float | None,
) -> Response:
    """Answer with the events of a run, from its beginning or from what the client has.

    Args:
        link: by which the client came.
        seconds: how long the client is willing to wait; `None`: as long as a stream lasts.
    """
    after = event_number(request.headers.get("last-event-id", ""))
    lifetime = engine.settings.stream_lifetime
    body = _events(engine, link, after, lifetime if seconds is None else min(lifetime, seconds))
    return StreamingResponse(body, headers=headers, media_type="text/event-stream")


async def _events(
    engine: Engine, link: RunToken, after: int, seconds: float
) -> AsyncGenerator[bytes]:
    clock, streams, quiet = engine.clock, engine.streams, engine.settings.stream_keep_alive
    now = clock.monotonic()
    end, quiet_at = now + seconds, now + quiet
    news, run_id, known = _StepNews(), link.run_id, False
    # When the client leaves, Starlette cancels this.
    with streams.listening(run_id) as wake:
        yield _SOON
        while True:
            wake.clear()
            look = partial(progress, run_id=run_id, after=news.settled, most=_MOST_STEPS)
            far = None
            if wake.run_changed or not known:
                wake.run_changed = False
                far = await engine.store.read(look)
            part = await streams.read(run_id, after)
            after, known = part.last, part.known
            # Pushes first: with the number of the last one, a client says that it has them all.
            events = [
                _event(_NAMES[frame.event], number, _data(frame))
                for number, frame in part.frames
                if frame.event in _NAMES
            ]
            events += news.events(far, after) if far else ()
            if events:
                yield b"".join(events)
                quiet_at = clock.monotonic() + quiet
            if part.more or part.frames:
                continue
            if part.ended or not (part.known or link.early):
                answer = await streams.end(run_id, after)
                if answer is not None:
                    yield b"".join(news.events(await engine.store.read(look), after))
                    yield _event("response", after, answer)
                    return
                continue
            if streams.released or clock.monotonic() >= end:
                return
            if clock.monotonic() >= quiet_at:
                yield KEEP_ALIVE
                quiet_at = clock.monotonic() + quiet
            left = min(end, quiet_at) - clock.monotonic()
            # A run that its first process has not reported yet wakes no one.
            await clock.wait_for(left if part.known else min(left, _NOT_KNOWN), wake)


class _StepNews:
    """Events about steps for one client, which gets each once.

    Attributes:
        settled: the number up to which all steps have ended, and were sent.
    """

    def __init__(self) -> None:
        self.settled = 0
        self._sent: set[int] = set()
        self._waiting: list[str] = []

    def events(self, found: Progress, number: int) -> list[bytes]:
        """Return events for what is new."""
        events = []
        for step in found.steps:
            if step.number not in self._sent and step.number > self.settled:
                self._sent.add(step.number)
                events.append(_event("step", number, encode_struct(step)))
        while self.settled + 1 in self._sent:
            self.settled += 1
            self._sent.discard(self.settled)
        if found.waiting != self._waiting:
            events.append(_event("waiting", number, encode_struct({"steps": found.waiting})))
            self._waiting = found.waiting
        return events


def _data(frame: stream_frames.Frame) -> bytes:
    if frame.event == stream_frames.STREAM:
        behind = f',"hashedStepId":"{frame.step}"}}' if frame.step else "}"
        return f'{{"data":{frame.data}{behind}'.encode()
    return encode_struct({"hashedStepId": frame.step or None})


def _event(name: str, number: int, data: Any) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (number, name.encode(), data)
