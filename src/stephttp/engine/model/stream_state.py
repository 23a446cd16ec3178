"""The kept stream of a run, as values: its state, what arrives for it, and what is read of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stephttp._wire.stored_state import CallId
from stephttp._wire.stream_frames import Frame
from stephttp.engine.model.values import Value


class StreamState(Value, frozen=True):
    """Where the stream of a run stands. See schema.sql for what the fields mean."""

    writer: str = ""
    sent: int = 0
    last: int = 0
    size: int = 0
    outside: int = 0
    live: Mapping[str, int] = {}
    full: bool = False
    gone: bool = False
    response: bytes | None = None


class Arrival(Value, frozen=True):
    """Frames that arrive for the stream of a run.

    Attributes:
        writer: the call of the handler that writes them, or the request that brings them.
        before: how many frames of this writer came before, as it says; `None` if it does not
            count them.
        call: the call of the engine in which they are written, where the SDK names it.
    """

    run_id: str
    frames: Sequence[Frame]
    writer: str
    before: int | None = None
    call: CallId | None = None


class Kept(Value, frozen=True):
    """What an arrival does to a stream: the new state, and the frames that are kept, which have
    the numbers up to `state.last`.

    Attributes:
        answer: of the handler, if it has arrived now; it is kept beside the frames.
    """

    state: StreamState
    frames: Sequence[Frame]
    answer: Frame | None = None


class StreamPart(Value, frozen=True):
    """A part of a stream, for one who follows it.

    Attributes:
        frames: with their numbers, in their order.
        last: the number behind which to read on.
        more: whether there is more already.
        known: whether the run is stored.
        ended: whether the run has ended, so that nothing comes behind this, if there is no more.
        sdk: of the run; empty, too, if it is not known.
    """

    frames: Sequence[tuple[int, Frame]] = ()
    last: int = 0
    more: bool = False
    known: bool = True
    ended: bool = False
    sdk: str = ""


class StreamEnd(Value, frozen=True):
    """The end of a run, as it stands in the database.

    Attributes:
        data: of the event that ends the stream, as JSON.
        sdk: of the run.
        ended_ms: when it ended.
        certain: whether it stays so: the SDK has written the event itself, or may not.
    """

    data: bytes
    sdk: str
    ended_ms: int
    certain: bool
