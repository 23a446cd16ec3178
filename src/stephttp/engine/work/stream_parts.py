"""The rows of a run's stream: stores what arrives, reads it, deletes it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace

import msgspec
from msgspec.structs import asdict

from stephttp._wire.json import encode_struct
from stephttp._wire.stream_frames import LOST, Frame, answer_of, says_failed
from stephttp.engine.model.inputs import Moment
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.run import RunStatus
from stephttp.engine.model.stream_state import Arrival, Kept, StreamEnd, StreamPart, StreamState
from stephttp.engine.rules.answers import is_current
from stephttp.engine.rules.results import error_json, http_result, render
from stephttp.engine.rules.stream_rules import keep
from stephttp.engine.store import runs
from stephttp.engine.store.sql import QUERIES

_PART = 64 * 1024
"""Bytes of one part, about, and of what is read at once."""

_frames = msgspec.json.Decoder(list[Frame])
_live = msgspec.json.Decoder(dict[str, int])
_NOT_STORED = error_json("NotFoundError", "the run is no longer stored")
_WRITTEN = frozenset({RunStatus.COMPLETED, RunStatus.FAILED})
"""The ends of a run that an SDK can know of."""
_EXPIRED = Frame(LOST, '{"reason":"the stream is no longer kept"}')


def append(connection: sqlite3.Connection, arrival: Arrival, at: Moment) -> Kept:
    """Keep frames that arrive, and return what was kept.

    Raises:
        Refused: another call of the handler writes now, or the stream was forgotten (409).
    """
    run_id, call = arrival.run_id, arrival.call
    state = load(connection, run_id)
    if state.gone:
        raise Refused("frames: the run ended, and its stream is no longer kept", 409)
    if call is not None and state.writer != arrival.writer:
        snapshot = runs.load(connection, run_id)
        if not is_current(snapshot, call.step, call.job, call.attempt):
            raise Refused("frames: the call that writes them was superseded", 409)
    kept = keep(state, arrival, at.settings.max_stream)
    number = kept.state.last - len(kept.frames)
    for frames in _portions(kept.frames):
        number += len(frames)
        connection.execute(QUERIES["insert_part"], (run_id, number, encode_struct(frames)))
    values = asdict(kept.state) | {"live": encode_struct(kept.state.live).decode()}
    connection.execute(QUERIES["save_stream"], values | {"run_id": run_id, "touched_ms": at.now_ms})
    return kept


def load(connection: sqlite3.Connection, run_id: str) -> StreamState:
    """Load where the stream of a run stands."""
    row = connection.execute(QUERIES["stream"], (run_id,)).fetchone()
    if row is None:
        return StreamState()
    writer, sent, last, size, outside, live, full, gone, response = row
    known = _live.decode(live)
    return StreamState(writer, sent, last, size, outside, known, bool(full), bool(gone), response)


def read(connection: sqlite3.Connection, run_id: str, after: int) -> StreamPart:
    """Read what is kept behind a number, up to some size."""
    row = connection.execute(QUERIES["run_status"], (run_id,)).fetchone()
    known = row is not None
    status, sdk = row or (RunStatus.SYNC, "")
    ended = RunStatus(status).ended
    state = load(connection, run_id)
    if state.gone:
        expired = [(state.last, _EXPIRED)] if after < state.last else []
        return StreamPart(expired, max(after, state.last), False, known, ended, sdk)
    found: list[tuple[int, Frame]] = []
    size, more = 0, False
    for seq, encoded in connection.execute(QUERIES["parts_after"], (run_id, after)):
        if size and size + len(encoded) > _PART:
            more = True
            break
        size += len(encoded)
        frames = _frames.decode(encoded)
        numbered = zip(range(seq - len(frames) + 1, seq + 1), frames, strict=True)
        found += [(number, frame) for number, frame in numbered if number > after]
    last = found[-1][0] if found else after
    return StreamPart(found, last, more, known, ended, sdk)


def end(connection: sqlite3.Connection, run_id: str) -> StreamEnd | None:
    """Return the end of a run; `None` if it has not ended.

    An answer that an SDK has written counts if it says of the run what the engine says. Another one
    was not the end: all who follow a run get what became of it.
    """
    row = connection.execute(QUERIES["run_end"], (run_id,)).fetchone()
    if row is None:
        lost = render(RunStatus.FAILED, None, None, _NOT_STORED)
        data = answer_of(404, lost.headers, lost.body, failed=True)
        return StreamEnd(encode_struct(data), "", 0, True)
    sdk, ended_ms, status = row[0], row[1], RunStatus(row[2])
    if not status.ended:
        return None
    written = load(connection, run_id).response
    answer, failed = render(status, *row[3:]), status is not RunStatus.COMPLETED
    if written is not None and status in _WRITTEN and says_failed(written) is failed:
        return StreamEnd(written, sdk, ended_ms, True)
    if status is RunStatus.FAILED and http_result(row[3], row[4]) is None:
        answer = replace(answer, body=row[5] or b"null")  # as the clients of other SDKs want it
    data = answer_of(answer.status, answer.headers, answer.body, failed=failed)
    return StreamEnd(encode_struct(data), sdk, ended_ms, status not in _WRITTEN)


def forget(connection: sqlite3.Connection, before_ms: int, limit: int) -> int:
    """Forget up to `limit` streams of runs that ended before a time, or that never came.

    Returns:
        How many there were.
    """
    values = {"before_ms": before_ms, "limit": limit}
    found = connection.execute(QUERIES["old_streams"], values).fetchall()
    for name in ("forget_parts", "forget_stream", "forget_orphan"):
        connection.executemany(QUERIES[name], found)
    return len(found)


def _portions(frames: Sequence[Frame]) -> Iterator[Sequence[Frame]]:
    """Cut frames into parts of some size."""
    begin, size = 0, 0
    for index, frame in enumerate(frames):
        if size and size + len(frame.data) > _PART:
            yield frames[begin:index]
            begin, size = index, 0
        size += len(frame.data) + 1
    if begin < len(frames):
        yield frames[begin:]
