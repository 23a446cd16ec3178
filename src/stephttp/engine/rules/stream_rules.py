"""Which pushes count when they arrive for a run's stream: repeated, taken back, superseded, too
many. Pure.

A handler is called again and again, and pushes again what it pushed before. So:

    a push outside of steps   counts once: the n-th push of a call is the n-th of every call
    a push of a step          counts until another call pushes for the same step, because the step
                              begins again: what was there is then taken back
    a frame that was sent     twice, because its sender got no answer, counts once
    a call that was           superseded by another writer, writes no more
    beyond the limit          pushes are lost, and a frame says so; marks are kept
    what begins a call        is kept where another SDK writes it, whose clients expect it

The answer of the handler is kept beside the frames: whether it is the end is decided by the run.
"""

from __future__ import annotations

from msgspec.structs import replace

from stephttp._wire.stream_frames import (
    COMMIT,
    FIRST_CALL,
    LOST,
    METADATA,
    REDIRECT,
    RESPONSE,
    ROLLBACK,
    ROOM,
    STREAM,
    Frame,
)
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.stream_state import Arrival, Kept, StreamState

_BESIDE = 32
"""Bytes that a frame counts beside its data."""
_MOST_FRAMES = ROOM - 1_000
"""Of one writer; its numbers must suffice."""
_NOT_KEPT = frozenset({REDIRECT})
_NOT_OURS = frozenset({METADATA, REDIRECT})
"""The same, of a call whose frames are counted: of stephttp's own SDK."""


def keep(state: StreamState, arrival: Arrival, limit: int) -> Kept:
    """Decide what is kept of an arrival.

    Args:
        state: of the stream so far.
        limit: bytes that a stream may have.

    Raises:
        Refused: another writer has taken the place of this one (409).
    """
    state, frames = _begin(state, arrival), arrival.frames
    if arrival.before is not None:
        already = state.sent - arrival.before
        if already < 0:
            raise Refused("frames: those before them are missing, or another call writes now", 409)
        frames = frames[already:]
    not_kept = _NOT_KEPT if arrival.before is None else _NOT_OURS
    writer, kept = state.last // ROOM, []
    size, outside, full, response = state.size, state.outside, state.full, state.response
    live, number, answer = dict(state.live), state.last % ROOM, None
    for frame in frames:
        if frame.event in not_kept or (frame.place and frame.place <= outside):
            continue
        if frame.event == RESPONSE:
            response, answer = frame.data.encode(), frame
            continue
        outside = max(outside, frame.place)
        marks = frame.event in (COMMIT, ROLLBACK)
        if marks:
            if frame.step and frame.step not in live:
                continue  # nothing is kept of the step
        elif full or size + _size(frame) > limit or number >= _MOST_FRAMES:
            if not full:
                full = True
                kept.append(Frame(LOST, f'{{"limit":{limit}}}'))
                number += 1
            continue
        if frame.event == STREAM and frame.step:
            if live.get(frame.step, writer) != writer:
                kept.append(Frame(ROLLBACK, "", frame.step))
                number += 1
            live[frame.step] = writer
        elif frame.event == ROLLBACK:
            live.pop(frame.step, None)
        kept.append(replace(frame, place=0))
        number += 1
        size += _size(frame)
    return Kept(
        replace(
            state,
            sent=state.sent + len(frames),
            last=writer * ROOM + number,
            size=size,
            outside=outside,
            live=live,
            full=full,
            response=response,
        ),
        kept,
        answer,
    )


def _begin(state: StreamState, arrival: Arrival) -> StreamState:
    """Let a writer begin that is not the latest one."""
    if state.writer == arrival.writer:
        return state
    first = arrival.writer == FIRST_CALL
    if first and state.writer:
        raise Refused("frames: the first call is over, and another one writes now", 409)
    last = 0 if first else (state.last // ROOM + 1) * ROOM
    # The answer of an earlier writer was not the end.
    return replace(state, writer=arrival.writer, sent=0, last=last, response=None)


def _size(frame: Frame) -> int:
    return len(frame.data) + _BESIDE
