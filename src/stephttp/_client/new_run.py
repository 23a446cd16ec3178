"""The first checkpoint of a run, as the SDK sends it (docs/protocol.md 4.1):
`CheckpointNewRunRequest`, `NewAPIRunData`.
"""

from __future__ import annotations

from msgspec import Struct, field

from stephttp._wire.limits_of_run import RunLimits
from stephttp._wire.opcodes import Op

EVENT_NAME = "inngest/http.request"
"""The name under which a real server restores query and body (docs/protocol.md 6.1)."""

REQUEST_VERSION = 1
"""With 2, a real server waits until all that an answer lists is saved, which may be never (P1)."""


class NewAPIRunData(Struct, gc=False):
    """The request that started a run, as the data of its event."""

    domain: str
    method: str
    path: str
    fn: str = ""
    ip: str = ""
    content_type: str = ""
    query_params: str = ""
    body: bytes | None = None
    """Raw; base64 on the wire."""


class IdempotencyClaim(Struct):
    """The claim of a run to be the only one with an idempotency key (docs/design.md 3.7)."""

    scope: str
    key: str
    request: str
    """Digest of the request."""


class RunEvent(Struct, gc=False):
    """The synthetic event behind a run."""

    data: NewAPIRunData
    ts: int
    """Milliseconds since the epoch."""
    name: str = EVENT_NAME


class CheckpointNewRunRequest(Struct, omit_defaults=True, gc=False):
    """The first checkpoint of a run."""

    run_id: str
    event: RunEvent
    steps: list[Op] = field(default_factory=list)
    retries: int | None = None
    request_version: int | None = None
    idempotency: str = ""
    """A key that the caller chose; a real server ignores it."""
    lease: int | None = None
    """Milliseconds for which the run is left to this process; for the stephttp engine only."""
    claim: IdempotencyClaim | None = None
    reads_state: bool = False
    """True if re-entries may contain the run's state; for the stephttp engine only."""
    process: str = ""
    """The name of the process that may take it; for the stephttp engine only."""
    own_retries: int | None = None
    """The retries of this run, where `retries` is for a server that may keep it for all of them;
    for the stephttp engine only, and sent while the server is not known."""
    limits: RunLimits | None = None
    """What later calls of the run have to pass; for the stephttp engine only, and sent while the
    server is not known."""
    within_limits: bool = False
    """Whether the run is only opened if its first call has room within `limits`."""
