"""A race of branches in a run: a step of its own remembers which of them has won."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from stephttp._core.steps import CUT, SUSPEND, Step
from stephttp._run import cut_steps
from stephttp._run.branches import suspension
from stephttp._wire.json import UNREADABLE, encode_struct
from stephttp.errors import Suspended

if TYPE_CHECKING:
    from stephttp._run.scope import RunScope

logger = logging.getLogger("stephttp")


class Won(Struct, frozen=True):
    """The result of a race: the number of the branch, from 0; `None`: all of them failed."""

    winner: int | None


_won = msgspec.json.Decoder(Won)


class Race:
    """One race in one call of the handler.

    Args:
        scope: of its run.
        step: its step, as the handler has met it.
    """

    __slots__ = ("_scope", "_started_ns", "_step", "known", "suspended", "winner")

    @classmethod
    def begin(cls, scope: RunScope, step_id: str) -> Race:
        """Come to a race."""
        scope.come_to(step_id)
        with scope.lock:
            step = scope.run.meet_race(step_id)
        return cls(scope, step)

    def __init__(self, scope: RunScope, step: Step) -> None:
        self._scope = scope
        self._step = step
        self._started_ns = scope.now_ns()
        self.suspended = step.verdict is SUSPEND
        """Whether the handler cannot pass it now."""
        self.known = False
        """Whether an earlier call has decided it."""
        self.winner: int | None = None
        """Who has won it then; `None`: all branches failed."""
        if step.verdict is CUT:
            self._step = cut_steps.again(scope, step)

    def read(self, size: int) -> None:
        """Look whether an earlier call has decided the race.

        Args:
            size: how many branches there are.
        """
        memo = self._step.memo
        if memo is None:
            return
        try:
            winner = _won.decode(memo.raw).winner
        except UNREADABLE:
            winner = size
        self.known = winner is None or 0 <= winner < size
        if self.known:
            self.winner = winner
        else:
            logger.warning(
                "stephttp: run %s: what is remembered of the race %r fits no branch, so its code "
                "must have changed; it is run again", self._scope.run.run_id, self._step.step_id,
            )  # fmt: skip

    def decide(self, winner: int | None) -> None:
        """Note which branch has won; `None`: all of them failed."""
        scope = self._scope
        if self.known:
            if scope.run.earlier.order is not None:
                scope.run.earlier.order.meet(self._step.hash)
            return
        duration = max(0, scope.now_ns() - self._started_ns)
        with scope.lock:
            verdict = scope.run.win(
                self._step, encode_struct(Won(winner)), self._started_ns, duration
            )
        self.suspended = verdict is SUSPEND
        scope.recorded()

    def suspension(self) -> Suspended:
        """Return what a blocking tool raises where the handler cannot pass the race."""
        return suspension(self._scope, f"step {self._step.step_id!r}")


def nobody_won(step_id: str, errors: Sequence[BaseException]) -> BaseException:
    """Return what the handler gets if all branches have failed."""
    return BaseExceptionGroup(f"step {step_id!r}: no branch succeeded", errors)
