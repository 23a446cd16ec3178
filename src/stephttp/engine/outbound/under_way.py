"""The calls of endpoints that wait for an answer, and which process may work on each: current,
superseded, taken. Pure.

Each sending of a call has a name. A proxy may deliver it twice, also to two processes, which
would then do the same work. So it counts for one process only: the one that the state of
the run was sent to, which begins without a question, or else the first one that asks.

    a question or a report is                                            it is
    of a sending that is not waited for (any more)                       SUPERSEDED
    of the process that works on it, or of the first one                 CURRENT
    of another one than the state was sent to, which was not heard of    UNSURE for a while
    of another one, later, if the one with the state never was           CURRENT
    of any other one                                                     TAKEN

UNSURE: the state may have been taken, or what is in front of the application may have passed the
call to this process only. It is known after `RESENT_AFTER`: by then a process that has taken the
state has asked, or begins no step before it does.
"""

from __future__ import annotations

from enum import Enum, auto

from stephttp._wire.stored_state import RESENT_AFTER, CallId

_SEVERAL_FOR = 3600.0
_MOST_ORIGINS, _LENGTH = 4096, 64


class Heard(Enum):
    """The standing of a process that was heard of; see the table on top."""

    CURRENT = auto()
    SUPERSEDED = auto()
    UNSURE = auto()
    TAKEN = auto()


class _Sending:
    """One sending of a call."""

    __slots__ = ("heard", "name", "process", "since")

    def __init__(self, name: str, process: str, since: float) -> None:
        self.name = name
        self.process = process
        """The process that works on it, or may do so; empty while none is known."""
        self.since = since
        self.heard = False


class UnderWay:
    """The calls that are waited for, by run and step. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._sendings: dict[tuple[str, str], _Sending] = {}

    def send(self, key: tuple[str, str], name: str, receiver: str, now: float) -> None:
        """Note that a call is sent, in place of any earlier sending of it.

        Args:
            receiver: the process that the state goes to; empty if it does not go along.
        """
        self._sendings[key] = _Sending(name, receiver, now)

    def hear(self, run_id: str, call: CallId, now: float) -> Heard:
        """Note that an SDK works on a call, if it may; see the table on top."""
        if not call.delivery:
            return Heard.CURRENT  # an SDK that does not say which sending it is
        sending = self._sendings.get((run_id, call.step))
        if sending is None or sending.name != call.delivery:
            return Heard.SUPERSEDED
        if call.process and sending.process != call.process:
            if sending.process and sending.heard:
                return Heard.TAKEN
            if sending.process and now < sending.since + RESENT_AFTER:
                return Heard.UNSURE
            sending.process = call.process
        sending.heard = True
        return Heard.CURRENT

    def may_be_at_work(self, key: tuple[str, str]) -> bool:
        """Say whether a process works on a call, or may have begun to without a question."""
        sending = self._sendings.get(key)
        return sending is not None and (sending.heard or bool(sending.process))

    def forget(self, key: tuple[str, str]) -> bool:
        """Wait for a call no more. Returns whether an SDK was heard of that works on it."""
        sending = self._sendings.pop(key, None)
        return sending is not None and sending.heard


class Processes:
    """The processes of applications, as far as they were heard of.

    The state of a run is sent along only where one process is known: with several, it would reach
    the right one by chance.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, float]] = {}
        """The latest one of an origin, and until when there are several; in the order in which they
        were heard of."""

    def note(self, origin: str, process: str, now: float) -> None:
        """Note that a process was heard of."""
        known = self._known.get(origin)
        if known is not None and known[0] == process:  # as with nearly every report
            self._known[origin] = self._known.pop(origin)
            return
        if not (process.isascii() and process.isalnum()):  # it becomes a header
            return
        process = process[:_LENGTH]
        latest, several_until = self._known.pop(origin, (process, now))
        if latest != process:
            several_until = now + _SEVERAL_FOR
        self._known[origin] = (process, several_until)
        if len(self._known) > _MOST_ORIGINS:
            del self._known[next(iter(self._known))]

    def only(self, origin: str, now: float) -> str:
        """Return the one process of an origin; empty if there are several, or it is not known."""
        process, several_until = self._known.get(origin, ("", now))
        return process if now >= several_until else ""
