"""Marks on an Inngest server: pseudo-steps by which parallel calls of a run leave notes to each
other, as of a step that is planned again under another id.

    mark      stored                                      says
    parallel  before two things are opened at once        calls of the handler run no step
    planned   before a step is planned                    a call may be at work on it
    solo      with the plan of a step, by its number      that plan may begin a solo section
    own       before the first result of a solo section   the section is at work
    end       with its last results                       it is over
    missed    by the call of a step that is not there     that plan of it is used up
    failed    before a failed step becomes a plan         how often it has failed
    failure   in place of a step that has failed          its error, and leads to no call

The first mark under a name stays. So of two processes that begin section number n, one does. A
server makes the job of a plan once, so a step that was missed is planned under another id each
time. `plain_server` has the rules that all of these serve.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec
from msgspec import Raw, Struct, field

from stephttp._wire.ids import RESERVED, hash_step_id
from stephttp._wire.json import UNREADABLE, encode_struct
from stephttp._wire.opcodes import ErrorInfo, Op, OpCode, Userland


class Mark(Struct, omit_defaults=True, rename={"kind": "stephttp:mark"}):
    """The result of a pseudo-step by which the calls of a run tell each other something."""

    kind: str
    step: str = ""
    """Hash of the step that it is about, or the id of its plan."""
    count: int = 0
    error: ErrorInfo | None = None
    title: str = ""
    """The user's id of that step."""

    @property
    def name(self) -> str:
        """Its name. The first mark under a name stays, so the number is a part of it."""
        step = "" if self.kind == "solo" else self.step
        parts = [self.kind, *([step] if step else [])]
        return RESERVED + ":".join([*parts, *([str(self.count)] if self.count else [])])

    def op(self) -> Op:
        """Return the op that stores it."""
        return Op(
            OpCode.STEP_RUN,
            hash_step_id(self.name),
            self.name,
            self.name,
            data=Raw(encode_struct(self)),
            userland=Userland(self.name),
        )


class _Stored(Struct):
    data: Mark


_stored = msgspec.json.Decoder(_Stored)
MARKER = Mark("parallel")


class Marks(Struct):
    """The marks of a run."""

    parallel: bool = False
    planned: set[str] = field(default_factory=set[str])
    solo: dict[int, Mark] = field(default_factory=dict[int, Mark])
    own: set[str] = field(default_factory=set[str])
    end: set[str] = field(default_factory=set[str])
    missed: dict[str, int] = field(default_factory=dict[str, int])
    """How many plans of steps are used up."""
    failed: dict[str, int] = field(default_factory=dict[str, int])
    """How often steps failed that were tried in other calls."""

    def plan_of(self, step: str) -> str:
        """Return the id under which a step is planned."""
        return _plan_id(step, self.missed.get(step, 0))

    def step_of(self, plan: str) -> str:
        """Return the step that was planned under an id."""
        for step, missed in self.missed.items():
            if any(plan == _plan_id(step, number) for number in range(1, missed + 1)):
                return step
        return plan

    def as_plan(self, op: Op) -> Op:
        """Return the op that plans the step of an op."""
        name, plan = op.display_name, self.plan_of(op.id)
        return Op(OpCode.STEP_PLANNED, plan, name, name, userland=op.userland)

    def notes_of(self, ops: Sequence[Op]) -> list[Op]:
        """Return what notes the plans among `ops` that are new."""
        plans = [op.id for op in ops if op.op is OpCode.STEP_PLANNED]
        return [Mark("planned", plan).op() for plan in plans if plan not in self.planned]

    def is_open(self, plan: str, memos: Collection[str]) -> bool:
        """Whether a plan leads to the end of its step.

        Args:
            memos: the steps that have ended.
        """
        step = self.step_of(plan)
        return step not in memos and plan == self.plan_of(step)

    def is_alone(self, plan: str, memos: Collection[str]) -> bool:
        """Whether no other plan is open, of this or another release of the handler."""
        return not any(one != plan and self.is_open(one, memos) for one in self.planned)

    def section(self, memos: Collection[str]) -> Mark | None:
        """Return the solo section that may begin, or is at work."""
        last = self.solo[max(self.solo)] if self.solo else None
        if last is None or last.step in self.end:
            return None
        return last if last.step in self.own or self.is_open(last.step, memos) else None

    def next_section(self, plan: str, title: str) -> Mark:
        """Return what notes the next solo section.

        Args:
            plan: of its first step.
            title: the user's id of that.
        """
        return Mark("solo", plan, max(self.solo, default=0) + 1, title=title)


def _plan_id(step: str, missed: int) -> str:
    return hash_step_id(f"{RESERVED}plan:{step}:{missed}") if missed else step


def take_marks(memos: dict[str, Raw]) -> Marks:
    """Take the marks out of what a server remembers. Failures that were marked become memos."""
    marks = Marks()
    for key, raw in list(memos.items()):
        if b'"stephttp:mark"' not in bytes(raw):
            continue
        try:
            mark = _stored.decode(raw).data
        except UNREADABLE:
            continue
        if hash_step_id(mark.name) != key:  # the result of a user's step
            continue
        del memos[key]
        if mark.kind == "parallel":
            marks.parallel = True
        elif mark.kind in ("failed", "missed"):
            counts: dict[str, int] = getattr(marks, mark.kind)
            counts[mark.step] = max(mark.count, counts.get(mark.step, 0))
        elif mark.kind == "failure" and mark.error is not None:
            memos.setdefault(mark.step, Raw(encode_struct({"error": mark.error})))
        elif mark.kind == "solo":
            marks.solo[mark.count] = mark
        elif mark.kind in ("planned", "own", "end"):
            getattr(marks, mark.kind).add(mark.step)
    return marks
