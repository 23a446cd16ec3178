"""How a run continues with a server that is not ours: what each call may do, and how it answers.

Such a server calls the application for everything that ends, for several things at the same time,
and in several processes. It does not say what it waits for already, and takes an op twice for the
same wish. The rules (P1 and so on in docs/protocol.md 13) keep a step from running twice and a
run from waiting forever. A run in which two things were open at once is *marked*, by a pseudo-step
that is stored before they are opened. Who may run the bodies of steps follows from that:

    asked for    marked   remembered of it           the call
    the handler  no                                  INLINE: runs steps one after the other
    the handler  yes      a solo section is at work  NOTHING
    the handler  yes                                 DISCOVER: runs none, and reports all it finds
    a step                it has ended, and a solo   INLINE: the section's own repetition
                          section of it is at work
    a step                it has ended               AGAIN: asks for a call of the handler
    a step                it may begin a section     INLINE, after it has noted that
    a step                                           TARGET: runs that one

All that is open is reported by each call that discovers, since a step that was planned, and a
wait, are the same job under the same name. Only one step is ever planned for a section: a discovery
that finds nothing else open, in a handler that stands still, notes `solo`. The call of that step
notes `own` before its result, and then `end` before it answers anything that leads to other calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Raw, Struct
from msgspec.structs import replace

from stephttp._core.plain_marks import MARKER, Mark, Marks, take_marks
from stephttp._core.reports import step_op
from stephttp._core.steps import Step, discovery_request
from stephttp._wire.ids import RESERVED, hash_step_id
from stephttp._wire.opcodes import GATEWAY_OPS, SYNC_OPS, ErrorInfo, Op, OpCode

if TYPE_CHECKING:
    from stephttp._core.run import Run

NO_STEP = "plan"
"""The target of a run that is to execute no step: the hash of none."""
_PLANNED = GATEWAY_OPS | {OpCode.WAIT_FOR_SIGNAL}
"""Ops that a server carries out, or takes a name for, each time that they are reported."""


class Mode(Enum):
    """What a call does; see the table on top."""

    INLINE = auto()
    DISCOVER = auto()
    TARGET = auto()
    NOTHING = auto()
    AGAIN = auto()


class PlainCall(Struct):
    """One call by a server that is not ours.

    Args:
        mode: what it does.
        target: hash of the step that it asks for; `None` for the handler.
        marks: of its run.
        races: whether each op has to say that it leads to a call of its own, because the run was
            begun at version 2 of the protocol.
        section: the step whose solo section it is.
    """

    mode: Mode
    target: str | None
    marks: Marks
    races: bool = False
    section: str = ""

    @property
    def run_target(self) -> str | None:
        """The one step that the run is to execute; see `Run`."""
        return {Mode.TARGET: self.target, Mode.DISCOVER: NO_STEP}.get(self.mode)

    @property
    def first_op(self) -> Op | None:
        """What is stored before the result of the first step."""
        begins = self.section and self.section not in self.marks.own
        return Mark("own", self.section).op() if begins else None

    def failed_before(self, generation: int, failing: Sequence[str], *, unsure: bool) -> int:
        """Return how many calls for the same purpose failed before this one.

        A server sends only the generation: 1 for the first call of a queue item. Where a step
        failed before the run went async, the checkpoint was the first attempt (docs/protocol.md
        6.4). Whether a call without a target still belongs to that item is certain only for a
        first generation that finds those steps done; elsewhere the higher number is taken: a
        failure that is delivered one attempt early is better than a run that never ends.

        Args:
            generation: from 1.
            failing: hashes of the steps that had failed when the run went async.
            unsure: whether any of them is not done.
        """
        if self.target is not None:
            kept = self.marks.failed.get(self.target, int(self.target in failing))
            return generation - 1 + kept
        counts = failing and not self.marks.parallel and (unsure or generation > 1)
        return generation if counts else generation - 1


def call_of(memos: dict[str, Raw], target: str | None, *, races: bool = False) -> PlainCall:
    """Return what a call is to do, and take the marks out of `memos`; see the table on top."""
    marks = take_marks(memos)
    call = PlainCall(Mode.INLINE, target, marks, races)
    if target is None:
        if marks.parallel:
            call.mode = Mode.NOTHING if marks.at_work else Mode.DISCOVER
    elif target in memos:
        if target in marks.own - marks.end:
            call.section = target
        else:
            call.mode = Mode.AGAIN
    elif target in marks.solo:
        call.section = target
    else:
        call.mode = Mode.TARGET
    return call


class Report(NamedTuple):
    """What a call has to say."""

    stored: list[Op]
    """Is sent apart, in this order, before the answer."""
    answer: list[Op]


def report(call: PlainCall, run: Run, unique: str, *, parked: bool) -> Report | None:
    """Return what a call says whose handler cannot progress; `None`: the step that was asked for
    is not there.

    Args:
        unique: makes the ids of ops that must be new in the run.
        parked: whether all branches of the handler are known to stand still at steps.
    """
    finished, requests = run.unreported.take_by_kind()
    if call.mode is Mode.DISCOVER:
        found = _discovered(run, requests)
        if parked and not finished and len(found) == 1 and _may_be_alone(run, found[0]):
            finished = [Mark("solo", found[0].id).op()]
        made = Report(finished, found)
    elif call.mode is Mode.TARGET:
        assert call.target is not None
        targeted = _targeted(call.target, run, finished, requests)
        if targeted is None:
            return None
        made = targeted
    else:
        made = _inline(call, run, finished, requests)
    stored, answer = made
    if not answer:
        answer = [discovery_request(unique)]
    return Report(storable(stored), [_racing(op) for op in answer] if call.races else answer)


def _discovered(run: Run, requests: list[Op]) -> list[Op]:
    """Return all that a discovery has found open: P3."""
    found = requests
    for step in run.passed:
        wait = run.passed_waits.get(step.hash)
        if wait is None or wait.op in _PLANNED:
            found.append(_planned(step))
        else:
            found.append(step_op(step, wait.op, name=wait.name, opts=wait.opts))
    return list({op.id: op for op in found}.values())


def _may_be_alone(run: Run, op: Op) -> bool:
    """Whether an op is the plan of a step that runs in this process."""
    return op.op is OpCode.STEP_PLANNED and op.id not in run.passed_waits


def _targeted(target: str, run: Run, finished: list[Op], requests: list[Op]) -> Report | None:
    """Return what the call of one step says: P5, P10. Other waits are left to a discovery."""
    own = [op for op in (*finished, *requests) if op.id == target]
    stored = [op for op in finished if op.op is not OpCode.STEP_FAILED or op.id != target]
    if own:
        return Report(stored, own[-1:])
    # Cut off, or given up, or replaced by another one that the handler has passed. It was planned
    # only once, so nothing else may lead to the next call.
    if stored or run.earlier.cuts is not None or run.cut_short:
        return Report(stored, [])
    return None


def _inline(call: PlainCall, run: Run, finished: list[Op], requests: list[Op]) -> Report:
    """Return what a call says that has run steps: P2, P9, and section 4."""
    stored, marked = finished, call.marks.parallel
    only_failed = bool(requests) and all(op.op is OpCode.STEP_ERROR for op in requests)
    if len(requests) > 1 and not only_failed:
        if not marked:
            stored = [*stored, MARKER.op()]
            marked = True
        for op in requests:
            if op.op is OpCode.STEP_ERROR:  # its further attempts are calls of that step alone
                count = run.earlier.failed_before(op.id) + 1
                stored = [*stored, Mark("failed", op.id, count).op()]
    if marked:
        requests = [_as_plan(op) if op.op in _PLANNED else op for op in requests]
    if call.section and not only_failed:
        stored = [*stored, Mark("end", call.section).op()]
    return Report(stored, requests)


class Opening(NamedTuple):
    """The ops of a run that leaves its first request."""

    first: list[Op]
    """Follow the capsule in the first checkpoint."""
    then: list[Op]
    """Are sent when that is stored."""


def opening(ops: Sequence[Op]) -> Opening:
    """Return in which order a run leaves its first request: P2, P2a, R3, S1, S2.

    Waits for events come last and apart, because a server applies them before the steps of the same
    checkpoint. Of several failed steps only one is sent: it leads to a call that finds them all.
    """
    done = [op for op in ops if op.op in SYNC_OPS]
    requests = [op for op in ops if op.op not in SYNC_OPS]
    if len(requests) > 1:
        done.append(MARKER.op())
    failed = [op for op in requests if op.op is OpCode.STEP_ERROR]
    events = [op for op in requests if op.op is OpCode.WAIT_FOR_EVENT]
    others = [_first(op) for op in requests if op not in failed and op not in events]
    return Opening([*storable(done), *failed[:1], *others], events)


def _first(op: Op) -> Op:
    """Return an op as a first checkpoint may have it."""
    if op.op in GATEWAY_OPS:
        return _as_plan(op)
    if op.op is OpCode.WAIT_FOR_SIGNAL and (op.opts or {}).get("conflict") != "replace":
        return discovery_request(op.id)
    return op


def storable(ops: Sequence[Op]) -> list[Op]:
    """Return finished steps so that storing them leads to no call, as a failed one would: it is
    kept by a mark. Nothing is changed where the run ends with them."""
    if any(op.op is OpCode.RUN_COMPLETE for op in ops):
        return list(ops)
    return [_kept_failure(op) if op.op is OpCode.STEP_FAILED else op for op in ops]


def nothing(unique: str) -> Op:
    """Return the op that says nothing: an answer without ops makes a server call again (P11).

    Args:
        unique: makes its id new.
    """
    return Op(OpCode.NONE, hash_step_id(f"{RESERVED}none:{unique}"))


def _kept_failure(op: Op) -> Op:
    return Mark("failure", op.id, error=op.error or ErrorInfo()).op()


def _planned(step: Step) -> Op:
    return step_op(step, OpCode.STEP_PLANNED)


def _as_plan(op: Op) -> Op:
    name = op.display_name
    return Op(OpCode.STEP_PLANNED, op.id, name, name, userland=op.userland)


def _racing(op: Op) -> Op:
    opts: Mapping[str, object] = op.opts or {}
    return replace(op, opts={**opts, "parallelMode": "race"})
