"""The run that a re-entry continues, as a value: where it stands, and what its server can do."""

from __future__ import annotations

from msgspec import Struct

from stephttp._client.api_calls import CheckpointRun
from stephttp._core.plain_server import PlainCall
from stephttp._core.run import Run
from stephttp._wire.stored_state import CallId


class Resumed(Struct):
    """A run that a re-entry continues."""

    run: Run
    point: CheckpointRun
    """Where it continues."""
    ours: bool
    """Whether it is our engine that calls."""
    raw_allowed: bool
    """Whether the server reads `raw` in a result (docs/design.md 3.8)."""
    started_ns: int
    with_result: bool = False
    """Whether the server takes finished steps with the result (docs/design.md 3.8)."""
    keeps_warnings: bool = False
    """Whether the server keeps warnings with a run (docs/design.md 3.8)."""
    takes_keys: bool = False
    """Whether the server takes further idempotency keys with the answer, and it is the answer to
    the one that the request carries, and not a rerun."""
    heard: bool = True
    """Whether the answer will be read, as far as this side can know."""
    heard_ns: int = 0
    """When the server was heard of last, in nanoseconds since the epoch."""
    unanswered: bool = False
    """Whether the answer to a call before this one did not arrive, so that this one's may not."""
    keeps_streams: bool = False
    """Whether the server keeps the streams of runs (docs/design.md 3.8)."""
    request_id: str = ""
    """The server's id of this call."""
    ended: bool = False
    """Whether the answer ends the run."""
    call_id: CallId | None = None
    """The call, where the engine refuses what one reports that was superseded."""
    plain: PlainCall | None = None
    """What the call does, if it is by a server that is not ours."""

    @property
    def comes_again(self) -> bool:
        """Whether the same call comes again after an error. Where other servers ask for one step,
        it has to, because the step is planned only once."""
        return self.ours or (self.plain is not None and self.plain.step is not None)
