"""What the server keeps: functions, runs, and reasons to call the application."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MAX_STEPS = 1000
"""Steps that a run may have when it leaves its first request."""
EVENT_NAME = "inngest/http.request"
"""The name of an event whose query and body are restored."""

Op = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """What the last first checkpoint said of an endpoint. It holds for all runs of that."""

    retries: int
    method: str


@dataclass
class Function:
    """An endpoint. The server compares what comes with the first configuration only, which it keeps
    in a cache, and writes whatever differs from that (docs/protocol.md 13.6)."""

    first: Config
    config: Config

    def update(self, config: Config) -> None:
        """Take what a first checkpoint says."""
        if config != self.first:
            self.config = config


@dataclass
class Item:
    """A queue item: one reason to call the application, with its attempts."""

    run_id: str
    attempt: int = 0
    generation: int = 1
    step_id: str = ""
    saves: str = ""
    """A step that becomes `null` when the item is due: a sleep, or a wait that timed out."""
    job: str = ""
    race: bool = False
    """Whether it calls whatever is pending (`parallelMode: "race"`)."""


@dataclass
class Pause:
    """A wait for an event or a signal."""

    name: str
    opts: dict[str, Any]
    race: bool = False


@dataclass
class RealRun:
    """A run."""

    run_id: str
    event: dict[str, Any]
    function: Function
    version: int
    status: str = "Running"
    memos: dict[str, Any] = field(default_factory=dict)
    saved: list[str] = field(default_factory=list)
    """The ids of the memos in the order in which they were saved."""
    pending: set[str] = field(default_factory=set)
    """Ids that the last answer with several ops listed, as long as they are not saved."""
    jobs: set[str] = field(default_factory=set)
    """Names of the jobs that there were or are: none is made twice, for hours."""
    pauses: dict[str, Pause] = field(default_factory=dict)
    """Open waits for events and signals, by step."""
    output: Any = None
    force_plan: bool = False
    reentered: bool = False

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.status != "Running"

    def save(self, step: str, memo: Any) -> bool:
        """Save what a step gave. The first output wins, and only that takes the step out of the
        pending ones. Returns whether it was new."""
        if step in self.memos:
            return False
        self.memos[step] = memo
        self.saved.append(step)
        self.pending.discard(step)
        return True

    def wakes(self, race: bool) -> bool:
        """Whether a finished op leads to a call now."""
        return race or not self.pending

    def end(self, status: str, output: Any) -> None:
        """End; the first end counts."""
        if not self.over:
            self.status, self.output = status, output
            self.memos = {}
