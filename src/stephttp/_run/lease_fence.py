"""The fence of a first call: it has its run for the length of its lease; see `fences`."""

from __future__ import annotations

import logging

from stephttp._client.flow import Flow
from stephttp._client.leases import RunLease
from stephttp._core.run import Run

logger = logging.getLogger("stephttp")


class LeaseFence:
    """Whether a run that holds a lease may be in the hands of another process.

    Args:
        run: the run.
        lease: of it.
    """

    __slots__ = ("_lease", "_run", "is_lost", "is_over")

    def __init__(self, run: Run, lease: RunLease) -> None:
        self._run = run
        self._lease = lease
        self.is_lost = False
        """Whether another process has the run, or may have it."""
        self.is_over = False
        """Whether its journal has said all, or has left the run to a call in the foreground."""

    @property
    def closed(self) -> bool:
        """Whether a step may not begin now."""
        if not self.is_lost and self._lease.has_lapsed:
            self.lost()
        return self.is_lost

    def ask(self) -> Flow[None]:
        """Do nothing: the run is left to the next call."""
        yield from ()

    def lost(self) -> None:
        """Expire the run: another process has taken it over. May be called in any thread."""
        if not self.is_over and not self._run.expired:
            logger.warning(
                "stephttp: run %s was taken over or cancelled, or may have been, because the "
                "engine has not heard of this process for too long; its caller is redirected to "
                "the result at the next step, or at the end",
                self._run.run_id,
            )  # fmt: skip
        self.is_lost = True
        self._run.expire()
