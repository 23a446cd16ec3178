"""Marks: pseudo-steps by which the calls of a run tell each other something on other servers.

    mark      stored                                      says
    parallel  before two things are opened at once        calls of the handler run no step
    solo      with the plan of a step                     that step may begin a solo section
    own       before the first result of a solo section   the section is at work
    end       with its last results                       it is over
    failed    before a failed step becomes a plan         how often it has failed
    failure   in place of a step that has failed          its error, and leads to no call

`plain_server` has the rules that they serve.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw, Struct, field

from stephttp._wire.ids import RESERVED, hash_step_id
from stephttp._wire.json import UNREADABLE, encode_struct
from stephttp._wire.opcodes import ErrorInfo, Op, OpCode, Userland


class Mark(Struct, omit_defaults=True, rename={"kind": "stephttp:mark"}):
    """The result of a pseudo-step by which the calls of a run tell each other something."""

    kind: str
    step: str = ""
    """Hash of the step that it is about."""
    count: int = 0
    error: ErrorInfo | None = None

    @property
    def name(self) -> str:
        """Its name. What is stored first under a name stays, so the number is a part of it."""
        parts = [self.kind, *([self.step] if self.step else [])]
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
    solo: set[str] = field(default_factory=set[str])
    own: set[str] = field(default_factory=set[str])
    end: set[str] = field(default_factory=set[str])
    failed: dict[str, int] = field(default_factory=dict[str, int])
    """How often steps failed that were tried in calls of the handler."""

    @property
    def at_work(self) -> bool:
        """Whether a solo section is at work."""
        return bool(self.own - self.end)


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
        elif mark.kind == "failed":
            marks.failed[mark.step] = max(mark.count, marks.failed.get(mark.step, 0))
        elif mark.kind == "failure" and mark.error is not None:
            memos.setdefault(mark.step, Raw(encode_struct({"error": mark.error})))
        elif mark.kind in ("solo", "own", "end"):
            getattr(marks, mark.kind).add(mark.step)
    return marks
