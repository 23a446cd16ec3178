"""Results of earlier calls of the handler: what steps gave, how they failed, in which order they
ended, and which were cut off.

A server sends memos by hash, and the stephttp engine says what steps they are of. As long as each
use of a step tool is plainly the next of its id, as in all handlers that have not changed and have
no branches, that is all that has to be known. At the first use that is not, `Remembered` takes
over, which knows each remembered step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import Raw
from msgspec.structs import replace

from stephttp._core.remembered import Divergence, Remembered
from stephttp._core.step_kinds import KINDS
from stephttp._core.steps import CUT, EXECUTE, MEMOIZED, SUSPEND, Step, user_hash
from stephttp._wire.ids import CAPSULE, FIRST_CUT, types_id
from stephttp._wire.opcodes import OpCode
from stephttp._wire.stored_state import (
    PENDING,
    UNSURE,
    CompletionOrder,
    KnownStep,
    Memo,
    MemoKind,
    read_memo,
)

if TYPE_CHECKING:
    from stephttp._core.cuts import CutSteps

_PENDING = Raw(PENDING)
_DONE = (MemoKind.VALUE, MemoKind.ERROR)
_VERDICTS = {MemoKind.INPUT: EXECUTE, MemoKind.PENDING: SUSPEND}


class EarlierCalls:
    """What the server remembers of a run, and what this call of the handler has met of it.

    Args:
        memos: by step hash.
        names: what steps they are of, where the server says it.
    """

    __slots__ = (
        "_known_ids",
        "_names",
        "_remembered",
        "_trail",
        "attempt",
        "cuts",
        "fails",
        "failures",
        "memos",
        "order",
        "unseen",
    )

    def __init__(
        self, memos: Mapping[str, Raw], names: Mapping[str, KnownStep] | None = None
    ) -> None:
        self.memos = memos
        self.order: CompletionOrder | None = None
        """The order of the remembered steps, where the server keeps it."""
        self.attempt = 0
        """How often this call failed before, where the server counts calls and not steps."""
        self.failures: Mapping[str, int] = {}
        """How often steps that are not done failed before, by hash, where it counts steps."""
        self.fails = False
        """Whether a divergence fails the run."""
        self._names = names
        self._known_ids: set[str] | None = None
        self._remembered: Remembered | None = None
        self._trail: list[tuple[str, OpCode, str]] = []
        """The uses of steps, as long as each was plainly the next of its id."""
        self.unseen = len(memos) - (CAPSULE in memos)
        """How many remembered steps the handler has not come to."""
        self.cuts: CutSteps | None = None
        """Steps that the handler cut off, if there are any."""
        if FIRST_CUT in memos:
            self.cuts = cut_steps(memos)
            self.unseen -= len(self.cuts.entries)

    @property
    def is_named(self) -> bool:
        """Whether the server says what steps it remembers."""
        return self._names is not None

    @property
    def side_by_side(self) -> bool:
        """Whether steps of this run are known to have been at work side by side."""
        return self._look_closer().side_by_side

    @property
    def has_steps(self) -> bool:
        """Whether anything is remembered but the capsule and arguments that were edited."""
        kinds = (read_memo(raw).kind for key, raw in self.memos.items() if key != CAPSULE)
        return any(kind is not MemoKind.INPUT for kind in kinds)

    def keep_order(self) -> None:
        """Give remembered steps back in the order in which the server names them."""
        if len(self.memos) > 1:
            done = (key for key, raw in self.memos.items() if key != CAPSULE and raw != _PENDING)
            hashes = done if self.cuts is None else self.cuts.placed(done)
            self.order = CompletionOrder(hashes, types_id)

    def note_failures(self, attempt: int, failures: Mapping[str, int]) -> None:
        """Take over what the server says of failures.

        Args:
            attempt: how often this call failed before; 0 where the server counts steps.
            failures: how often steps that are not done failed before, by hash.
        """
        self.attempt = attempt
        self.failures = failures

    def failed_before(self, step_hash: str) -> int:
        """Return how often a step has failed before this call."""
        return self.failures.get(step_hash, self.attempt)

    def fail_on_divergence(self, fails: bool) -> None:
        """Note whether a divergence fails the run."""
        self.fails = fails
        if self._remembered is not None:
            self._remembered.fails = fails

    def finished(self) -> dict[str, Memo]:
        """Return the finished steps, by hash."""
        own = {CAPSULE, *map(types_id, self.memos)}
        if self.cuts is not None:
            own |= self.cuts.entries
        found = {key: read_memo(raw) for key, raw in self.memos.items() if key not in own}
        return {key: memo for key, memo in found.items() if memo.kind in _DONE}

    def replace(self, memos: Mapping[str, Raw]) -> None:
        """Replace what is remembered of some steps."""
        self.memos = {**self.memos, **memos}

    def memo_of(self, step_hash: str) -> Memo | None:
        """Return what is remembered under a (reserved) step hash."""
        entry = self.memos.get(step_hash)
        return None if entry is None else read_memo(entry)

    def recall(self, step: Step) -> Step:
        """Return a step that the handler has come to, with what is remembered of it.

        Returns:
            With the verdict MEMOIZED, CUT, or SUSPEND if the server still waits for its end. With
            EXECUTE it is new, or has arguments that were edited.
        """
        raw = self.memos.get(step.hash)
        if self.cuts is not None and self.cuts.earlier(step.hash) is not None:
            self.unseen -= raw is not None  # it ended all the same, too late
            return Step(CUT, step.step_id, step.index, step.hash, None, step.retries)
        if raw is None:
            return step
        self.unseen -= 1
        memo = read_memo(raw)
        return replace(step, verdict=_VERDICTS.get(memo.kind, MEMOIZED), memo=memo)

    def choices_of(self, step_hash: str) -> Raw | None:
        """Return which members of unions a step returned, if its result does not say."""
        memo = self.memo_of(types_id(step_hash))
        if memo is None or memo.kind is not MemoKind.VALUE:
            return None
        self.unseen -= 1
        return memo.raw

    def has_left(self, step_id: str) -> bool:
        """Return whether a step with this id has ended, and has not been met yet."""
        return self._look_closer().has_left(step_id)

    def divergences(self, *, ended: bool) -> list[Divergence]:
        """Return what does not fit the handler.

        Args:
            ended: the handler has responded, and so ended the run.
        """
        if self._remembered is None and (self.unseen <= 0 or not ended):
            return []
        return self._look_closer().found(ended=ended)

    def place(self, step_id: str, op: OpCode, branch: str, uses: dict[str, int]) -> int:
        """Return which use of its id a step is that the handler has come to.

        Args:
            step_id: the user's id.
            op: by which it is reported.
            branch: of the handler, where it is known.
            uses: how often each id was used so far.

        Raises:
            DivergenceError: it is new, its id has a step of another kind, and that fails the run.
            ValueError: the id cannot be one.
        """
        if self._remembered is None and self._is_next(step_id, op, branch, uses):
            self._trail.append((step_id, op, branch))
            return uses.get(step_id, 0)
        user_hash(step_id, 0)  # it has to be valid
        return self._look_closer().place(step_id, op, branch, uses)

    def _is_next(self, step_id: str, op: OpCode, branch: str, uses: Mapping[str, int]) -> bool:
        """Return whether a use is plainly the next of its id."""
        if branch or self._names is None or self.cuts is not None:
            return False
        index = uses.get(step_id, 0)
        known = self._names.get(user_hash(step_id, index))
        if known is not None:
            same = known.id == step_id and known.index == index and known.branch in ("", UNSURE)
            return same and KINDS.get(known.op) == KINDS[op]
        if self._known_ids is None:
            self._known_ids = {one.id for one in self._names.values()}
        return not index and step_id not in self._known_ids and ":" not in step_id

    def _look_closer(self) -> Remembered:
        """Return the remembered steps, for uses of steps to be found in."""
        if self._remembered is None:
            self._remembered = made = Remembered(self.memos, self._names)
            if self.cuts is not None:
                made.add_cuts(self.cuts.uses())
            uses: dict[str, int] = {}
            for use in self._trail:
                made.place(*use, uses)
            made.fails = self.fails
        return self._remembered


def cut_steps(memos: Mapping[str, Raw]) -> CutSteps:
    """Return the steps that were cut off, as a server remembers them."""
    from stephttp._core.cuts import CutSteps  # few runs have any

    return CutSteps(memos)


NO_CALLS = EarlierCalls({})
"""What the first call of a handler finds. All runs share it, and nothing changes it."""
