"""`Checkpointing` (`safe`, `performant`, ...): when the steps of a request that is still
being answered are sent to the server.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

from stephttp.errors import ConfigurationError

_SHORTEST_LEASE, _LONGEST_LEASE = timedelta(seconds=1), timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Checkpointing:
    """When the steps of a request that is still being answered are sent to the server.

    Use one of the three modes, or make your own; `dataclasses.replace` changes a part of one.

    `Checkpointing.performant`, the default: once, when the handler has ended or must wait. A
    process that dies before that takes the request with it.

    `Checkpointing.safe`: the run is opened when its first step starts, and each step is sent when
    it ends. With the stephttp engine the run then holds a lease: when the process dies, the engine
    calls the endpoint again, and finished steps do not run again.

    `Checkpointing.blended`: three steps at a time, or what there is after two seconds. Short
    requests cost nothing more; long ones are as safe as with `safe`, but for the last steps.

    All of it happens in the background, and no step waits for it.

    Args:
        buffered_steps: how many finished steps are sent together; `None`: all, at the end.
        max_interval: after this time finished steps are sent, however few; `None`: no such limit.
        max_runtime: after this time the next step is left to a new call by the server, and the
            caller is redirected to the result; `None`: no limit. It also bounds each later call.
        lease: for how long a run is left to its process without a sign of life, 1 to 60 seconds.
            The process gives one for all its runs after each third of it, from a thread of its
            own, so that a handler that blocks the event loop does not lose its run.

    Raises:
        ConfigurationError: a value makes no sense; the message names it.
    """

    buffered_steps: int | None = None
    max_interval: timedelta | None = None
    max_runtime: timedelta | None = None
    lease: timedelta = timedelta(seconds=30)

    safe: ClassVar[Checkpointing]
    blended: ClassVar[Checkpointing]
    performant: ClassVar[Checkpointing]

    def __post_init__(self) -> None:
        if self.buffered_steps is not None and self.buffered_steps < 1:
            raise ConfigurationError(
                f"checkpointing.buffered_steps must be 1 or more, not {self.buffered_steps}; "
                "leave it out to send all steps at the end"
            )
        check_duration("checkpointing.max_interval", self.max_interval)
        check_duration("checkpointing.max_runtime", self.max_runtime)
        if not _SHORTEST_LEASE <= self.lease <= _LONGEST_LEASE:
            raise ConfigurationError(
                f"checkpointing.lease must be 1 to 60 seconds, not {self.lease.total_seconds():g}"
            )

    @property
    def lease_ms(self) -> int:
        """The lease in milliseconds."""
        return self.lease // timedelta(milliseconds=1)


def check_duration(name: str, value: timedelta | None) -> None:
    """Refuse a duration that is not positive.

    Raises:
        ConfigurationError: it is not; the message names it.
    """
    if value is not None and value <= timedelta(0):
        raise ConfigurationError(f"{name} must be positive, not {value.total_seconds():g} seconds")


Checkpointing.safe = Checkpointing(buffered_steps=1)
Checkpointing.blended = Checkpointing(buffered_steps=3, max_interval=timedelta(seconds=2))
Checkpointing.performant = Checkpointing()
