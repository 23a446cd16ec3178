"""A handler with branches that race, cancel and time each other out, as tasks without a clock.

`Call` is one call of the handler: its tasks, and an ideal form of the turns in which remembered
steps come back on an event loop (`_run.loop_turns`). Which of the tasks does something next is for
others to say. What the handler sees is written down in order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from stephttp._core import waits
from stephttp._core.run import Run
from stephttp._core.steps import CutTimes, Step, Verdict
from stephttp._wire.opcodes import ErrorInfo
from stephttp._wire.stored_state import MemoKind

NAP = timedelta(minutes=1)
WAYS = ("gather", "group", "first_completed", "as_completed", "race")


@dataclass(frozen=True)
class Do:
    """A step whose body fails so many times before it succeeds."""

    step_id: str
    failures: int = 0


@dataclass(frozen=True)
class Nap:
    step_id: str


@dataclass(frozen=True)
class Limit:
    """A timeout around steps, which may ring at any time while a body is at work."""

    body: Program


@dataclass(frozen=True)
class Loop:
    times: int
    body: Program


@dataclass(frozen=True)
class Side:
    """Branches side by side; `how` is one of `WAYS`."""

    how: str
    branches: tuple[Program, ...]


Node = Do | Nap | Limit | Loop | Side
Program = tuple[Node, ...]
Branch = Generator[None, None, Any]


class Cancelled(BaseException):
    """What a task gets that is cancelled."""


class Failed(Exception):
    """A step has failed for good."""


class Bodies(Protocol):
    """What the steps do, and what time it is."""

    now: int

    def begins(self, label: str) -> None: ...

    def fails(self, node: Do, step: Step) -> bool: ...


@dataclass
class Ring:
    """A timeout that a task is in."""

    rung: bool = False


@dataclass(eq=False)
class Task:
    """A branch of the handler, and where it stands."""

    position: str
    """As the state machine knows it; empty where it does not."""
    parent: Task | None = None
    run: Branch | None = None
    at: str = "ready"
    """`ready`, `body`, `stop`, `turn`, `join`, `done`."""
    key: str = ""
    """What it waits for in `turn`."""
    is_cut: bool = False
    """Whether the step in `turn` was cut off in an earlier call."""
    until: Callable[[], bool] = bool
    """What it waits for in `join`."""
    limits: list[Ring] = field(default_factory=list)
    cancelled: int = 0
    """How often others cancelled it; its own timeouts do not count."""
    cancelling: bool = False
    """Whether its cancellation is kept: until the turn of a step that was cut off, or until it
    comes to something new, after one that has ended, such as a wait beside the one that won."""
    result: Any = None
    error: BaseException | None = None


@dataclass
class Call:
    """One call of the handler."""

    run: Run
    bodies: Bodies
    program: Program
    shared: bool
    """Whether branches use the same step ids, and the state machine knows who is who."""
    seen: list[str] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    uses: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.began = self.bodies.now
        self.root = self.spawn(None, "", lambda task: self.play(task, "", self.program))

    # --- tasks ---

    def spawn(self, parent: Task | None, position: str, body: Callable[[Task], Branch]) -> Task:
        task = Task(position if self.shared else "", parent)
        task.run = body(task)
        self.tasks.append(task)
        return task

    def standing(self, at: str) -> list[Task]:
        return [task for task in self.tasks if task.at == at]

    def ready(self) -> list[Task]:
        joined = [task for task in self.standing("join") if task.until()]
        return self.standing("ready") + joined

    def advance(self, task: Task, error: BaseException | None = None) -> None:
        """Let a task come as far as it can."""
        assert task.run is not None
        try:
            next(task.run) if error is None else task.run.throw(error)
        except StopIteration as end:
            task.at, task.result = "done", end.value
        except (Failed, Cancelled) as raised:
            task.at, task.error = "done", raised

    def cancel(self, task: Task) -> None:
        """Cancel a task from outside of it."""
        task.cancelled += 1
        self.interrupt(task)

    def interrupt(self, task: Task) -> None:
        if task.at == "turn":
            task.cancelling = True
        elif task.at == "ready":  # it never begins
            task.at, task.error = "done", Cancelled()
        elif task.at != "done":
            self.advance(task, Cancelled())

    def ring(self, task: Task) -> None:
        """Let the innermost timeout of a task ring."""
        task.limits[-1].rung = True
        self.interrupt(task)

    def cut_again(self, task: Task) -> None:
        """Let a step be cut off that was, by what did it."""
        if task.cancelling:
            task.cancelling = False
            self.advance(task, Cancelled())
            return
        around: Task | None = task
        while around is not None and not any(not ring.rung for ring in around.limits):
            around = around.parent
        assert around is not None, "nothing cuts it off"
        self.ring(around)

    def first_in_turn(self) -> Task | None:
        """Return the task whose remembered step came first."""
        order = self.run.earlier.order
        waiting = self.standing("turn")
        if order is None or not waiting:
            return waiting[0] if waiting else None
        return min(waiting, key=lambda task: order.position(task.key))

    def ringing(self) -> list[Task]:
        """Return the tasks in which a timeout may ring."""
        return [t for t in self.tasks if t.at != "done" and t.limits and not t.limits[-1].rung]

    # --- the program ---

    def play(self, task: Task, path: str, program: Program) -> Branch:
        for number, node in enumerate(program):
            yield from self.one(task, f"{path}{number}", node)
        return path

    def one(self, task: Task, path: str, node: Node) -> Branch:
        match node:
            case Do() | Nap():
                try:
                    self.see(path, (yield from self.step(task, path, node)))
                except Failed:
                    self.see(path, "failed")
                    raise
            case Loop(times, body):
                for _ in range(times):
                    yield from self.play(task, path + ".", body)
            case Limit(body):
                yield from self.limit(task, path, body)
            case Side(how, branches):
                try:
                    self.see(path, (yield from self.side(task, path, how, branches)))
                except Failed:
                    self.see(path, "failed")

    def see(self, path: str, what: Any) -> None:
        self.seen.append(f"{path} {what}")

    def limit(self, task: Task, path: str, body: Program) -> Branch:
        ring = Ring()
        task.limits.append(ring)
        try:
            yield from self.play(task, path + ".", body)
            outcome = "in time"
        except Cancelled:
            if not ring.rung or task.cancelled:
                raise
            outcome = "too late"
        finally:
            task.limits.remove(ring)
        self.see(path, outcome)

    def side(self, task: Task, path: str, how: str, branches: Iterable[Program]) -> Branch:
        race = self.run.meet_race(f"race {path}") if how == "race" else None
        assert race is None or race.verdict is not Verdict.SUSPEND
        began = self.bodies.now
        ended: list[Task] = []
        children: list[Task] = []
        for number, branch in enumerate(branches):
            children.append(
                self.spawn(
                    task,
                    f"{task.position}.{number}" if task.position else str(number),
                    lambda child, at=f"{path}{'xyz'[number]}", branch=branch: (  # type: ignore[misc]
                        self.noted(child, ended, self.play(child, at, branch))
                    ),
                )
            )

        def all_done() -> bool:
            return all(child.at == "done" for child in children)

        def decided() -> bool:
            if how == "group":
                return all_done() or any(isinstance(c.error, Failed) for c in children)
            return all_done() if how in ("gather", "as_completed") else bool(ended)

        try:
            yield from self.join(task, decided)
            first = children.index(ended[0])
            if race is not None and race.memo is None:
                self.run.win(race, msgspec.json.encode({"winner": first}), began, 0)
            elif race is not None:
                assert race.memo is not None
                assert msgspec.json.decode(race.memo.raw) == {"winner": first}
        finally:
            cancelled = False
            while True:
                for child in children:
                    if child.at != "done" and not child.cancelled:
                        self.cancel(child)
                if all_done():
                    break
                try:
                    yield from self.join(task, all_done)
                except Cancelled:
                    cancelled = True
        if cancelled:
            raise Cancelled
        if how == "group" and any(isinstance(child.error, Failed) for child in children):
            raise Failed
        if how in ("first_completed", "race"):
            return outcome(children[first])
        return " ".join(map(outcome, ended if how == "as_completed" else children))

    @staticmethod
    def noted(task: Task, ended: list[Task], body: Branch) -> Branch:
        try:
            result = yield from body
        except Failed:
            ended.append(task)
            raise
        ended.append(task)
        return result

    @staticmethod
    def join(task: Task, until: Callable[[], bool]) -> Branch:
        task.at, task.until = "join", until
        while not until():
            yield
            task.at = "join"
        task.at = "ready"

    # --- steps ---

    def step(self, task: Task, path: str, node: Do | Nap) -> Branch:
        run = self.run
        if isinstance(node, Do):
            step = run.begin(node.step_id, None, task.position)
        else:
            step = run.wait(waits.sleep(node.step_id, NAP), task.position)
        self.uses[path] += 1
        label = f"{path}#{self.uses[path]}"
        kept, task.cancelling = task.cancelling, False
        if kept and step.verdict in (Verdict.EXECUTE, Verdict.SUSPEND):
            self.cut_at_once(step, label)
        task.cancelling = kept
        if step.verdict is Verdict.EXECUTE:
            assert isinstance(node, Do)
            failed = yield from self.body(task, node, step, label)
            if failed is None:
                return label
            step = replace(step, verdict=Verdict.SUSPEND)
        if step.verdict is Verdict.SUSPEND:
            yield from self.stop(task, step)
        yield from self.turn(task, step)
        assert step.memo is not None
        if step.memo.kind is MemoKind.ERROR:
            assert step.memo.error is not None
            assert step.memo.error.message == label, "another branch's failure"
            raise Failed
        assert isinstance(node, Nap) or msgspec.json.decode(step.memo.raw) == label, "swapped"
        return label

    def body(self, task: Task, node: Do, step: Step, label: str) -> Branch:
        """Run a body. Returns `None`: it has ended; else it will be tried again."""
        run, since = self.run, self.bodies.now
        self.bodies.begins(label)
        task.at = "body"
        try:
            yield
        except Cancelled:
            run.cut_off(step, self.times(since))
            raise
        task.at = "ready"
        took = max(0, self.bodies.now - since)
        if not self.bodies.fails(node, step):
            run.complete(step, msgspec.json.encode(label), since, took)
            return None
        if run.fail(step, ErrorInfo("E", label), since, took) is Verdict.SUSPEND:
            return step
        raise Failed

    def cut_at_once(self, step: Step, label: str) -> None:
        """Come to something new with a cancellation that was kept."""
        times = self.times(self.bodies.now)
        if step.verdict is Verdict.EXECUTE:
            self.bodies.begins(label)
            self.run.cut_off(step, times)
        else:
            self.run.give_up(step, times)
        raise Cancelled

    def stop(self, task: Task, step: Step) -> Branch:
        since = self.bodies.now
        task.at = "stop"
        try:
            yield
        except Cancelled:
            self.run.give_up(step, self.times(since))
            raise
        raise AssertionError("it cannot continue in this call")

    def turn(self, task: Task, step: Step) -> Branch:
        run, task.is_cut = self.run, step.verdict is Verdict.CUT
        assert not task.is_cut or run.cuts is not None
        task.key = run.cuts.entry_of(step.hash) if task.is_cut and run.cuts else step.hash
        if run.earlier.order is not None:
            run.earlier.order.meet(task.key)
        task.at = "turn"
        try:
            yield
        finally:
            task.at = "ready"
            if run.earlier.order is not None:
                run.earlier.order.pass_over(task.key)
        assert not task.is_cut

    def times(self, since: int) -> CutTimes:
        return CutTimes(since, self.bodies.now, self.began)


def outcome(task: Task) -> str:
    return "!" if task.error is not None else str(task.result)
