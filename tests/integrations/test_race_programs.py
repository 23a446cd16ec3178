"""Random programs of asyncio over steps, cut up in every way: no outcome turns, nothing runs twice.

A program is a tree of steps, waits, timeouts, races, task groups and gathers. Its handler writes
down everything that it sees, in order. The server is a model; time is virtual. Processes die
anywhere in a call. Then each call has to see what the last complete call has seen, and go on from
there; and what a server was told of does not run again.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx2
import pytest
from hypothesis import assume, given, note, settings
from hypothesis import strategies as st

from stephttp import step
from stephttp.asgi import ASGIMiddleware
from stephttp.options import resolve
from stephttp.provider import Provider
from tests import virtual_loop
from tests.examples import examples

NAP = 60
START_NS = 1_800_000_000_000_000_000
FEATURES = {"x-stephttp-features": "step-retries, steps-with-result"}


@dataclass(frozen=True)
class Do:
    """A step that takes so many seconds."""

    step_id: str
    seconds: float
    fails: bool = False


@dataclass(frozen=True)
class Nap:
    step_id: str


@dataclass(frozen=True)
class Limit:
    """`asyncio.timeout` around steps."""

    seconds: float
    body: Program


@dataclass(frozen=True)
class Loop:
    times: int
    body: Program


@dataclass(frozen=True)
class Side:
    """Branches side by side: `how` is the name of a function below."""

    how: str
    branches: tuple[Program, ...]


Node = Do | Nap | Limit | Loop | Side
Program = tuple[Node, ...]
WAYS = ("gather", "group", "first_completed", "as_completed", "race", "first")


def tenths(number: int) -> float:
    return number / 10


def programs(depth: int, limited: bool = False) -> st.SearchStrategy[Program]:
    """Programs whose limits surround steps only, and no other limits (docs/steps.md says why)."""
    ids = st.sampled_from("abcd")  # few, so that branches share them
    leaf: st.SearchStrategy[Node] = st.builds(
        Do, ids, st.integers(1, 9).map(tenths), st.sampled_from([False, False, False, True])
    )
    if not limited:
        # Some share the ids of functions: they are uses of the same id, of another kind.
        leaf = st.one_of(leaf, st.builds(Nap, st.sampled_from("abyz")))
    if depth:
        body = programs(depth - 1, limited)
        branches = st.lists(body, min_size=2, max_size=3).map(tuple)
        side = st.builds(Side, st.sampled_from(WAYS), branches)
        leaf = st.one_of(leaf, st.builds(Loop, st.integers(0, 2), body), side, side)
        if not limited:
            limit = st.integers(1, 12).map(tenths)
            leaf = st.one_of(leaf, st.builds(Limit, limit, programs(depth - 1, limited=True)))
    return st.lists(leaf, min_size=1, max_size=3).map(tuple)


def may_ring_early(program: Program) -> bool:
    """Whether a limit around branches is beside another limit (docs/steps.md says why)."""
    return any(
        may_ring_early(branch)
        for node in program
        for branch in (node.branches if isinstance(node, Side) else bodies(node))
    ) or any(
        sum(bool(limits(branch)) for branch in node.branches) > 1
        and any(holds_branches(one.body) for branch in node.branches for one in limits(branch))
        for node in program
        if isinstance(node, Side)
    )


def bodies(node: Node) -> tuple[Program, ...]:
    return (node.body,) if isinstance(node, Limit | Loop) else ()


def limits(program: Program) -> list[Limit]:
    found = [node for node in program if isinstance(node, Limit)]
    for node in program:
        for inner in node.branches if isinstance(node, Side) else bodies(node):
            found += limits(inner)
    return found


def holds_branches(program: Program) -> bool:
    return any(isinstance(node, Side) or any(map(holds_branches, bodies(node))) for node in program)


class Body:
    """The function of a step: known by where it is in the program, and which time it is."""

    def __init__(self, world: World, label: str, node: Do, odd: float) -> None:
        self.world, self.label, self.node, self.odd = world, label, node, odd

    async def __call__(self) -> str:
        self.world.begins(self.label)
        await asyncio.sleep(self.node.seconds + self.odd)
        if self.node.fails:
            raise ValueError(f"{self.label} fails")
        return self.label


@dataclass
class Handler:
    """One call of the handler."""

    world: World
    seen: list[str] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    odds: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def odd(self) -> float:
        """Return a bit of time, so that no two things happen in the same moment, unless the world
        is one where they do."""
        return float(next(self.odds)) * self.world.odd

    async def play(self, path: str, program: Program) -> str:
        for number, node in enumerate(program):
            await self.one(f"{path}{number}", node)
        return path

    async def one(self, path: str, node: Node) -> None:
        match node:
            case Do(step_id):
                self.labels[path] = use = self.labels.get(path, 0) + 1
                body = Body(self.world, f"{path}#{use}", node, self.odd())
                try:
                    self.see(path, await step.run(step_id, body))
                except Exception as error:
                    self.see(path, "failed")
                    raise Failed(path) from error
            case Nap(step_id):
                await step.sleep(step_id, seconds(NAP))
                self.see(path, "awake")
            case Limit(limit, body):
                try:
                    async with asyncio.timeout(limit + self.odd()):
                        await self.play(path + ".", body)
                    self.see(path, "in time")
                except TimeoutError:
                    self.see(path, "too late")
            case Loop(times, body):
                for _ in range(times):
                    await self.play(path + ".", body)
            case Side(how, branches):
                calls = [
                    partial(self.play, f"{path}{letter}", branch)
                    for letter, branch in zip("xyz", branches, strict=False)
                ]
                try:
                    self.see(path, await SIDES[how](path, calls))
                except* Failed as failures:
                    names = sorted(str(error) for error in flat(failures))
                    self.see(path, "failed: " + " ".join(names))

    def see(self, path: str, what: str) -> None:
        self.seen.append(f"{path} {what}")


class Failed(Exception):
    """A step of a branch has failed."""


def flat(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    return [
        inner
        for error in group.exceptions
        for inner in (flat(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]


def seconds(number: float) -> Any:
    from datetime import timedelta

    return timedelta(seconds=number)


Calls = Sequence[Callable[[], Awaitable[str]]]


async def outcome(call: Awaitable[str]) -> str:
    try:
        return await call
    except Failed as error:
        return f"!{error}"


async def gather(path: str, calls: Calls) -> str:
    return " ".join(await asyncio.gather(*(outcome(call()) for call in calls)))


async def group(path: str, calls: Calls) -> str:
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    try:
        async with asyncio.TaskGroup() as tasks:
            made = [tasks.create_task(as_coroutine(call)) for call in calls]
    except* Failed:
        while task.cancelling() > before:  # a fault of task groups, mended in Python 3.13
            task.uncancel()
        raise
    return " ".join(task.result() for task in made)


async def first_completed(path: str, calls: Calls) -> str:
    tasks = [asyncio.ensure_future(outcome(call())) for call in calls]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel(tasks)
    return " ".join(sorted(task.result() for task in ended))


async def as_completed(path: str, calls: Calls) -> str:
    tasks = [asyncio.ensure_future(outcome(call())) for call in calls]
    try:
        return " ".join([await each for each in asyncio.as_completed(tasks)])
    finally:
        await cancel(tasks)


async def cancel(tasks: Sequence[asyncio.Future[str]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def race(path: str, calls: Calls) -> str:
    return await step.race(f"race {path}", [partial(as_coroutine, call) for call in calls])


async def first(path: str, calls: Calls) -> str:
    return await step.first(f"race {path}", [partial(as_coroutine, call) for call in calls])


async def as_coroutine(call: Callable[[], Awaitable[str]]) -> str:
    return await call()


SIDES: dict[str, Callable[[str, Calls], Awaitable[str]]] = {
    "gather": gather,
    "group": group,
    "first_completed": first_completed,
    "as_completed": as_completed,
    "race": race,
    "first": first,
}


class Dead(BaseException):
    """The process that was called has died."""


class World(httpx2.AsyncBaseTransport):
    """A model of the engine, with one run, and of the processes that it calls."""

    def __init__(
        self,
        program: Program,
        deaths: Sequence[float],
        order: Sequence[int],
        named: bool = True,
        odd: float = 0.00011,
    ) -> None:
        self.program = program
        self.odd = odd
        """Seconds by which things differ that the program has in the same moment."""
        self.named = named
        """Whether the engine says what steps it remembers."""
        self.names: dict[str, Any] = {}
        self.deaths = list(deaths)
        self.order = itertools.cycle(order)
        self.memos: dict[str, tuple[float, Any]] = {}
        self.open: dict[str, Any] = {}
        self.arrived: list[str] = []
        """Steps whose waits have ended during the present call."""
        self.ended = False
        self.dead = False
        """Whether a process has died whose tasks are still to be got rid of."""
        self.begun: list[str] = []
        self.over: set[str] = set()
        """Bodies that began in calls which reported all that happened in them."""
        self.known: list[str] = []
        """What the last such call has seen."""
        self.calls: list[Handler] = []

    # --- in the application ---

    def begins(self, label: str) -> None:
        if self.dead:
            raise Dead
        assert label not in self.over, f"{label} runs again"
        assert not any(memo == {"data": label} for _, memo in self.memos.values())
        self.begun.append(label)

    def application(self) -> Any:
        """A process."""
        loop = asyncio.get_running_loop()
        provider = Provider(
            resolve("http://app.test", base_url="http://engine.test", environ={"INNGEST_DEV": "1"}),
            transport=self,
            now_ns=lambda: START_NS + int(loop.time() * 1e9),
        )

        async def app(scope: Any, receive: Any, send: Any) -> None:
            handler = Handler(self)
            self.calls.append(handler)
            try:
                await handler.play("", self.program)
            except Failed as error:
                handler.seen.append(f"failed: {error}")
            start = {"type": "http.response.start", "status": 200, "headers": []}
            await send(start)
            await send({"type": "http.response.body", "body": json.dumps(handler.seen).encode()})

        return ASGIMiddleware(app, provider=provider)

    async def call(self, **headers: str) -> httpx2.Response:
        transport = httpx2.ASGITransport(self.application())
        async with httpx2.AsyncClient(transport=transport, base_url="http://app.test") as client:
            return await client.get("/", headers=headers)

    async def call_that_may_die(self, **headers: str) -> httpx2.Response | None:
        """Call a process. At its death all that is under way in it is gone."""
        task = asyncio.ensure_future(self.call(**headers))
        if self.open and next(self.order) == 0:
            await asyncio.wait([task], timeout=0.35)
            if self.open:
                self.arrived.append(self.wake_one())  # an event comes during the call
        await asyncio.wait([task], timeout=self.deaths.pop() if self.deaths else None)
        if task.done():
            return task.result()
        self.dead = True  # nothing of what it does now comes out of it
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for other in others:
                other.cancel()
            await asyncio.wait(others, timeout=0.01)
        self.dead = False
        return None

    # --- in the engine ---

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await asyncio.sleep(0.0001)
        if self.dead:
            raise Dead
        if request.method == "GET":
            ended = sorted(self.memos.items(), key=lambda item: item[1][0])
            memos = {key: memo for key, (_, memo) in ended}
            memos |= {key: {"pending": True} for key in self.open}
            if self.named:
                memos["stephttp:steps"] = {key: self.names[key] for key in memos}
            return httpx2.Response(200, json=memos, headers=FEATURES)
        body = json.loads(await request.aread())
        self.receive(body["steps"])
        run_id = body.get("run_id", "")
        data = {"run_id": run_id, "fn_id": "f", "app_id": "a", "token": "t"}
        return httpx2.Response(200, json={"data": data}, headers=FEATURES)

    def receive(self, ops: Sequence[dict[str, Any]]) -> None:
        for op in ops:
            key, kind = op["id"], op["op"]
            if kind == "RunComplete":
                self.ended = True
                continue
            if key in self.memos:
                continue  # the first report of a step wins
            user = op.get("userland", {})
            named = op["op"], user.get("id", ""), user.get("index", 0), user.get("branch", "")
            self.names.setdefault(key, named)
            timing = op.get("timing") or {"a": 0, "b": 0}
            ended = timing["a"] + timing["b"]
            if kind == "Sleep":
                self.open.setdefault(key, op)
            elif kind == "StepFailed":
                self.memos[key] = ended, {"error": op["error"]}
            else:
                assert kind == "StepRun", op
                self.memos[key] = ended, {"data": op.get("data")}
                if user.get("id") == "stephttp:cut":
                    self.open.pop(op["data"]["step"], None)

    def wake_one(self) -> str:
        """End a wait. Returns its step."""
        loop = asyncio.get_running_loop()
        keys = sorted(self.open)
        key = keys[next(self.order) % len(keys)]
        del self.open[key]
        self.memos[key] = START_NS + loop.time() * 1e9, None
        return key

    # --- the whole story ---

    async def run(self) -> None:
        answer = await self.call()
        await self.settle()
        if answer.status_code == 200:
            return  # it has waited for nothing
        assert answer.status_code == 303, answer.text
        self.complete_call()
        run_id = answer.headers["x-run-id"]
        for _ in range(1000):
            await asyncio.sleep(1)
            if self.open:
                self.wake_one()
            reply = await self.reenter(run_id, mortal=True)
            for key in self.arrived:  # the next call is the first that knows of them
                self.memos[key] = START_NS + asyncio.get_running_loop().time() * 1e9, None
            self.arrived.clear()
            if reply is None:
                continue
            self.complete_call()
            if self.ended:
                break
        else:
            raise AssertionError("the run does not end")
        begun = list(self.begun)
        await asyncio.sleep(1)
        await self.reenter(run_id, mortal=False)
        assert self.calls[-1].seen == self.known, "at a replay of the end"
        assert self.begun == begun

    async def reenter(self, run_id: str, *, mortal: bool) -> httpx2.Response | None:
        call = self.call_that_may_die if mortal else self.call
        reply = await call(
            **{"x-run-id": run_id, "x-inngest-signature": "t=1&s=0", "x-stephttp-attempt": "0"}
        )
        if reply is not None:
            assert reply.status_code == 206, reply.text
            ops = reply.json()
            self.receive(ops if isinstance(ops, list) else [ops])
            await self.settle()
        return reply

    async def settle(self) -> None:
        """Let what is in the background come to its end."""
        await asyncio.sleep(1)

    def complete_call(self) -> None:
        seen = self.calls[-1].seen
        assert seen[: len(self.known)] == self.known
        self.known = list(seen)
        self.over.update(self.begun)


@given(
    program=programs(3),
    deaths=st.lists(st.floats(0.0005, 3), max_size=4),
    order=st.lists(st.integers(0, 5), min_size=1, max_size=5),
    named=st.booleans(),
    odd=st.sampled_from([0.00011, 0.0]),
)
@settings(max_examples=examples(40, 2000), deadline=None)
def test_no_outcome_turns_and_nothing_runs_twice(
    program: Program, deaths: list[float], order: list[int], named: bool, odd: float
) -> None:
    assume(not may_ring_early(program))
    note(f"{program!r} {deaths} {order}")
    virtual_loop.run(World(program, deaths, order, named, odd).run())


FIXED = {
    "a limit": (Limit(2, (Do("a", 9),)), Nap("n"), Do("b", 1), Nap("n")),
    "a failed sibling": (Side("group", ((Do("a", 9),), (Do("b", 1, fails=True),))), Nap("n")),
    "two limits whose timers begin at other times": (
        Side("gather", ((Do("a", 5), Limit(3, (Do("b", 2),))), (Limit(6, (Do("c", 9),)),))),
        Nap("n"),
        Nap("n"),
    ),
    "a limit after a step, beside a shorter one": (
        Side("gather", ((Do("a", 3), Limit(5, (Do("b", 9),))), (Limit(6, (Do("c", 9),)),))),
        Nap("n"),
        Nap("n"),
    ),
    "a loser whose cancellation comes too early": (
        Side("first", ((Nap("z"), Nap("a"), Nap("b")), (Nap("z"),))),
    ),
    "races of waits that share an id": (
        Loop(2, (Side("first", ((Nap("a"), Nap("y")), (Nap("a"),))),)),
    ),
    "two races that end in the same turn of the loop": (
        Nap("z"),
        Side(
            "first_completed",
            (
                (Side("first", ((Do("b", 1),), (Loop(0, (Do("a", 1),)),))),),
                (Side("first_completed", ((Do("b", 1),), (Loop(0, (Do("a", 1),)),))),),
            ),
        ),
    ),
    "steps that end in the same turn of the loop": (
        Side("first_completed", ((Do("a", 1), Do("b", 1)), (Do("c", 2),), (Do("d", 2),))),
        Nap("n"),
        Side("as_completed", ((Do("a", 1),), (Do("b", 1),), (Do("c", 1),))),
        Nap("n"),
    ),
    "two failures in the same turn of the loop": (
        Side("group", ((Do("a", 1, fails=True),), (Do("b", 1, fails=True),), (Do("c", 9),))),
        Nap("n"),
        Nap("n"),
    ),
    "a failure beside a step that shares its id with one that was cut off": (
        Side(
            "group",
            ((Do("c", 0.6),), (Side("first_completed", ((Do("a", 0.1),), (Do("c", 0.1),))),)),
        ),
        Nap("z"),
    ),
    "a wait beside a branch without steps": (
        Side("first_completed", ((Nap("z"),), (Limit(1, (Loop(0, (Do("a", 1),)),)),))),
        Side("gather", ((Nap("z"),), (Limit(1, (Loop(0, (Do("a", 1),)),)),))),
    ),
    "a limit that rings early at a step that had ended": (
        Side(
            "gather",
            ((Do("e", 1.5), Limit(1, (Do("a", 0.9), Do("b", 9)))), (Limit(2, (Do("c", 9),)),)),
        ),
        Nap("n"),
        Nap("n"),
    ),
    "a limit and a step that end in the same moment": (
        Side("as_completed", ((Limit(0.3, (Do("a", 0.5),)),), (Do("d", 0.3), Nap("a")))),
    ),
    "a limit that rings in the moment in which a branch wins": (
        Nap("b"),
        Do("d", 0.6),
        Limit(
            1,
            (
                Side("first", ((Do("a", 0.8),), (Do("a", 0.3), Do("c", 0.2)))),
                Side("first", ((Do("a", 0.6),), (Do("a", 0.5),))),
            ),
        ),
        Nap("n"),
    ),
    "a limit that rings in the moment in which the last step of a race ends": (
        Do("d", 0.1),
        Nap("a"),
        Limit(0.9, (Side("first", ((Do("d", 0.1, fails=True),), (Do("c", 0.7), Do("c", 0.2)))),)),
    ),
    "a limit that ends the handler in the moment in which a step ends that it leaves behind": (
        Do("d", 0.1),
        Nap("a"),
        Limit(
            0.9,
            (
                Side(
                    "gather",
                    (
                        (Do("c", 0.9),),
                        (
                            Do("c", 0.7),
                            Side("first", ((Do("c", 0.1), Do("b", 0.1)), (Do("c", 0.2),))),
                        ),
                    ),
                ),
            ),
        ),
    ),
    "a limit that rings early at a step before a race": (
        Side(
            "as_completed",
            (
                (Limit(0.9, (Do("a", 0.1), Do("d", 0.8))),),
                (
                    Do("b", 0.4),
                    Limit(0.7, (Do("b", 0.5), Side("race", ((Do("d", 0.3),), (Do("d", 0.9),))))),
                ),
                (Nap("y"),),
            ),
        ),
    ),
    "a use of an id that was lost, beside one of a branch that is known": (
        Nap("a"),
        Nap("b"),
        Side(
            "as_completed",
            (
                (Do("d", 0.1), Do("b", 0.7)),
                (Side("first", ((Do("d", 0.1), Do("b", 0.1)), (Do("b", 0.6),))),),
            ),
        ),
        Do("b", 0.1),
        Nap("z"),
    ),
    "a race of waits": (Side("race", ((Nap("m"),), (Nap("n"), Do("a", 1)))), Nap("n")),
}


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("deaths", [[], [0.01, 2.5, 5.5]], ids=["", "dying"])
@pytest.mark.parametrize("named", [True, False], ids=["named", "nameless"])
@pytest.mark.parametrize("odd", [0.00011, 0.0], ids=["", "at once"])
def test_a_fixed_program(name: str, deaths: list[float], named: bool, odd: float) -> None:
    virtual_loop.run(World(FIXED[name], deaths, [0, 1], named, odd).run())


def test_a_step_waits_in_vain_for_a_limit_that_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    with_limit = FIXED["a limit that rings in the moment in which the last step of a race ends"]
    world = World(with_limit, [], [0], odd=0.0)
    *before, limit = with_limit
    assert isinstance(limit, Limit)

    async def changed() -> None:
        await world.run()
        begun = list(world.begun)
        world.program = (*before, *limit.body)
        began = asyncio.get_running_loop().time()
        await world.reenter("01JA0000000000000000000000", mortal=False)
        assert 5.9 < asyncio.get_running_loop().time() - began < 8
        assert world.begun == begun

    virtual_loop.run(changed())
    assert "2y1 2.0y1#1" in world.calls[-1].seen
    assert "step 'c' was cancelled as it ended in an earlier call" in caplog.text


def test_two_failures_at_once_are_one_group_in_every_call() -> None:
    world = World(FIXED["two failures in the same turn of the loop"], [], [0], odd=0.0)
    virtual_loop.run(world.run())
    assert len(world.calls) == 4
    for call in world.calls:
        assert "0 failed: 0x0 0y0" in call.seen
