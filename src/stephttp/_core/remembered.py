"""Which remembered step a use of a step id gets when the handler has changed, and which ones are
left over (divergences).

A handler may have changed since its run began. So a remembered step answers only a use of the same
kind: what a sleep left is not the result of a function. A use that finds only steps of other kinds
under its id is a new step, with the next index. Remembered steps that a handler has not come to
when it has ended, and those whose kind has changed, are divergences: the work that they stand for
was done, and may have been done again under another name.

Divergences are reported only where they are certain:

- The stephttp engine says which steps it remembers (docs/protocol.md 14). Another server only
  sends hashes and memos; the form of a memo shows some kinds (5.3), and nothing is left over.
- A handler may have branches, and may respond without waiting for all of them. Where steps of a run
  were at work side by side (`UNSURE`), nothing is certain if a branch was cut short, or before the
  run ends.

Branches of `parallel` are known by their position, so each gets the steps that it had before,
whichever comes to a shared id first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Raw, Struct

from stephttp._core.step_kinds import KINDS, may_be
from stephttp._wire.ids import hash_step_id, is_own
from stephttp._wire.opcodes import OpCode
from stephttp._wire.stored_state import UNSURE, KnownStep, MemoKind, read_memo
from stephttp.errors import DivergenceError

_DONE = frozenset({MemoKind.VALUE, MemoKind.ERROR})


class Divergence(Struct, frozen=True):
    """A remembered step that does not fit the handler.

    Attributes:
        step_hash: the remembered step.
        step_id: as the user's code had it, with the number of the use where it is not the first.
        before: its kind; empty where it is not known.
        now: the kind of the step that has its id now; empty if nothing came to it.
        fresh: not reported by an earlier call.
    """

    step_hash: str
    step_id: str
    before: str
    now: str = ""
    fresh: bool = True

    @property
    def kind(self) -> str:
        """What happened: `step_changed` or `step_not_met`."""
        return "step_changed" if self.now else "step_not_met"

    def __str__(self) -> str:
        was = f"was a step.{self.before}" if self.before else "was a step of another kind"
        if self.now:
            return f"step {self.step_id!r} {was} and is a step.{self.now} now, which is a new step"
        return (
            f"step {self.step_id!r}, which {was}, is remembered, but the handler no longer uses it"
        )


_Use = tuple[int, str, KnownStep]
"""Index, hash, and what is known."""


class Remembered:
    """The steps that a server remembers of a run, as one call of the handler comes to them.

    Args:
        memos: what it remembers, by hash.
        names: what steps they are, where the server says that.
    """

    __slots__ = (
        "_cuts",
        "_left",
        "_memos",
        "_met",
        "_names",
        "_noted",
        "_used",
        "fails",
        "failure",
    )

    def __init__(self, memos: Mapping[str, Raw], names: Mapping[str, KnownStep] | None) -> None:
        self._memos = memos
        self._names = names
        self._cuts: Mapping[str, KnownStep] = {}
        """Uses that the handler cut off; see `cuts`."""
        self._left: dict[str, list[_Use]] | None = None
        """The steps that no use got so far, by the user's id, the first use last."""
        self._met: set[str] = set()
        self._noted: dict[str, Divergence] = {}
        """Steps of another kind than a new use of their id."""
        self._used: list[tuple[str, str]] = []
        """The ids and kinds of all uses in this call."""
        self.fails = False
        """Whether a divergence fails the run."""
        self.failure: DivergenceError | None = None
        """What was raised at a step because of that."""

    def add_cuts(self, cuts: Mapping[str, KnownStep]) -> None:
        """Add uses of steps that the handler cut off. They are remembered, too, without a memo."""
        self._cuts = cuts

    def has_left(self, step_id: str) -> bool:
        """Return whether a finished step with this id has not been met yet."""
        return any(
            key not in self._met
            and key not in self._cuts
            and key in self._memos
            and read_memo(self._memos[key]).kind in _DONE
            for _, key, _ in self._left_of(step_id)
        )

    @property
    def is_named(self) -> bool:
        """Whether the server says what steps it remembers."""
        return self._names is not None

    @property
    def side_by_side(self) -> bool:
        """Whether steps of this run are known to have been at work side by side."""
        return any(known.branch == UNSURE for known in (self._names or {}).values())

    def place(self, step_id: str, op: OpCode, branch: str, uses: dict[str, int]) -> int:
        """Return which use of its id a step is that the handler has come to.

        Args:
            uses: how often each id was used so far; is kept up.

        Raises:
            DivergenceError: it is new, its id has a step of another kind, and that fails the run.
        """
        kind = KINDS[op]
        left = self._left_of(step_id)
        self._used.append((step_id, kind))
        lost = uses.get(step_id, 0)
        is_lost = self._is_lost(left, lost)
        index = lost if is_lost and not branch else self._pick(left, kind, branch, is_lost)
        if index is None:
            index = lost
            while self._is_taken(hash_step_id(step_id, index), kind):
                index += 1
            self._note_change(left, kind)
        self._met.add(hash_step_id(step_id, index))
        uses[step_id] = max(uses.get(step_id, 0), index + 1)
        return index

    def found(self, *, ended: bool) -> list[Divergence]:
        """Return the divergences of this call.

        Args:
            ended: the handler has responded, and so ended the run.
        """
        found = [one for key, one in self._noted.items() if key not in self._met]
        return [*found, *self._left_over()] if ended else found

    def _left_over(self) -> list[Divergence]:
        """Return the finished steps to which this call has not come."""
        found: list[Divergence] = []
        for key, known in (self._names or {}).items():
            if key in self._met or key in self._noted or not known.id or is_own(key, known.id):
                continue
            if key not in self._memos or read_memo(self._memos[key]).kind not in _DONE:
                continue
            before = KINDS.get(known.op, "")
            kinds = [kind for step_id, kind in self._used if step_id == known.id and kind != before]
            # What has its id now was new in an earlier call, which has reported that.
            now, fresh = (kinds[0], False) if kinds else ("", True)
            found.append(Divergence(key, title_of(known.id, known.index), before, now, fresh))
        return found

    def _left_of(self, step_id: str) -> list[_Use]:
        if self._left is None:
            self._left = {}
            names = {} if self._names is None else {**self._names, **self._cuts}
            for key, known in names.items():
                if key == hash_step_id(known.id, known.index):
                    self._left.setdefault(known.id, []).append((known.index, key, known))
            for uses in self._left.values():
                uses.sort(reverse=True)
        found = self._left.get(step_id)
        if found is None:
            found = self._left[step_id] = self._nameless(step_id)
        return found

    def _nameless(self, step_id: str) -> list[_Use]:
        """Return the steps that have the hashes of an id, where the server does not say whose they
        are."""
        found: list[_Use] = []
        names = self._names or {}
        while (key := hash_step_id(step_id, len(found))) in self._memos or key in self._cuts:
            known = names.get(key)
            if known is not None and known.id:
                break
            found.append((len(found), key, KnownStep(known.op if known else "", step_id)))
        return found[::-1]

    @staticmethod
    def _is_lost(left: Sequence[_Use], index: int) -> bool:
        """Return whether the next use of an id was at work when a process died, beside later uses
        of the id, which had ended. It is a new step then, and does not take what is theirs."""
        return bool(left) and left[-1][2].branch != "" and index < left[-1][0]

    def _pick(self, left: list[_Use], kind: str, branch: str, is_lost: bool) -> int | None:
        """Take the first step that a use gets, and return its index.

        Args:
            is_lost: it may be one that was lost, so it gets nothing but what is its own.
        """
        second: int | None = None
        for at in range(len(left) - 1, -1, -1):
            index, key, known = left[at]
            if key in self._met:  # by the literal id that looks like this use of another
                del left[at]
                second = None if second is None else second - 1
            elif self._fits(key, known, kind):
                owner = "" if known.branch == UNSURE else known.branch
                if owner == branch:
                    del left[at]
                    return index
                if second is None and not (is_lost or (owner and branch)):
                    second = at
        return None if second is None else left.pop(second)[0]

    def _fits(self, key: str, known: KnownStep, kind: str) -> bool:
        before = KINDS.get(known.op)
        if before is not None:
            return before == kind
        return key not in self._memos or may_be(self._memos[key], kind)

    def _is_taken(self, key: str, kind: str) -> bool:
        if key in self._met:
            return True
        if self._names is None:  # `_nameless` finds none behind one that was lost
            return key in self._memos and not may_be(self._memos[key], kind)
        return key in self._memos or key in self._cuts or key in self._names

    def _note_change(self, left: list[_Use], kind: str) -> None:
        """Note that a new step has the id of a step of another kind, if it has."""
        for index, key, known in reversed(left):
            if key in self._met or key in self._noted or self._fits(key, known, kind):
                continue
            change = Divergence(key, title_of(known.id, index), KINDS.get(known.op, ""), kind)
            self._noted[key] = change
            if self.fails and not self.side_by_side:
                self.failure = failure([change])
                raise self.failure
            return


def failure(divergences: Sequence[Divergence]) -> DivergenceError:
    """Return the error of a run that fails because of divergences."""
    found = "; ".join(map(str, divergences))
    return DivergenceError(f"the handler has changed since this run began: {found}")


def next_index(step_id: str, index: int, uses: dict[str, int]) -> int:
    """Return which use of its id a repeated step is, where nothing is remembered.

    `pay:1` and the second use of `pay` have one hash (docs/protocol.md 1.4), so the one that comes
    later gets the next index.
    """
    while (text := f"{step_id}:{index}") in uses:
        index += 1
    uses[text] = 1
    return index


def title_of(step_id: str, index: int) -> str:
    """Return the id of a step, with the number of the use where it is not the first."""
    return f"{step_id}:{index}" if index else step_id
