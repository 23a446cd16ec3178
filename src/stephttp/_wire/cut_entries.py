"""The list of steps that a handler cut off, as the server keeps it: pseudo-steps.

The first entry has the id `CUT_NAME`, the next one is its second use, and so on. So a look for the
first tells whether there are any. Servers take entries for plain steps. The stephttp engine also
ends what the step waited for.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec
from msgspec import Raw, Struct

from stephttp._wire.ids import CUT_NAME, hash_step_id
from stephttp._wire.json import UNREADABLE, encode_struct
from stephttp._wire.opcodes import Op, OpCode, Timing, Userland


class Cut(Struct, frozen=True, gc=False, omit_defaults=True):
    """One entry of the list."""

    step: str
    """The step's hash."""
    id: str = ""
    """The user's id of the step."""
    index: int = 0
    """Which use of the id it is."""
    branch: str = ""
    """The branch of the handler, where it is known."""
    after_ns: int = 0
    """How long its call had taken by then, in nanoseconds."""
    known: int = 0
    """How many steps were remembered when that call began: all of them had ended before."""
    raised: bool = False
    """Nothing cancelled the step: its own body raised `CancelledError`."""
    late: bool = False
    """The step had ended, but its task was cancelled before it came back. So it ended after all
    that was cut off with it."""
    void: bool = False
    """Takes back an earlier entry: the step was begun again."""


_entry = msgspec.json.Decoder(Cut)


@lru_cache(maxsize=256)
def entry_id(number: int) -> str:
    """Return the hash of an entry, counted from 0."""
    return hash_step_id(CUT_NAME, number)


def read_entry(data: bytes | Raw) -> Cut | None:
    """Read the data of an entry; `None` if a later version has made it."""
    try:
        return _entry.decode(data)
    except UNREADABLE:
        return None


def entry_op(number: int, step_id: str, cut: Cut, timing: Timing) -> Op:
    """Return the op that adds an entry.

    Args:
        number: its number, counted from 0.
        step_id: the step's id, for people.
        cut: the entry.
        timing: of the step that was cut off.
    """
    name = f"{CUT_NAME}:{step_id}"
    return Op(
        OpCode.STEP_RUN,
        entry_id(number),
        name,
        name,
        data=Raw(encode_struct(cut)),
        timing=timing,
        userland=Userland(CUT_NAME, number or None),
    )


def step_cut_off(op: Op) -> str | None:
    """Return the hash of the step that `op` reports as cut off; `None` for any other op."""
    if op.userland is None or op.userland.id != CUT_NAME or not isinstance(op.data, Raw):
        return None
    cut = read_entry(op.data)
    return None if cut is None or cut.void or cut.late else cut.step
