"""Random programs, run straight through and cut up in every way, give the same.

The model is a server and a scheduler: Hypothesis chooses which branch of a handler takes its next
step, when a call is cut off, what of it reached the server, and which waits end in between.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import Raw

from stephttp._core import waits
from stephttp._core.run import Run
from stephttp._core.steps import Step, Verdict
from stephttp._wire.ids import hash_step_id
from stephttp._wire.opcodes import ErrorInfo, Op, OpCode
from stephttp._wire.stored_state import KnownStep, MemoKind
from tests.core.races_model import NAP, Do, Nap
from tests.examples import examples

RETRIES = 2


@dataclass(frozen=True)
class Await:
    """A wait for an event whose condition names the trigger, so that it may not travel early."""

    step_id: str


@dataclass(frozen=True)
class Loop:
    times: int
    body: Program


@dataclass(frozen=True)
class Parallel:
    branches: tuple[Program, ...]


Node = Do | Nap | Await | Loop | Parallel
Program = tuple[Node, ...]
Path = tuple[int, ...]
Branch = Generator[None, None, list[Any]]


def programs(depth: int, ids: str, *, shared: bool = False) -> st.SearchStrategy[Program]:
    """Programs over `ids`; parallel branches have ids of their own, unless they are `shared`."""
    leaf: st.SearchStrategy[Node] = st.one_of(
        st.builds(Do, st.sampled_from(ids), st.integers(0, RETRIES + 2)),
        st.builds(Do, st.sampled_from(ids)),
        st.builds(Nap, st.sampled_from(ids)),
        # An event shows under which hash it was waited for, which nobody knows of a shared id.
        *([] if shared else [st.builds(Await, st.sampled_from(ids))]),
    )
    if depth:
        half = len(ids) // 2
        inner: list[st.SearchStrategy[Node]] = [
            st.builds(Loop, st.integers(0, 3), programs(depth - 1, ids, shared=shared))
        ]
        if shared:
            inner.append(
                st.builds(Parallel, st.tuples(*[programs(depth - 1, ids, shared=True)] * 2))
            )
        elif half:
            pair = st.tuples(programs(depth - 1, ids[:half]), programs(depth - 1, ids[half:]))
            inner.append(st.builds(Parallel, pair))
        leaf = st.one_of(leaf, *inner)
    return st.lists(leaf, max_size=3).map(tuple)


def expected(
    program: Program, uses: Counter[str], *, shared: bool = False, position: str = ""
) -> list[Any]:
    """What the program gives when nothing ever interrupts it, without any of our code at work."""
    seen: list[Any] = []
    for node in program:
        match node:
            case Loop(times, body):
                for _ in range(times):
                    seen.extend(expected(body, uses, shared=shared, position=position))
            case Parallel(branches):
                seen.append(
                    [
                        expected(branch, uses, shared=shared, position=within(position, n))
                        for n, branch in enumerate(branches)
                    ]
                )
            case _:
                whose = f"{position}/{node.step_id}" if shared else node.step_id
                name = hash_step_id(whose, uses[whose])
                uses[whose] += 1
                seen.append(outcome(node, name))
    return seen


def within(position: str, number: int) -> str:
    """The position of a branch of `parallel`."""
    return f"{position}.{number}" if position else str(number)


def outcome(node: Do | Nap | Await, name: str) -> Any:
    if isinstance(node, Nap):
        return None
    if isinstance(node, Await):
        return f"event of {name}"
    return f"value of {name}" if node.failures <= RETRIES else f"error of {name}"


@dataclass
class Handler:
    """One call of the handler: a tree of branches, each of which can be moved by one step."""

    machine: Programs
    run: Run
    branches: dict[Path, Branch] = field(default_factory=dict)
    results: dict[Path, list[Any]] = field(default_factory=dict)
    parked: set[Path] = field(default_factory=set)
    positions: dict[Path, str] = field(default_factory=dict)
    uses: Counter[str] = field(default_factory=Counter)

    def start(self, path: Path, program: Program, position: str = "") -> None:
        self.positions[path] = position
        self.branches[path] = self.play(path, program)

    def name(self, path: Path, step: Step) -> str:
        """What the result of a step shows: whose it is."""
        if not self.machine.shared:
            return step.hash
        whose = f"{self.positions[path]}/{step.step_id}"
        self.uses[whose] += 1
        return hash_step_id(whose, self.uses[whose] - 1)

    def position(self, path: Path) -> str:
        """The branch, as the state machine gets to know it."""
        return self.positions[path] if self.machine.shared else ""

    def movable(self) -> list[Path]:
        return sorted(set(self.branches) - self.parked)

    def move(self, path: Path) -> None:
        try:
            next(self.branches[path])
        except StopIteration as end:
            del self.branches[path]
            self.results[path] = end.value

    def play(self, path: Path, program: Program) -> Branch:
        seen: list[Any] = []
        for number, node in enumerate(program):
            match node:
                case Loop(times, body):
                    for _ in range(times):
                        seen.extend((yield from self.play(path, body)))
                case Parallel(branches):
                    inner = [(*path, number, len(seen), n) for n in range(len(branches))]
                    for n, (at, branch) in enumerate(zip(inner, branches, strict=True)):
                        self.start(at, branch, within(self.positions[path], n))
                    while not all(at in self.results for at in inner):
                        self.parked.add(path)
                        yield
                    seen.append([self.results.pop(at) for at in inner])
                case Do():
                    seen.append((yield from self.do(path, node)))
                case _:
                    seen.append((yield from self.wait(path, node)))
        return seen

    def do(self, path: Path, node: Do) -> Generator[None, None, Any]:
        step = self.run.begin(node.step_id, None, self.position(path))
        name = self.name(path, step)
        if step.verdict is Verdict.EXECUTE:
            yield  # the body takes its time, and others go on meanwhile
            failed = self.machine.body(node, step, name)
            if failed is None:
                value = msgspec.json.encode(f"value of {name}")
                verdict = self.run.complete(step, value, 0, 0)
                result = f"value of {name}"
            else:
                verdict = self.run.fail(step, failed, 0, 0)
                result = f"error of {name}"
            if verdict is Verdict.EXECUTE:
                yield
                return result
            step = msgspec.structs.replace(step, verdict=Verdict.SUSPEND)
        return (yield from self.pass_by(path, step))

    def wait(self, path: Path, node: Nap | Await) -> Generator[None, None, Any]:
        if isinstance(node, Nap):
            ask = waits.sleep(node.step_id, NAP)
        else:
            ask = waits.wait_for_event(node.step_id, "e", NAP, "event.data.x == 1")
        step = self.run.wait(ask, self.position(path))
        self.name(path, step)
        return (yield from self.pass_by(path, step))

    def pass_by(self, path: Path, step: Step) -> Generator[None, None, Any]:
        while step.verdict is Verdict.SUSPEND:
            self.parked.add(path)
            yield
        assert step.memo is not None
        yield
        if step.memo.kind is MemoKind.ERROR:
            assert step.memo.error is not None
            return step.memo.error.message
        return msgspec.json.decode(step.memo.raw)


class Programs(RuleBasedStateMachine):
    """A server with one run, whose handler is called until it comes to its end."""

    shared = False
    """Branches share step ids, and the server says which step is whose."""

    @initialize(program=programs(3, "abcdefgh"), pending=st.booleans())
    def begin(self, program: Program, pending: bool) -> None:
        self.program = program
        self.names: dict[str, KnownStep] = {}
        self.tells_pending = pending
        self.memos: dict[str, Raw] = {}
        self.open: dict[str, Op] = {}
        self.failures: Counter[str] = Counter()
        self.tried: Counter[str] = Counter()
        self.succeeded: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.result: list[Any] | None = None
        self.live: Handler | None = None
        self.called = 0
        self.call()

    # --- what the handler's steps do ---

    def body(self, node: Do, step: Step, name: str) -> ErrorInfo | None:
        """The body of a step, whose failures are counted by what the server knows of them."""
        self.tried[step.hash] += 1
        if self.failures[step.hash] < node.failures:
            self.failures[step.hash] += 1
            return ErrorInfo("E", f"error of {name}")
        self.succeeded[step.hash] += 1
        return None

    # --- what the server does ---

    def call(self) -> None:
        self.called += 1
        memos = None
        if self.called > 1:
            memos = dict(self.memos)
            if self.tells_pending:
                memos |= {key: Raw(b'{"pending":true}') for key in self.open}
        names = dict(self.names) if self.shared else None
        self.live = Handler(self, Run("R", memos, RETRIES, names=names))
        self.live.start((), self.program)

    def receive(self, ops: list[Op]) -> None:
        for op in ops:
            if op.id in self.memos:
                continue  # the first report of a step wins
            if op.userland is not None:
                land = op.userland
                self.names[op.id] = KnownStep(op.op, land.id, land.index or 0, land.branch)
            match op.op:
                case OpCode.STEP_RUN:
                    assert isinstance(op.data, Raw)
                    self.memos[op.id] = Raw(b'{"data":' + bytes(op.data) + b"}")
                case OpCode.STEP_FAILED:
                    self.fail(op)
                case OpCode.STEP_ERROR:
                    assert op.opts == {"retries": RETRIES}
                    if self.failures[op.id] > RETRIES:
                        self.fail(op)
                    else:
                        self.open[op.id] = op
                case OpCode.SLEEP | OpCode.WAIT_FOR_EVENT:
                    assert op.op is OpCode.SLEEP or self.called > 1, "too early for its condition"
                    self.open[op.id] = op
                case OpCode.DISCOVERY_REQUEST:
                    assert self.called == 1
                case _:
                    raise AssertionError(op)

    def fail(self, op: Op) -> None:
        self.memos[op.id] = Raw(b'{"error":' + msgspec.json.encode(op.error) + b"}")

    def resolve(self, key: str) -> None:
        op = self.open.pop(key)
        if op.op is OpCode.SLEEP:
            self.memos[key] = Raw(b"null")
        elif op.op is OpCode.WAIT_FOR_EVENT:
            self.memos[key] = Raw(msgspec.json.encode(f"event of {key}"))

    # --- what may happen, in any order ---

    @precondition(lambda self: self.live is not None and self.live.movable())
    @rule(data=st.data())
    def a_branch_goes_on(self, data: st.DataObject) -> None:
        assert self.live is not None
        self.live.move(data.draw(st.sampled_from(self.live.movable())))
        self.after_a_move()

    @precondition(lambda self: self.live is not None)
    @rule()
    def finished_steps_are_reported(self) -> None:
        assert self.live is not None
        if self.called > 1 or self.live.run.suspended:
            self.receive(self.live.run.take_finished())

    @precondition(lambda self: self.live is not None and self.called > 1)
    @rule()
    def the_call_is_cut_off(self) -> None:
        """The process dies. What ran in it and was not reported will run again."""
        assert self.live is not None
        for op in self.live.run.unreported.take_all():
            if op.op is OpCode.STEP_RUN:
                self.lost[op.id] += 1
            elif op.op in (OpCode.STEP_ERROR, OpCode.STEP_FAILED):
                self.failures[op.id] -= 1  # nobody heard of it
        self.live = None

    @precondition(lambda self: self.live is None and self.result is None)
    @rule(data=st.data())
    def the_server_calls_again(self, data: st.DataObject) -> None:
        if self.open:
            for key in data.draw(st.sets(st.sampled_from(sorted(self.open)))):
                self.resolve(key)
        self.call()

    @precondition(lambda self: self.result is not None)
    @rule()
    def a_replay_of_the_end_gives_the_same_and_runs_nothing(self) -> None:
        result, tried = self.result, Counter(self.tried)
        self.call()
        while self.live is not None:
            self.live.move(self.live.movable()[0])
            self.after_a_move()
        assert (self.result, self.tried) == (result, tried)

    def after_a_move(self) -> None:
        live = self.live
        assert live is not None
        self.wake(live)
        if () in live.results:
            assert not live.run.suspended
            self.result = live.results[()]
            self.receive(live.run.unreported.take_all())
            self.live = None
        elif not live.movable():
            assert live.run.suspended, "it stands still, and nothing will move it"
            assert live.run.settled
            live.run.unwind()
            ops = live.run.unreported.take_all()
            assert ops or live.run.pending, "an empty answer"
            self.receive(ops)
            self.live = None

    @staticmethod
    def wake(live: Handler) -> None:
        """A branch that stood still for others to come to their ends may go on."""
        for path in list(live.parked):
            inner = [at for at in live.branches if at != path and at[: len(path)] == path]
            waits_for_steps = path in live.branches and not any(
                at != path and at[: len(path)] == path for at in live.results
            )
            if not inner and not waits_for_steps:
                live.parked.discard(path)

    @invariant()
    def no_body_succeeds_twice(self) -> None:
        if hasattr(self, "succeeded"):
            for key, count in self.succeeded.items():
                assert count <= 1 + self.lost[key]

    def teardown(self) -> None:
        """Let it run to its end, and compare."""
        if not hasattr(self, "program"):
            return
        for _ in range(10_000):
            if self.result is not None:
                break
            if self.live is None:
                for key in sorted(self.open):
                    self.resolve(key)
                self.call()
            live = self.live
            assert live is not None
            if live.movable():
                live.move(live.movable()[0])
            self.after_a_move()
        assert self.result == expected(self.program, Counter(), shared=self.shared)
        for key, count in self.succeeded.items():
            assert count == 1 + self.lost[key]


TestPrograms = Programs.TestCase
TestPrograms.settings = settings(
    max_examples=examples(50, 1000), stateful_step_count=60, deadline=None
)


class SharedPrograms(Programs):
    """The same, where branches of `parallel` use the same step ids."""

    shared = True

    @initialize(program=programs(3, "ab", shared=True), pending=st.booleans())
    def begin(self, program: Program, pending: bool) -> None:
        super().begin(program, pending)


TestSharedPrograms = SharedPrograms.TestCase
TestSharedPrograms.settings = TestPrograms.settings


def steps_of(program: Program) -> int:
    return sum(
        node.times * steps_of(node.body)
        if isinstance(node, Loop)
        else sum(map(steps_of, node.branches))
        if isinstance(node, Parallel)
        else 1
        for node in program
    )


FIXED: Program = (
    Do("a"),
    Loop(2, (Do("a", 1), Nap("n"))),
    Parallel(((Do("b", 5), Nap("p")), (Nap("q"), Do("c", 2), Await("w")))),
    Do("a", 3),
)


SHARED: Program = (
    Do("a"),
    Parallel(((Do("a", 1), Nap("n"), Do("a")), (Do("a"), Loop(2, (Do("b", 2), Nap("n")))))),
    Do("a"),
)


@pytest.mark.parametrize("cut", range(40))
@pytest.mark.parametrize(
    ("kind", "program", "succeed"), [(Programs, FIXED, 4), (SharedPrograms, SHARED, 7)]
)
def test_a_program_cut_at_every_possible_point(
    kind: type[Programs], program: Program, succeed: int, cut: int
) -> None:
    """Every number of moves after which the second call is cut off, one after the other."""
    machine = kind()
    machine.begin(program, pending=bool(cut % 2))
    while machine.called < 2:
        live = machine.live
        if live is None:
            for key in sorted(machine.open):
                machine.resolve(key)
            machine.call()
        else:
            # Branches that share ids come to them in another order than in the next call.
            live.move(live.movable()[-1 if kind.shared else 0])
            machine.after_a_move()
    for _ in range(cut):
        live = machine.live
        if live is not None and live.movable():
            live.move(live.movable()[-1])
            machine.after_a_move()
    if machine.live is not None:
        machine.the_call_is_cut_off()
    machine.no_body_succeeds_twice()
    machine.teardown()
    assert sum(machine.succeeded.values()) - sum(machine.lost.values()) == succeed
    assert (steps_of(FIXED), steps_of(SHARED)) == (11, 10)
