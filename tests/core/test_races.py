"""Random programs of races, timeouts and cancellations: no outcome turns, nothing runs twice.

What `test_programs` is for branches that all end, this is for branches that do not. Which task does
something next, which timeout rings, what time passes, when the finished steps are reported, and
when a process dies: all of that is made up, and so is every order of it.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from stephttp._core.run import Run
from stephttp._core.steps import Step
from stephttp._wire.cut_entries import step_cut_off
from stephttp._wire.ids import CUT_NAME
from stephttp._wire.opcodes import Op, OpCode
from stephttp._wire.stored_state import CompletionOrder, KnownStep
from tests.core.races_model import WAYS, Call, Do, Limit, Loop, Nap, Node, Program, Side
from tests.examples import examples

RETRIES = 2


def programs(
    depth: int, ids: str, *, shared: bool, limited: bool = False
) -> st.SearchStrategy[Program]:
    """Programs over `ids`. Branches have ids of their own, unless they are `shared`."""
    failures = st.sampled_from([0, 0, 0, 1, RETRIES + 1])
    leaf: st.SearchStrategy[Node] = st.builds(Do, st.sampled_from(ids), failures)
    if not limited:
        leaf = st.one_of(leaf, st.builds(Nap, st.sampled_from(ids)))
    if depth:
        inner: list[st.SearchStrategy[Node]] = [
            st.builds(
                Loop, st.integers(0, 2), programs(depth - 1, ids, shared=shared, limited=limited)
            )
        ]
        half = len(ids) // 2
        if shared or half:
            parts = (ids, ids) if shared else (ids[:half], ids[half:])
            pair = st.tuples(
                *(programs(depth - 1, part, shared=shared, limited=limited) for part in parts)
            )
            side = st.builds(Side, st.sampled_from(WAYS), pair)
            inner += [side, side]
        if not limited:
            body = programs(depth - 1, ids, shared=shared, limited=True)
            inner.append(st.builds(Limit, body))
        leaf = st.one_of(leaf, *inner)
    return st.lists(leaf, min_size=1, max_size=3).map(tuple)


class Dead(Exception):
    """The process that was called has died."""


class World:
    """A server with one run, whose handler is called until it comes to its end.

    Args:
        choices: says, one after the other, what happens next of all that may; then always the
            first of it.
    """

    def __init__(self, program: Program, choices: Sequence[int], *, shared: bool) -> None:
        self.program = program
        self.shared = shared
        self.choices = itertools.chain(choices, itertools.repeat(0))
        self.now = 1000
        self.latest = 1000
        self.arrivals = itertools.count()
        self.memos: dict[str, tuple[int, int, Raw]] = {}
        self.names: dict[str, KnownStep] = {}
        self.open: dict[str, Op] = {}
        self.failures: Counter[str] = Counter()
        self.acknowledged: set[str] = set()
        self.known: list[str] = []
        """What the last call has seen that came to its end."""
        self.began: list[str] = []
        self.last: Call | None = None

    def choose(self, most: int) -> int:
        return next(self.choices) % most

    # --- in the application ---

    def begins(self, label: str) -> None:
        assert label not in self.acknowledged, f"{label} runs again"
        self.began.append(label)

    def fails(self, node: Do, step: Step) -> bool:
        return self.failures[step.hash] < node.failures

    # --- in the server ---

    def receive(self, ops: Sequence[Op]) -> None:
        for op in ops:
            if op.id in self.memos:
                continue  # the first report of a step wins
            assert op.userland is not None
            timing, land = op.timing, op.userland
            self.names[op.id] = KnownStep(op.op, land.id, land.index or 0, land.branch)
            if op.op is OpCode.SLEEP:
                self.open[op.id] = op
            elif op.op is OpCode.STEP_ERROR:
                self.failures[op.id] += 1
                self.open[op.id] = op
            else:
                assert timing is not None
                if op.op is OpCode.STEP_RUN:
                    assert isinstance(op.data, Raw)
                    value = b'{"data":' + bytes(op.data) + b"}"
                    if land.id != CUT_NAME and not land.id.startswith("race"):
                        self.acknowledged.add(msgspec.json.decode(op.data))
                else:
                    assert op.op is OpCode.STEP_FAILED
                    assert op.error is not None
                    value = b'{"error":' + msgspec.json.encode(op.error) + b"}"
                    self.acknowledged.add(op.error.message)
                self.open.pop(op.id, None)
                ended = int(timing.a + timing.b)
                self.latest = max(self.latest, ended)  # what ends later has a later time
                self.memos[op.id] = ended, next(self.arrivals), Raw(value)
                if (cut := step_cut_off(op)) is not None:
                    self.open.pop(cut, None)

    def resolve(self, key: str) -> None:
        op = self.open.pop(key)
        if op.op is OpCode.SLEEP:
            self.memos[key] = self.now, next(self.arrivals), Raw(b"null")

    # --- calls ---

    def call(self) -> Call:
        memos: dict[str, Raw] | None = None
        if self.last is not None:
            ended = sorted(self.memos.items(), key=lambda item: item[1][:2])
            memos = {key: memo for key, (_, _, memo) in ended}
            if self.choose(2):
                memos |= {key: Raw(b'{"pending":true}') for key in self.open}
        run = Run("R", memos, RETRIES, names=dict(self.names))
        if memos is not None:
            run.earlier.keep_order()
        self.last = Call(run, self, self.program, self.shared)
        return self.last

    def go(self, call: Call) -> None:
        """Let a call come to its end.

        Raises:
            Dead: it does not come to it.
        """
        while True:
            while ready := call.ready():
                call.advance(ready[0])
            self.pass_time(call.began)
            if call.root.at == "done":
                call.run.end()
                self.receive(call.run.unreported.take_all())
                return
            turn = call.first_in_turn()
            if turn is not None:
                call.cut_again(turn) if turn.is_cut else call.advance(turn)
            elif not (bodies := call.standing("body")):
                assert call.run.suspended, "it stands still, and nothing will move it"
                assert call.run.settled
                call.run.unwind()
                self.receive(call.run.unreported.take_all())
                return
            else:
                self.move(call, bodies)

    def move(self, call: Call, bodies: list) -> None:  # type: ignore[type-arg]
        ringing = call.ringing()
        what = self.choose(len(bodies) + len(ringing) + 2)
        if what < len(bodies):
            call.advance(bodies[what])
        elif (what := what - len(bodies)) < len(ringing):
            call.ring(ringing[what])
        elif what == len(ringing):
            if call.run.resumed:
                self.receive(call.run.take_finished())
        elif call.run.resumed:
            raise Dead

    def pass_time(self, began: int) -> None:
        """Let time pass, or none at all; or set the clock back, but not before the call began."""
        self.now = max(began, self.now + (0, 1, 5, -3)[self.choose(4)])
        self.latest = max(self.latest, self.now)

    def run(self) -> None:
        for _ in range(200):
            call = self.call()
            try:
                self.go(call)
            except Dead:
                pass
            else:
                assert call.seen[: len(self.known)] == self.known
                self.known = call.seen
                if call.root.at == "done":
                    break
            self.now = self.latest = self.latest + 1
            keys = sorted(self.open)
            some = [key for key in keys if self.choose(2)] or keys[:1]
            for key in some:
                self.resolve(key)
        else:
            raise AssertionError("the run does not end")
        began = list(self.began)
        if self.last is not None and call.run.resumed:
            again = self.call()
            self.go(again)
            assert again.seen == self.known, "at a replay of the end"
            assert self.began == began


choices = st.lists(st.integers(0, 11), max_size=60)


@given(program=programs(3, "abcdefgh", shared=False), choices=choices)
@settings(max_examples=examples(80, 5000), deadline=None)
def test_no_outcome_turns(program: Program, choices: list[int]) -> None:
    World(program, choices, shared=False).run()


@given(program=programs(3, "ab", shared=True), choices=choices)
@settings(max_examples=examples(80, 5000), deadline=None)
def test_no_outcome_turns_where_branches_share_ids(program: Program, choices: list[int]) -> None:
    World(program, choices, shared=True).run()


FIXED: dict[str, tuple[Program, list[int]]] = {
    "waits of which both have ended": (
        (Side("first_completed", ((Nap("a"),), (Nap("b"), Do("c")))), Nap("d")),
        [0, 3, 5],
    ),
    "steps beside each other that were met before the next one was new": (
        (
            Side(
                "as_completed",
                (
                    (
                        Do("b"),
                        Side("first_completed", ((Do("a"), Do("b", 3)), (Do("b"), Do("a", 3)))),
                    ),
                    (Do("a"), Do("b", 3), Do("a"), Do("b", 3)),
                ),
            ),
        ),
        [],
    ),
    "a loser without steps": ((Nap("a"), Side("race", ((Do("a"),), (Loop(0, ()),)))), [0] * 6),
    "a timeout around branches": (
        (Limit((Side("gather", ((Do("a"), Do("b")), (Do("c"),))),)), Nap("d"), Do("e")),
        [0, 0, 0, 1, 3, 0, 1, 2],
    ),
}


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("shift", range(12))
def test_a_fixed_program(name: str, shift: int) -> None:
    program, choices = FIXED[name]
    World(program, [*choices[:shift], shift, *choices[shift:]], shared=True).run()


def test_steps_that_wait_for_their_turns_keep_their_positions() -> None:
    order = CompletionOrder(["a", "a!", "b", "c", "c!", "d"], lambda key: f"{key}!")
    assert order.meet("a")
    assert not order.meet("c")
    assert order.meet("b")
    assert [order.position(key) for key in "abcd"] == [0, 1, 2, 3]
    assert not order.pass_over("a")
    assert order.meet("d")
