"""A model test of the store: the process dies between any two statements, and nothing that was
acknowledged is lost, nothing is there by half, and every rule of the schema still holds.

What a killed process leaves is what is in the files at that moment. So a copy of the files (the
database and its write-ahead log) is taken at a statement that Hypothesis chooses, opened as the
next process would open it, and compared with a model of what had been acknowledged by then.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from stephttp._wire.opcodes import ErrorInfo, Op, OpCode
from stephttp.engine import Settings
from stephttp.engine.live.slots import Gates, Shares
from stephttp.engine.model.inputs import (
    CallFailure,
    Cancellation,
    EventArrival,
    FailureKind,
    Hints,
    Moment,
)
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.run import NewRun, Run, RunStatus
from stephttp.engine.model.timer import RESUME
from stephttp.engine.model.tokens import new_ulid
from stephttp.engine.rules.answers import OpsAnswer
from stephttp.engine.store import check
from stephttp.engine.store.due_requests import DueCall, load_calls
from stephttp.engine.store.runs import load_timers
from stephttp.engine.store.store import Store
from stephttp.engine.work import cancellations, events, idempotency, save
from stephttp.engine.work.checkpoints import Item, take
from stephttp.engine.work.due import claim
from stephttp.engine.work.keys import ScopedKey
from stephttp.engine.work.report import FurtherSteps, report
from stephttp.engine.work.settle import settle as apply_outcome
from stephttp.engine.work.start import FirstCheckpoint
from tests.examples import examples

START_MS = 1_800_000_000_000
RUNS = [f"01M81KWY2JTNRXZTV817ZB74{n:02}" for n in range(4)]
STEPS = ["a" * 40, "b" * 40, "c" * 40]


def op(code: OpCode, step_id: str, data: bytes = b"1") -> Op:
    match code:
        case OpCode.STEP_RUN | OpCode.RUN_COMPLETE:
            return Op(code, step_id, data=Raw(data))
        case OpCode.STEP_ERROR | OpCode.STEP_FAILED:
            return Op(code, step_id, error=ErrorInfo("E", "m"))
        case _:
            return Op(code, step_id, opts=OPTS[code])


OPTS: dict[OpCode, dict[str, Any]] = {
    OpCode.SLEEP: {"duration": "5s"},
    OpCode.WAIT_FOR_EVENT: {"event": "go", "if": "async.data.n == 1", "timeout": "9s"},
    OpCode.WAIT_FOR_SIGNAL: {"signal": "s", "conflict": "replace", "timeout": "9s"},
    OpCode.INVOKE_FUNCTION: {"function_id": "s", "payload": {}, "timeout": "9s"},
    OpCode.STEP_PLANNED: {},
    OpCode.GATEWAY: {"url": "http://api.test/"},
}
CODES = [OpCode.STEP_RUN, OpCode.STEP_ERROR, OpCode.STEP_FAILED, OpCode.RUN_COMPLETE, *OPTS]

ops = st.lists(
    st.builds(
        op,
        st.sampled_from(CODES),
        st.sampled_from(STEPS),
        st.sampled_from([b"1", b'"two"', b"[3]"]),
    ),
    max_size=4,
)
lease = st.sampled_from([None, 1_000, 30_000])


def opening(run_id: str, steps: list[Op], lease_ms: int | None) -> FirstCheckpoint:
    new = NewRun(
        run_id=run_id, app_id="", slug="s", digest=b"d", event_id="e", event_name="n",
        event_ts=0, fn="", domain="http://app", method="POST", path="/", query="", content_type="",
        ip="", sdk="", created_ms=START_MS, began_ms=START_MS, body=b"body",
        reads_state=True,
    )  # fmt: skip
    return FirstCheckpoint(new, Run(run_id, RunStatus.SYNC), steps, lease_ms)


items = st.one_of(
    st.builds(opening, st.sampled_from(RUNS), ops, lease),
    st.builds(FurtherSteps, st.sampled_from(RUNS), ops, lease),
)


@dataclass(frozen=True)
class Take:
    items: list[Item]


@dataclass(frozen=True)
class Report:
    run_id: str
    ops: list[Op]


@dataclass(frozen=True)
class Claim:
    key: str
    run_id: str


@dataclass(frozen=True)
class Due:
    """Time passes, and what is due is claimed."""

    ms: int


@dataclass(frozen=True)
class Settle:
    """The endpoint answers; `fails`: it did those steps, and then failed."""

    run_id: str
    ops: list[Op]
    fails: bool


@dataclass(frozen=True)
class Send:
    """Events are sent; a send that is repeated has the same numbers."""

    numbers: list[int]


@dataclass(frozen=True)
class Signal:
    name: str


@dataclass(frozen=True)
class Cancel:
    run_id: str


@dataclass(frozen=True)
class CancelAll:
    until_ms: int


@dataclass(frozen=True)
class Fetched:
    """The answer to an HTTP request that a step asked for."""

    run_id: str
    step_id: str


Action = Take | Report | Claim | Due | Settle | Send | Signal | Cancel | CancelAll | Fetched
runs = st.sampled_from(RUNS)
actions: st.SearchStrategy[Action] = st.one_of(
    st.builds(Take, st.lists(items, min_size=1, max_size=5)),
    st.builds(Report, runs, ops),
    st.builds(Claim, st.sampled_from("xy"), runs),
    st.builds(Due, st.integers(0, 40_000)),
    st.builds(Settle, runs, ops, st.booleans()),
    st.builds(Send, st.lists(st.integers(0, 3), min_size=1, max_size=3)),
    st.builds(Signal, st.sampled_from("st")),
    st.builds(Cancel, runs),
    st.builds(CancelAll, st.integers(-10, 10)),
    st.builds(Fetched, runs, st.sampled_from(STEPS)),
)
SETTINGS = Settings(run_deadline=60)


@dataclass
class Model:
    """What was acknowledged: it may only grow."""

    runs: set[str] = field(default_factory=set)
    ended: dict[str, str] = field(default_factory=dict)
    memos: dict[tuple[str, str], bytes] = field(default_factory=dict)
    keys: dict[bytes, str] = field(default_factory=dict)
    steps: set[tuple[str, str]] = field(default_factory=set)
    events: set[str] = field(default_factory=set)


Picture = dict[str, list[tuple[Any, ...]]]
TABLES = (
    "runs", "steps", "timers", "idempotency", "events", "endpoints", "cancellations",
)  # fmt: skip


def picture(connection: sqlite3.Connection) -> Picture:
    """Everything that the engine knows."""
    return {table: sorted(connection.execute(f"SELECT * FROM {table}"), key=repr)
            for table in TABLES}  # fmt: skip


def model(connection: sqlite3.Connection) -> Model:
    """The promises in a picture."""
    query = connection.execute
    return Model(
        {run_id for (run_id,) in query("SELECT run_id FROM runs")},
        dict(query("SELECT run_id, status FROM runs WHERE ended_ms IS NOT NULL")),
        {
            (run_id, step_id): memo
            for run_id, step_id, memo in query(
                "SELECT run_id, step_id, memo FROM steps WHERE memo IS NOT NULL"
            )
        },
        dict(query("SELECT key, run_id FROM idempotency")),
        set(query("SELECT run_id, step_id FROM steps")),
        {event_id for (event_id,) in query("SELECT event_id FROM events")},
    )


def check_promises(before: Model, after: Model) -> None:
    assert before.runs <= after.runs
    assert before.ended.items() <= after.ended.items()
    assert before.memos.items() <= after.memos.items(), "the first output wins, for ever"
    assert before.keys.items() <= after.keys.items()
    assert before.steps <= after.steps
    assert before.events <= after.events


def check_rules(connection: sqlite3.Connection) -> None:
    """The rules of the schema."""
    assert [*check.integrity(connection), *check.invariants(connection)] == []


class Crash:
    """Copies the files just before the n-th statement of what follows."""

    def __init__(self, source: Path, target: Path, statement: int) -> None:
        self.source = source
        self.target = target
        self.left = statement
        self.happened = False

    def __call__(self, statement: str) -> None:
        if self.left == 0 and not self.happened:
            self.happened = True
            for file in self.source.parent.glob(self.source.name + "*"):
                if not file.name.endswith("-shm"):  # its content is rebuilt from the log
                    shutil.copy(file, self.target.parent / file.name.replace("db", "copy", 1))
        self.left -= 1


def settle(
    connection: sqlite3.Connection, run_id: str, outcome: OpsAnswer | CallFailure, at: Moment
) -> None:
    """The endpoint answers; it is only called for runs that the engine drives, or did."""
    row = connection.execute("SELECT status FROM runs WHERE run_id = ?", (run_id,)).fetchone()
    if row is not None and row != ("sync",):
        due = DueCall(run_id, RESUME, load_timers(connection, run_id))
        (call,) = load_calls(connection, [due])
        apply_outcome(connection, call, outcome, at.now_ms, at)


async def carry_out(store: Store, action: Action, at: Moment) -> None:
    """One request to the engine; whatever it answers, it answers after its commit."""
    units: list[Any]
    match action:
        case Take(batch):
            units = [partial(take, items=batch, at=at)]
        case Report(run_id, steps):
            units = [partial(report, run_id=run_id, ops=steps, at=at)]
        case Claim(name, run_id):
            key = ScopedKey.of("app", name, "request")
            units = [partial(idempotency.claim, key=key, opening=opening(run_id, [], 1_000), at=at)]
        case Due():
            units = [
                partial(
                    claim,
                    at=at,
                    busy=(),
                    slots=Shares(9, {}),
                    gateway_slots=Shares(9, {}),
                    room=Gates().look(at.now_ms),
                    since_ms=0,
                )
            ]
        case Settle(run_id, steps, fails):
            failure = CallFailure(FailureKind.COUNTED, "E", "m", output=b"{}", steps=steps)
            outcome = failure if fails else OpsAnswer(steps, Hints())
            units = [partial(settle, run_id=run_id, outcome=outcome, at=at)]
        case Send(numbers):
            sent = [
                EventArrival(f"event-{n}", "go", f"mine-{n % 2}", at.now_ms, 0,
                      b'{"name":"go","data":{"n":%d}}' % n)
                for n in numbers
            ]  # fmt: skip
            units = [partial(events.receive, received=sent, at=at)]
        case Signal(name):
            units = [partial(events.signal, name=name, data=b"1", at=at)]
        case Cancel(run_id):
            units = [partial(save.cancel, run_id=run_id, at=at)]
        case CancelAll(until_ms):
            order = Cancellation(
                new_ulid(at.now_ms, at.rng), "http://app", "s", None, at.now_ms + until_ms,
                None, at.now_ms,
            )  # fmt: skip
            units = [partial(cancellations.create, cancellation=order, at=at)]
        case Fetched(run_id, step_id):
            memos = {step_id: b'{"data":1}'}
            units = [partial(save.deliver, run_id=run_id, memos=memos, at=at)]
    for unit in units:
        try:
            await store.write(unit)
        except Refused:
            pass


async def history(folder: Path, done: list[Action], last: Action, statement: int) -> None:
    path, copy = folder / "db", folder / "copy"
    now_ms = START_MS
    rng = Random(1)
    store = Store(str(path))
    await store.open()
    assert store._writer is not None
    # It is the process that dies here, not the machine.
    store._writer.connections[0].execute("PRAGMA synchronous = OFF")
    acknowledged = Model()
    for action in done:
        now_ms += action.ms if isinstance(action, Due) else 1
        await carry_out(store, action, Moment(now_ms, rng, SETTINGS))
        now = await store.read(model)
        check_promises(acknowledged, now)
        acknowledged = now
        await store.read(check_rules)
    before = await store.read(picture)
    crash = Crash(path, copy, statement)
    await store.write(lambda connection: connection.set_trace_callback(crash))
    now_ms += last.ms if isinstance(last, Due) else 1
    await carry_out(store, last, Moment(now_ms, rng, SETTINGS))
    await store.write(lambda connection: connection.set_trace_callback(None))
    after = await store.read(picture)
    await store.close()
    assert crash.happened
    next_life = Store(str(copy))
    await next_life.open()
    try:
        found = await next_life.read(picture)
        # All of what was in the making, or nothing of it. (That it is all of it only means that
        # the crash came after the commit.)
        assert found in (before, after)
        check_promises(acknowledged, await next_life.read(model))
        await next_life.read(check_rules)
        # And it goes on: what was not acknowledged is sent again.
        await carry_out(next_life, last, Moment(now_ms, rng, SETTINGS))
        await next_life.read(check_rules)
    finally:
        await next_life.close()


@settings(
    max_examples=examples(30, 600), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(st.lists(actions, max_size=8), actions, st.integers(0, 60))
def test_a_crash_between_any_two_statements_loses_nothing_that_was_acknowledged(
    done: list[Action], last: Action, statement: int
) -> None:
    with TemporaryDirectory() as folder:
        asyncio.run(bounded(Path(folder), done, last, statement))


async def bounded(folder: Path, done: list[Action], last: Action, statement: int) -> None:
    """With a statement that there is: the wish is taken modulo how many there are."""
    count = await statements(done, last)
    await history(folder, done, last, statement % count)


async def statements(done: list[Action], last: Action) -> int:
    """How many statements the last action runs, with the commits around it."""
    seen: list[str] = []
    store = Store(":memory:")
    await store.open()
    now_ms, rng = START_MS, Random(1)
    for action in done:
        now_ms += action.ms if isinstance(action, Due) else 1
        await carry_out(store, action, Moment(now_ms, rng, SETTINGS))
    await store.write(lambda connection: connection.set_trace_callback(seen.append))
    now_ms += last.ms if isinstance(last, Due) else 1
    await carry_out(store, last, Moment(now_ms, rng, SETTINGS))
    await store.write(lambda connection: connection.set_trace_callback(None))
    await store.close()
    return len(seen)


def test_the_rules_notice_what_is_wrong(tmp_path: Path) -> None:
    async def broken(statement: str) -> None:
        store = Store(":memory:")
        await store.open()
        try:
            at = Moment(START_MS, Random(1), SETTINGS)
            sleep = [op(OpCode.SLEEP, STEPS[0])]
            await carry_out(store, Take([opening(RUNS[0], sleep, None)]), at)
            await store.read(check_rules)
            await store.write(lambda connection: connection.execute(statement).close())
            await store.read(check_rules)
        finally:
            await store.close()

    for statement in (
        "DELETE FROM timers",
        "UPDATE runs SET status = 'completed'",
        "DELETE FROM runs",
        "DELETE FROM steps",
        "UPDATE timers SET kind = 'lease'",
    ):
        try:
            asyncio.run(broken(statement))
        except AssertionError:
            continue
        raise RuntimeError(f"{statement!r} went unnoticed")
