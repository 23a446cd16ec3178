"""The stream of a run as server-sent events (docs/protocol.md 8.1), as SDK and engine write and
read them.

The names and shapes are those of the TypeScript SDK, whose client is strict: one space behind each
colon, JSON in one line.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from stephttp._wire.http import joined
from stephttp._wire.json import UNREADABLE, encode_struct

STREAM, COMMIT, ROLLBACK = "inngest.stream", "inngest.commit", "inngest.rollback"
METADATA, REDIRECT, RESPONSE = "inngest.metadata", "inngest.redirect_info", "inngest.response"
LOST = "stephttp.lost"
"""Says that pushes are missing here. Other SDKs' clients pass over names that they do not know."""

WRITER = "x-stephttp-stream"
"""Says of a request that brings frames which call of the handler writes, and how many frames of it
came before: `<name> <count>`. In the answer, `full` if the engine keeps no more of them."""
FULL = "full"
LINK = "x-stephttp-link"
"""Of the answer to the first frames of a first call: what opens the output of the run."""
FIRST_CALL = "first"
"""The name of the first call of a handler as a writer."""
ROOM = 1_000_000
"""The frames of a writer have numbers from `writer * ROOM + 1` on; the first call is writer 0."""
AFTER_FIRST_CALL = ROOM - 1
"""The number before those of all further calls."""

_NOT_TOLD = frozenset({"set-cookie", "content-length"})
"""No event sets cookies, and scripts of a page must not read those that are not for them."""
_HASHED = "hashedStepId"
_LINE_END = re.compile("[\r\n]")


class Frame(Struct, frozen=True, array_like=True, gc=False):
    """One event of a stream.

    Attributes:
        event: its name.
        data: of a push, its JSON; of other SDKs' own events, their data. Else empty.
        step: the hash of the step that it belongs to; empty outside of steps.
        place: of a push outside of steps, which one of the handler it is, counted from 1; 0 where
            that is not known. It is not kept.
    """

    event: str
    data: str = ""
    step: str = ""
    place: int = 0


_Hash = Annotated[str, Meta(pattern="^[0-9A-Za-z_-]{1,64}$")]
"""Of a step. It is written into JSON as it is."""


class _PushedFrame(Struct):
    data: Raw = Raw(b"null")
    hashedStepId: _Hash | None = None


class _Marked(Struct):
    hashedStepId: _Hash | None = None


class _AnswerFrame(Struct, omit_defaults=True):
    body: str
    statusCode: int
    headers: dict[str, str]
    encoding: str = ""


class _EndFrame(Struct):
    status: str


_ended = msgspec.json.Decoder(_EndFrame)
_pushed = msgspec.json.Decoder(_PushedFrame)
_marked = msgspec.json.Decoder(_Marked)


def pushed(value: bytes, step: str = "", place: int = 0) -> bytes:
    """Write a push.

    Args:
        value: JSON in one line.
        step: hash of the step that pushes.
        place: see `Frame`; only for the engine.
    """
    number = b"id: %d\n" % place if place else b""
    behind = b',"hashedStepId":"%s"}\n\n' % step.encode() if step else b"}\n\n"
    return b'%sevent: inngest.stream\ndata: {"data":%s%s' % (number, value, behind)


def committed(step: str) -> bytes:
    """Say that a step has finished, so that its pushes stay."""
    return _mark(COMMIT, step)


def rolled_back(step: str) -> bytes:
    """Say that a step has failed, or begins again, so that its pushes so far do not count."""
    return _mark(ROLLBACK, step)


def metadata(run_id: str) -> bytes:
    """Write the event that begins a stream."""
    return _event(METADATA, {"runId": run_id})


def redirect(run_id: str, url: str) -> bytes:
    """Say where the stream continues."""
    return _event(REDIRECT, {"runId": run_id, "url": url})


def lost(reason: str) -> bytes:
    """Say that pushes are missing here."""
    return _event(LOST, {"reason": reason})


def response(
    status: int, headers: Iterable[tuple[str, str]], body: bytes, *, failed: bool
) -> bytes:
    """Write the event that ends a stream: the answer of the handler.

    Args:
        failed: whether the run has failed.
    """
    return _event(RESPONSE, answer_of(status, headers, body, failed=failed))


def answer_of(
    status: int, headers: Iterable[tuple[str, str]], body: bytes, *, failed: bool
) -> dict[str, object]:
    """Return the data of that event. A body that is not UTF-8 is written in base64, and says so."""
    shown = joined(pair for pair in headers if pair[0].lower() not in _NOT_TOLD)
    try:
        answer = _AnswerFrame(body.decode(), status, shown)
    except UnicodeDecodeError:
        answer = _AnswerFrame(base64.b64encode(body).decode(), status, shown, "base64")
    return {"status": "failed" if failed else "succeeded", "response": answer}


def says_failed(answer: bytes) -> bool | None:
    """Say whether the data of that event, as an SDK wrote it, is of a run that failed; `None`: it
    cannot be read."""
    try:
        return _ended.decode(answer).status == "failed"
    except UNREADABLE:
        return None


def written(frame: Frame, number: int | None = None) -> bytes:
    """Write a frame as an event.

    Args:
        number: its id, by which a client that comes again says what it has.
    """
    behind = b"" if number is None else b"id: %d\n" % number
    if frame.event == STREAM:
        return behind + pushed(frame.data.encode(), frame.step, frame.place)
    if frame.event in (COMMIT, ROLLBACK):
        return behind + _mark(frame.event, frame.step)
    lines = "".join(f"data: {line}\n" for line in frame.data.split("\n"))
    return behind + f"event: {frame.event}\n{lines}\n".encode()


class FrameReader:
    """Reads the events of a stream as its bytes come."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[Frame]:
        """Return the frames that are whole now. Comments are passed over.

        A known event of a wrong shape is kept as one that is not known.
        """
        *blocks, self._rest = (self._rest + chunk).replace(b"\r\n", b"\n").split(b"\n\n")
        frames = [_read(block.decode("utf-8", "replace")) for block in blocks]
        return [frame for frame in frames if frame is not None]


def read(stream: bytes) -> Sequence[Frame]:
    """Return the frames of a whole stream."""
    return FrameReader().feed(stream)


def _read(block: str) -> Frame | None:
    event, place, lines = "message", 0, []
    for line in _LINE_END.split(block):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            event = value
        elif name == "data":
            lines.append(value)
        elif name == "id" and value.isascii() and value.isdecimal() and len(value) < 10:
            place = int(value)
    if not lines:
        return None
    data = "\n".join(lines)
    try:
        if event == STREAM:
            push = _pushed.decode(data)
            step = push.hashedStepId or ""
            compact = msgspec.json.format(push.data, indent=-1).decode()
            return Frame(STREAM, compact, step, 0 if step else place)
        if event in (COMMIT, ROLLBACK):
            return Frame(event, "", _marked.decode(data).hashedStepId or "")
    except UNREADABLE:
        event = "message"
    return Frame(event, data)


def _mark(event: str, step: str) -> bytes:
    return _event(event, {_HASHED: step or None})


def _event(event: str, data: object) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (event.encode(), encode_struct(data))
