"""The rules for runs on an Inngest server (docs/protocol.md 13): what each of its parallel calls
may do, planned steps, and how it answers.

Such a server calls the application for everything that ends, for several things at the same time,
and in several processes. It does not say what it waits for already, and takes an op twice for the
same wish. The rules (P1 and so on in docs/protocol.md 13) keep a step from running twice and a
run from waiting forever. A run in which two things were open at once is *marked*, by a pseudo-step
that is stored before they are opened. Who may run the bodies of steps follows from that:

    asked for    marked   remembered of it           the call
    the handler  no                                  INLINE: runs steps one after the other
    the handler  yes      a solo section is at work  NOTHING
    the handler  yes      one may begin              PLAN: plans its first step again
    the handler  yes                                 DISCOVER: runs none, and reports all it finds
    a step                a solo section of it is    INLINE: the section's own repetition
                          at work
    a step                it has ended, or was       AGAIN: asks for a call of the handler
                          missed by an earlier call
    a step                it may begin a section,    INLINE, after it has noted that
                          and no other plan is open
    a step                another section is there   PASS: runs none, and counts as missed
    a step                                           TARGET: runs that one

All that is open is reported by each call that discovers, since a step that was planned, and a
wait, are the same job under the same name. Only one step is ever planned for a section: a discovery
that finds nothing else open, in a handler that stands still, notes `solo`. The call of that step
notes `own` before its result, and then `end` before it answers anything that leads to other calls.

Processes of two releases may take the calls of a run. A planned step that is not in the handler of
the process which is asked for it, is *missed*: that plan is used up, and the next discovery that
finds the step plans it under a new id. Steps are noted as planned before they are, so a section
sees whether a call may be at work on what only another release has found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Raw, Struct
from msgspec.structs import replace

from stephttp._core.plain_marks import MARKER, Mark, Marks, take_marks
from stephttp._core.plain_opening import storable
from stephttp._core.reports import step_op
from stephttp._core.steps import discovery_request, user_hash
from stephttp._wire.ids import RESERVED, hash_step_id
from stephttp._wire.opcodes import GATEWAY_OPS, Op, OpCode, Userland

if TYPE_CHECKING:
    from stephttp._core.run import Run

NO_STEP = "plan"
"""The target of a run that is to execute no step: the hash of none."""
_PLANNED = GATEWAY_OPS | {OpCode.WAIT_FOR_SIGNAL}
"""Ops that a server carries out, or takes a name for, each time that they are reported."""


_MOST_MISSED = 20
"""How often a step is planned whose calls do not find it."""
_LONGEST_PAUSE = 300
"""Seconds between such plans, at most."""


class Mode(Enum):
    """What a call does; see the table on top."""

    INLINE = auto()
    DISCOVER = auto()
    TARGET = auto()
    PASS = auto()
    PLAN = auto()
    NOTHING = auto()
    AGAIN = auto()


class PlainCall(Struct):
    """One call by a server that is not ours.

    Args:
        mode: what it does.
        step: hash of the step that it asks for; `None` for the handler.
        marks: of its run.
        races: whether each op has to say that it leads to a call of its own, because the run was
            begun at version 2 of the protocol.
        section: the solo section in which it is, or which is to be planned again.
    """

    mode: Mode
    step: str | None
    marks: Marks
    races: bool = False
    section: Mark | None = None

    @property
    def run_target(self) -> str | None:
        """The one step that the run is to execute; see `Run`."""
        modes = {Mode.TARGET: self.step, Mode.DISCOVER: NO_STEP, Mode.PASS: NO_STEP}
        return modes.get(self.mode)

    @property
    def first_op(self) -> Op | None:
        """What is stored before the result of the first step."""
        section = self.section
        if section is None or section.step in self.marks.own:
            return None
        return Mark("own", section.step).op()

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
        if self.step is not None:
            kept = self.marks.failed.get(self.step, int(self.step in failing))
            return generation - 1 + kept
        counts = failing and not self.marks.parallel and (unsure or generation > 1)
        return generation if counts else generation - 1


def call_of(memos: dict[str, Raw], target: str | None, *, races: bool = False) -> PlainCall:
    """Return what a call is to do, and take the marks out of `memos`; see the table on top.

    Args:
        target: the id of the plan that it is of; `None` for the handler.
    """
    marks = take_marks(memos)
    section = marks.section(memos)
    at_work = section is not None and section.step in marks.own
    if target is None:
        call = PlainCall(Mode.INLINE, None, marks, races)
        if marks.parallel and section is not None:
            call.mode, call.section = Mode.NOTHING if at_work else Mode.PLAN, section
        elif marks.parallel:
            call.mode = Mode.DISCOVER
        return call
    call = PlainCall(Mode.TARGET, marks.step_of(target), marks, races)
    is_own = section is not None and section.step == target
    if is_own and (at_work or marks.is_alone(target, memos)):
        call.mode, call.section = Mode.INLINE, section
    elif not marks.is_open(target, memos):
        call.mode = Mode.AGAIN
    elif section is not None and not is_own:
        call.mode = Mode.PASS
    return call


class Report(NamedTuple):
    """What a call has to say."""

    stored: list[Op]
    """Is sent apart, in this order, before the answer."""
    answer: list[Op]


def report(call: PlainCall, run: Run, unique: str, *, parked: bool) -> Report | None:
    """Return what a call says whose handler cannot progress; `None`: the step that was asked for
    was missed too often.

    Args:
        unique: makes the ids of ops that must be new in the run.
        parked: whether all branches of the handler are known to stand still at steps.
    """
    finished, requests = run.unreported.take_by_kind()
    if call.mode is Mode.DISCOVER:
        made: Report | None = _discovered(call.marks, run, finished, requests, parked=parked)
    elif call.mode in (Mode.TARGET, Mode.PASS):
        made = _targeted(call, run, finished, requests)
    else:
        made = _inline(call, run, finished, requests)
    if made is None:
        return None
    stored, answer = made
    if not answer:
        answer = [discovery_request(unique)]
    return Report(storable(stored), _raced(call, answer))


def answer_at_once(call: PlainCall, unique: str) -> list[Op] | None:
    """Return what a call answers that does not call the handler; `None`: it does.

    Args:
        unique: makes the ids of ops that must be new in the run.
    """
    section = call.section
    if call.mode is Mode.NOTHING:
        return [nothing(unique)]
    if call.mode is Mode.AGAIN:
        return _raced(call, [discovery_request(unique)])
    if call.mode is Mode.PLAN and section is not None:  # the answer that did may be lost
        name = section.title
        op = Op(OpCode.STEP_PLANNED, section.step, name, name, userland=Userland(name))
        return _raced(call, [op])
    return None


def _discovered(
    marks: Marks, run: Run, finished: list[Op], requests: list[Op], *, parked: bool
) -> Report:
    """Return all that a discovery has found open: P3."""
    found = requests
    for step in run.passed:
        wait = run.passed_waits.get(step.hash)
        if wait is None or wait.op in _PLANNED:
            found.append(marks.as_plan(step_op(step, OpCode.STEP_PLANNED)))
        else:
            found.append(step_op(step, wait.op, name=wait.name, opts=wait.opts))
    found = list({op.id: op for op in found}.values())
    stored = [*finished, *marks.notes_of(found)]
    if parked and not finished and len(found) == 1 and not run.passed_waits:
        (op,) = found
        if op.op is OpCode.STEP_PLANNED and marks.is_alone(op.id, run.earlier.memos):
            stored.append(marks.next_section(op.id, op.display_name or "").op())
    return Report(stored, found)


def _targeted(call: PlainCall, run: Run, finished: list[Op], requests: list[Op]) -> Report | None:
    """Return what the call of one step says: P5, P10. Other waits are left to a discovery."""
    own = [op for op in (*finished, *requests) if op.id == call.step]
    stored = [op for op in finished if op.op is not OpCode.STEP_FAILED or op.id != call.step]
    if own:
        return Report(stored, own[-1:])
    # Cut off, or given up, or not in this release of the handler.
    return _missed(call, run, stored)


def _missed(call: PlainCall, run: Run, stored: list[Op]) -> Report | None:
    """Return what the call of a step says that was not there. It leads to a call of the handler,
    after longer and longer pauses, since two releases might never agree."""
    step = call.step
    assert step is not None
    count, failed = call.marks.missed.get(step, 0) + 1, run.earlier.failed_before(step)
    if count > _MOST_MISSED:
        return None
    notes = [Mark("missed", step, count).op()]
    if failed:
        notes.append(Mark("failed", step, failed).op())
    if count == 1:
        return Report([*stored, *notes], [])
    name, text = f"{RESERVED}pause:{step}:{count}", f"{min(2**count // 4, _LONGEST_PAUSE)}s"
    return Report([*stored, *notes], [Op(
        OpCode.SLEEP, hash_step_id(name), text, name, {"duration": text}, userland=Userland(name)
    )])  # fmt: skip


def _inline(call: PlainCall, run: Run, finished: list[Op], requests: list[Op]) -> Report | None:
    """Return what a call says that has run steps: P2, P9, and section 4."""
    stored, marked, marks = finished, call.marks.parallel, call.marks
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
        requests = [marks.as_plan(op) if op.op in _PLANNED else op for op in requests]
        stored = [*stored, *marks.notes_of(requests)]
    section = call.section
    if section is None or only_failed:
        return Report(stored, requests)
    uses = range(run.uses.get(section.title, 0))
    if call.step not in {user_hash(section.title, number) for number in uses}:
        missed = _missed(call, run, stored)
        if missed is None:
            return None
        stored, requests = missed.stored, requests or missed.answer
    return Report([*stored, Mark("end", section.step).op()], requests)


def nothing(unique: str) -> Op:
    """Return the op that says nothing: an answer without ops makes a server call again (P11).

    Args:
        unique: makes its id new.
    """
    return Op(OpCode.NONE, hash_step_id(f"{RESERVED}none:{unique}"))


def _raced(call: PlainCall, ops: list[Op]) -> list[Op]:
    return [_racing(op) for op in ops] if call.races else ops


def _racing(op: Op) -> Op:
    opts: Mapping[str, object] = op.opts or {}
    return replace(op, opts={**opts, "parallelMode": "race"})
