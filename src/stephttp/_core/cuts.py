"""Steps that the handler cut off, by a timeout, a sibling that failed, a race or `cancel()`: in
later calls they never end (docs/design.md 3.16).

That they did not end is an outcome like any other, and stays so: in later calls such a step is
not executed, and never ends. The handler's own timer then rings again, or what cancelled the step
cancels it again.

A step is cut off, too, when the whole request is cancelled: the caller left, or the process
stops. Then a later call has to run it. Which of both it was shows only afterwards. The handler
itself did it if it then comes to another step, responds, or is ended because it can only wait.
Until then it is undecided.

A cancellation may also come just after a step has ended, and before its task has seen that. The
steps that were cut off with it then come first, in this call and in later ones; see `Cut.late`. In
later calls the step waits for that cancellation, too: nothing else may show that there was one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Raw

from stephttp._core.steps import Step
from stephttp._wire.cut_entries import Cut, entry_id, entry_op, read_entry
from stephttp._wire.ids import CAPSULE
from stephttp._wire.opcodes import Op, Timing
from stephttp._wire.stored_state import (
    PENDING,
    KnownStep,
    read_memo,
)

_PENDING = Raw(PENDING)


class CutSteps:
    """The steps of one run that were cut off, in earlier calls and in this one.

    Args:
        memos: what the server remembers, by hash.
    """

    __slots__ = ("_earlier", "_known", "_late", "_undecided", "entries")

    def __init__(self, memos: Mapping[str, Raw]) -> None:
        self._earlier: dict[str, tuple[str, Cut]] = {}
        """The entry, and its own hash, of each step that was cut off in an earlier call."""
        self._late: dict[str, tuple[str, Cut]] = {}
        """The same of steps that had ended."""
        self._undecided: list[tuple[Step, Cut, Timing]] = []
        self.entries: set[str] = set()
        """The hashes of all entries."""
        while (raw := memos.get(key := entry_id(len(self.entries)))) is not None:
            self.entries.add(key)
            self._read(key, raw)
        ended = sum(raw != _PENDING for key, raw in memos.items() if key != CAPSULE)
        self._known = ended - len(self.entries)
        """How many steps had ended when this call began."""

    def earlier(self, step_hash: str) -> Cut | None:
        """Return how a step was cut off in an earlier call, if it was."""
        found = self._earlier.get(step_hash)
        return None if found is None else found[1]

    def late(self, step_hash: str) -> Cut | None:
        """Return how a step ended in an earlier call, if its task was cancelled just then."""
        found = self._late.get(step_hash)
        return None if found is None else found[1]

    def entry_of(self, step_hash: str) -> str:
        """Return the hash of the entry of a step that was cut off in an earlier call."""
        return self._earlier[step_hash][0]

    def uses(self) -> dict[str, KnownStep]:
        """Return which uses of which ids were cut off in earlier calls, by hash."""
        return {
            key: KnownStep("", cut.id, cut.index, cut.branch)
            for key, (_, cut) in self._earlier.items()
        }

    def placed(self, hashes: Iterable[str]) -> list[str]:
        """Return remembered steps in the order in which they ended, or were cut off.

        A step that was cut off is represented by its entry. It comes after all that its call began
        with, also if the clocks of engine and application disagree.

        Args:
            hashes: the remembered steps, as the server orders them.
        """
        entries = {key: (cut.known, key) for key, cut in self._earlier.values()}
        entries |= {key: (cut.known, cut.step) for key, cut in self._late.values()}
        order: list[str] = []
        early: list[tuple[int, str]] = []
        ended = 0
        for key in hashes:
            if key in entries:
                early.append(entries[key])
            elif key not in self.entries:
                ended += 1
                if key not in self._earlier and key not in self._late:
                    order.append(key)
            while early and early[0][0] <= ended:
                order.append(early.pop(0)[1])
        return order + [key for _, key in early]

    def note(self, step: Step, timing: Timing, call_ns: int, raised: bool) -> None:
        """Note that a step was cut off. By whom is undecided.

        Args:
            step: which one.
            timing: when it began, and how long it took until then.
            call_ns: when this call of the handler began, in nanoseconds since the epoch.
            raised: its own body raised `CancelledError`.
        """
        after_ns = _after(timing, call_ns)
        cut = Cut(step.hash, step.step_id, step.index, step.branch, after_ns, self._known, raised)
        self._undecided.append((step, cut, timing))

    def note_late(self, step: Step, timing: Timing, call_ns: int) -> None:
        """Note that a step has ended whose task was cancelled before it came back."""
        after_ns = _after(timing, call_ns)
        cut = Cut(step.hash, step.step_id, step.index, "", after_ns, self._known, late=True)
        self._undecided.append((step, cut, timing))

    @property
    def undecided(self) -> int:
        """The number of steps of which it is undecided who cut them off."""
        return len(self._undecided)

    def forget(self) -> None:
        """Take what is undecided for the work of others than the handler."""
        self._undecided.clear()

    def decide(self) -> tuple[list[Op], set[str]]:
        """Take what is undecided for the handler's work.

        Returns:
            The ops that record it, and the hashes of the steps.
        """
        undecided, self._undecided = self._undecided, []
        ops = [self._add(step, cut, timing) for step, cut, timing in undecided]
        return ops, {step.hash for step, _, _ in undecided}

    def begin_again(self, step: Step, now_ns: int) -> Op:
        """Take back that a step was cut off. Returns the op that records it."""
        del self._earlier[step.hash]
        return self._add(
            step, Cut(step.hash, step.step_id, step.index, void=True), Timing(now_ns, 0)
        )

    def _add(self, step: Step, cut: Cut, timing: Timing) -> Op:
        number = len(self.entries)
        self.entries.add(entry_id(number))
        return entry_op(number, step.step_id, cut, timing)

    def _read(self, key: str, raw: Raw) -> None:
        cut = read_entry(read_memo(raw).raw)
        if cut is None:
            return
        if cut.void:
            self._earlier.pop(cut.step, None)
        elif cut.late:
            self._late[cut.step] = key, cut
        else:
            self._earlier[cut.step] = (key, cut)


def _after(timing: Timing, call_ns: int) -> int:
    """Return how long after the beginning of its call a step ended, in nanoseconds."""
    return max(0, int(timing.a + timing.b) - call_ns)
