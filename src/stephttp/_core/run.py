"""The state machine of one run in one call of the handler: what becomes of each step.

A run is started by a request, or resumed by a re-entry. The handler asks it what to do at each
step, and it answers with one of four verdicts:

    MEMOIZED   the step is finished; here is what it gave
    EXECUTE    run the step's body, then call `complete`, `fail`, `cut_off` or `abandon`, exactly
               one of them
    SUSPEND    the step has to wait for the server; this call of the handler cannot pass it
    CUT        the handler cut the step off in an earlier call; it does not end (see `cuts`)

Whether the handler can progress at all is the business of `call_state`, which has the table of
states. What happens outside of steps is reported to the run by methods that say what it was:

    response_began, refuse_waits   the caller can no longer be redirected: what must wait is an
                                   error at the step, and a failed step is final
    expire                         another call is to continue, unless this one has done nothing yet
    stop                           the run has ended elsewhere: no further step begins
    configure                      the endpoint's options; its retries decide what a failure does.
                                   A run that has ended keeps those that it had
    limit                          what later calls have to pass, as the server is to know it
    track                          the run counts even if it comes to no step
    middleware_began,              between the two a failure is the middleware's, and the handler
    handler_reached                was never called

Only four modules change the attributes: `call_state`, `partial_call`, which leaves things to
another call, `unfinished_steps`, whose bodies did not return, and this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Raw
from msgspec.structs import replace

from stephttp._core.call_state import ENDED, TOO_LATE, UNWINDING, CallState
from stephttp._core.earlier_calls import NO_CALLS
from stephttp._core.endpoint_options import DEFAULT_OPTS
from stephttp._core.http_steps import gateway_opts
from stephttp._core.remembered import next_index
from stephttp._core.reports import step_op
from stephttp._core.steps import (
    EXECUTE,
    SUSPEND,
    Step,
    Verdict,
    choices_op,
    discovery_request,
    plain_id,
    user_hash,
)
from stephttp._core.unfinished_steps import UnfinishedSteps
from stephttp._core.waits import Wait
from stephttp._wire.ids import idempotency_key
from stephttp._wire.opcodes import GATEWAY_OPS, Op, OpCode, Timing, Userland
from stephttp._wire.stored_state import KnownStep
from stephttp.errors import CannotWaitError, DivergenceError

_STEP_RUN = OpCode.STEP_RUN
_init = CallState.__init__  # `super`, or to look it up each time, takes more instructions


class Run(UnfinishedSteps):
    """One run, in one call of the handler. Not thread-safe; the caller serialises.

    Args:
        run_id: ULID.
        memos: what the server remembers, by step hash; `None` for a new run.
        names: what steps that are, where the server says it.
        retries: how often a failed step is retried; 0 gives its exception to the handler.
        target: hash of the one step that the server asked for.
    """

    __slots__ = ("opts", "used", "uses")

    # Few runs come to these, so they are not set in each one.
    carried: dict[str, str] | None = None
    """Texts that middleware keeps for later calls."""
    unreached: bool = False
    """True if middleware failed before the handler was called."""
    diverged: DivergenceError | None = None
    """What was raised at a step that is of another kind than the remembered one."""

    def __init__(
        self,
        run_id: str,
        memos: Mapping[str, Raw] | None = None,
        retries: int = 0,
        *,
        names: Mapping[str, KnownStep] | None = None,
        target: str | None = None,
    ) -> None:
        _init(self, memos, names, target)
        self.run_id = run_id
        self.retries = retries
        self._step_retries = 0
        self.limits = None
        self.opts = DEFAULT_OPTS
        """The options that the endpoint was configured with."""
        self.used = resumed = self.resumed
        """True if any step was met: a run without steps is not reported."""
        self._progressed = not resumed
        self.uses: dict[str, int] = {}
        """How often each step id was used, so that a step in a loop gets an id a turn."""

    @property
    def replaying(self) -> bool:
        """True if the handler still passes over finished steps, so that nothing it does is new."""
        return self.earlier.unseen > 0 and not self._progressed

    @property
    def declared_retries(self) -> int:
        """The retries that the server has to allow, so that each step can have its own."""
        return max(self.retries, self._step_retries)

    @property
    def met_none(self) -> bool:
        """True if the server remembers steps, or failures of steps, and the handler met none."""
        if not self.resumed or self.uses:
            return False
        return self.earlier.has_steps or bool(self.earlier.failures) or self.target is not None

    def configure(self, **given: Any) -> None:
        """Set options of the endpoint, by the names that they have in `FnOpts`. A run that has
        ended keeps its own: code may outlive the handler."""
        if self.state is ENDED:
            return
        self.opts = replace(self.opts, **given)
        if self.opts.retries is not None:
            self.retries = self.opts.retries
        if self.resumed:
            self.earlier.fail_on_divergence(self.opts.on_divergence == "fail")

    def track(self) -> None:
        """Count this run even if it comes to no step."""
        self.used = True

    def carry(self, texts: dict[str, str] | None) -> None:
        """Restore what middleware kept in earlier calls."""
        self.carried = texts

    def middleware_began(self) -> None:
        """Note that middleware runs before the handler is called."""
        self.unreached = True

    def handler_reached(self) -> None:
        """Note that the handler is about to be called."""
        self.unreached = False

    def begin(self, step_id: str, retries: int | None = None, branch: str = "") -> Step:
        """Meet a step that runs in this process. On EXECUTE, complete, fail or abandon it.

        Args:
            retries: its own number of retries; `None` for the run's.
            branch: of the handler, where it is known.
        """
        step = self.resolve(step_id, retries, branch)
        if step.verdict is EXECUTE:
            if (self.over or self.expired) and self._is_left(step):
                return Step(SUSPEND, step_id, step.index, step.hash)
            self.running += 1
            self._progressed = True
        return step

    def complete(
        self,
        step: Step,
        data: bytes,
        started_ns: int,
        duration_ns: int,
        opts: dict[str, Any] | None = None,
        kept: bytes | None = None,
    ) -> Verdict:
        """Record that the body of `step` returned `data` (JSON).

        Args:
            opts: what else is reported of it, such as its input.
            kept: which members of unions it returned (JSON), where `data` leaves that open.

        Returns:
            EXECUTE: continue. SUSPEND: it was the one step that the server asked for.
        """
        self.running -= 1
        if self.state is not ENDED:
            name, timing = step.step_id, Timing(started_ns, duration_ns)
            if self.running or self._stops or self.beside:
                step = self._beside_others(step)
                timing = self._after_others(started_ns, duration_ns)
            userland = Userland(name, step.index or None, step.branch)
            if kept is not None:  # before the result, which must never be stored without it
                self.unreported.finished.append(choices_op(step, kept))
            self.unreported.finished.append(
                Op(_STEP_RUN, step.hash, name, name, opts, Raw(data), None, timing, userland)
            )
        return EXECUTE if self.target is None else self._after(step)

    def wait(self, wait: Wait, branch: str = "") -> Step:
        """Meet a step that the server carries out; see `request` for what it raises."""
        step = self.resolve(wait.step_id, None, branch, wait.op)
        if self.target is not None and step.verdict is SUSPEND:
            self.passed_waits = {**self.passed_waits, step.hash: wait}
        return self.request(step, wait) if step.verdict is EXECUTE else step

    def request(self, step: Step, wait: Wait) -> Step:
        """Ask the server to carry out a step that was met and is not remembered.

        Raises:
            CannotWaitError: it would have to wait, but cannot.
        """
        if self.over and self.state is not ENDED:
            self._wait()
            return replace(step, verdict=SUSPEND)
        if self.state is ENDED:
            self.cannot_wait = f"the response is complete, {TOO_LATE}"
        if self.cannot_wait is not None:
            raise CannotWaitError(f"step {step.step_id!r} has to wait, but {self.cannot_wait}")
        if wait.late and not self.resumed:
            self.unreported.requests.append(discovery_request(step.hash))
        else:
            opts = wait.opts
            if wait.op in GATEWAY_OPS:
                key = idempotency_key(self.run_id, step.hash)
                tells = self.resumed or self.declared_retries > 0
                opts = gateway_opts(wait, key, self.opts, self.retries, tells_retries=tells)
            self._record(step_op(self._beside_others(step), wait.op, name=wait.name, opts=opts))
        self._wait()
        return replace(step, verdict=SUSPEND)

    def resolve(
        self,
        step_id: str,
        retries: int | None = None,
        branch: str = "",
        op: OpCode = _STEP_RUN,
    ) -> Step:
        """Meet a step, and see whether it is finished. On EXECUTE, `request` it.

        Args:
            retries: its own number of retries; `None` for the run's.
            branch: of the handler, where it is known.
            op: by which it is reported.

        Raises:
            DivergenceError: it is new, its id has a step of another kind, and that fails the run.
            TypeError, ValueError: the id is not a text, or not valid Unicode.
        """
        if type(step_id) is not str:
            step_id = plain_id(step_id)
        uses = self.uses
        if self.resumed:
            index = self._place(step_id, op, branch)
        elif index := uses.get(step_id, 0):
            index = next_index(step_id, index, uses)
        step_hash = user_hash(step_id, index)
        uses[step_id] = index + 1
        self.used = True
        if self.state is UNWINDING:
            return Step(SUSPEND, step_id, index, step_hash, None, retries)
        if self.cuts is not None:
            self.decide_cuts()
        step = Step(EXECUTE, step_id, index, step_hash, None, retries, branch)
        if self.earlier is not NO_CALLS:
            step = self.earlier.recall(step)
            if step.verdict is SUSPEND:
                self.pending = True
                self._wait()
            if step.verdict is not EXECUTE:
                return step
        if self.target is None or self.target == step_hash:
            return step
        self._pass_over(step)
        return replace(step, verdict=SUSPEND)

    def meet_race(self, step_id: str) -> Step:
        """Meet a race of branches: a step that is open while they are met. On EXECUTE, `win` it."""
        target, self.target = self.target, None  # a race keeps no server from the step it wants
        try:
            return self.resolve(step_id)
        finally:
            self.target = target

    def win(self, step: Step, data: bytes, started_ns: int, duration_ns: int) -> Verdict:
        """Record who has won a race (JSON).

        Returns:
            EXECUTE: continue. SUSPEND: the server asked for one step only.
        """
        if self.target not in (None, step.hash) and self.state is not ENDED:
            self._pass_over(step)
            return SUSPEND
        if self.state is not ENDED:
            self.decide_cuts()
            timing = Timing(started_ns, duration_ns)
            won = step_op(step, _STEP_RUN, timing=timing)
            self.unreported.finished.append(replace(won, data=Raw(data)))
        return EXECUTE if self.target is None else self._after(step)

    def _place(self, step_id: str, op: OpCode, branch: str) -> int:
        """Return which use of its id a step of a run is of which something is remembered."""
        try:
            return self.earlier.place(step_id, op, branch, self.uses)
        except DivergenceError as error:
            self.over = True  # whatever the handler makes of it
            self.diverged = error
            raise
