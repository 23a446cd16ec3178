"""Renews the leases of this process's runs, in the SDK: one call for all of them, from a thread of
its own.

A handler may block the event loop, or the loop may be slow; that must not cost it its runs. So
the renewal does not depend on the loop, only on the process being alive and running threads. A
handler that hangs forever is therefore never taken over; only a process that ended, was stopped
(SIGSTOP), or cannot reach the engine is.

The thread lives as long as there are leases that live longer than a third of their length.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from msgspec import Struct

from stephttp._client.flow import Keys
from stephttp.errors import APIError

logger = logging.getLogger("stephttp")

Renew = Callable[[list[str], int], list[str]]


class _Lease(Struct):
    length_ms: int
    lost: Callable[[], None]
    until: float
    """When the engine may give the run to another process, at the earliest."""


class Leases:
    """The leases that this process holds. Thread-safe.

    Args:
        renew: moves leases (run ids, milliseconds) ahead and returns the runs that are lost. It
            blocks. `None`: no thread is started, and other code has to renew.
        monotonic: seconds of a clock that never jumps.
    """

    def __init__(
        self, renew: Renew | None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._renew = renew
        self.monotonic = monotonic
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Start again in a forked process: the runs are its parent's."""
        self._changed = threading.Condition()
        self._held: dict[str, _Lease] = {}
        self._due = 0.0
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        return len(self._held)

    def hold(
        self, run_id: str, length_ms: int, lost: Callable[[], None], since: float | None = None
    ) -> None:
        """Hold the lease of a run that was opened.

        Args:
            lost: called, in any thread, when the run is not this process's any more.
            since: when the engine was asked for it, by `monotonic`; `None`: now.
        """
        with self._changed:
            begun = self.monotonic() if since is None else since
            known, until = self._held.get(run_id), begun + length_ms / 1000
            until = until if known is None else max(until, known.until)
            self._held[run_id] = _Lease(length_ms, lost, until)
            if self._renew is None:
                return
            due = self.monotonic() + length_ms / 3000
            if self._thread is None:
                self._due = due
                self._thread = threading.Thread(
                    target=self._work, args=(self._renew,), name="stephttp-leases", daemon=True
                )
                self._thread.start()
            elif due < self._due:
                self._due = due
                self._changed.notify()

    def release(self, run_id: str) -> None:
        """Drop the lease of a run that ended, went async, or is given up."""
        # Atomic, and on the path of every request: no lock.
        self._held.pop(run_id, None)

    def has_lapsed(self, run_id: str) -> bool:
        """Return whether the lease of a run has not been renewed in time, so that the engine may
        have given the run to another process."""
        lease = self._held.get(run_id)
        return lease is not None and self.monotonic() >= lease.until

    def renewed(self, run_ids: list[str], lost: list[str], since: float) -> None:
        """Take the answer of the engine that was asked then to renew leases."""
        for run_id in run_ids:
            lease = self._held.get(run_id)
            if lease is not None:
                lease.until = max(lease.until, since + lease.length_ms / 1000)
        self.drop(lost)

    def batches(self) -> dict[int, list[str]]:
        """Return the runs that are held, by the length of their leases."""
        batches: dict[int, list[str]] = {}
        for run_id, lease in self._held.copy().items():
            batches.setdefault(lease.length_ms, []).append(run_id)
        return batches

    def drop(self, run_ids: list[str]) -> None:
        """Give up leases that are lost."""
        for run_id in run_ids:
            lease = self._held.pop(run_id, None)
            if lease is not None:
                lease.lost()

    def close(self) -> None:
        """Drop all leases; the thread ends."""
        with self._changed:
            self._held.clear()
            self._changed.notify()

    def _work(self, renew: Renew) -> None:
        while True:
            with self._changed:
                while self._held and (left := self._due - self.monotonic()) > 0:
                    self._changed.wait(left)
                batches = self.batches()
                if not batches:
                    self._thread = None
                    return
                self._due = self.monotonic() + min(batches) / 3000
            for length_ms, run_ids in batches.items():
                asked = self.monotonic()
                try:
                    self.renewed(run_ids, renew(run_ids, length_ms), asked)
                except APIError as error:
                    logger.warning(
                        "stephttp: the leases of %d runs could not be renewed: %s",
                        len(run_ids), error,
                    )  # fmt: skip
                except Exception:
                    logger.exception("stephttp: leases could not be renewed")


class RunLease:
    """The lease of one run, as far as its process has asked for it.

    Args:
        leases: all that the process renews.
        run_id: the run.
        asked_ms: how long it is to last.
        keys: what is known of the server.
    """

    __slots__ = ("_asked", "_asked_at", "_keys", "_leases", "_run_id", "asked_ms", "held")

    def __init__(self, leases: Leases, run_id: str, asked_ms: int, keys: Keys) -> None:
        self._leases = leases
        self._run_id = run_id
        self.asked_ms = asked_ms
        self._keys = keys
        self._asked = False
        """Whether it was asked for before the server was known to give any."""
        self._asked_at = leases.monotonic()
        """When the engine was asked for it, or for a longer one."""
        self.held = False
        """Whether the server has given it, or will with the checkpoint that is under way."""

    @property
    def length_ms(self) -> int | None:
        """The lease to ask for, in milliseconds; `None` if the server is not known to give any."""
        return self.asked_ms if self._keys.supports("leases") else None

    @property
    def to_ask_ms(self) -> int | None:
        """The lease to ask for, also while the server is not known: ours then takes an opening for
        an update of one that it got, and a plain server does not read the field."""
        return self.asked_ms if self._keys.features is None else self.length_ms

    @property
    def has_lapsed(self) -> bool:
        """Whether the engine may have given the run to another process."""
        return self._leases.has_lapsed(self._run_id)

    def ask(self) -> int:
        """Ask for it, although it is not known whether the server gives any. Returns how long."""
        self._asked = True
        return self.asked_ms

    def asked_again(self) -> None:
        """Note that a checkpoint is about to be sent, with which it may be asked for."""
        self._asked_at = self._leases.monotonic()

    def delivered(self) -> None:
        """Note that a checkpoint was accepted, with which it may have been asked for."""
        self.held = self.held or (self._asked and self.length_ms is not None)
        self._asked = False

    def hold(self, lost: Callable[[], None]) -> None:
        """Renew it from now on.

        Args:
            lost: called when the server gives it no longer.
        """
        self.held = True
        self._leases.hold(self._run_id, self.asked_ms, lost, self._asked_at)

    def release(self) -> None:
        """Let it run out."""
        self._leases.release(self._run_id)
