"""Handlers and helpers with steps, without an application, an engine, or middleware.

The steps belong to a real run in its first call, so results are stored and converted as ever. Only
what would wait for the server ends at once.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx2
import msgspec
from msgspec import Raw
from msgspec.structs import replace

from stephttp._client.background import TimerHandle
from stephttp._client.flow import Flow, T
from stephttp._core.run import Run
from stephttp._core.steps import EXECUTE, MEMOIZED, Step
from stephttp._core.tool_types import FetchResponse
from stephttp._core.waits import Wait
from stephttp._run.current import CurrentCall, current_call
from stephttp._run.runtime import Runtime
from stephttp._run.scope import RunScope
from stephttp._wire.durations import parse_duration
from stephttp._wire.ids import random_ulid
from stephttp._wire.opcodes import OpCode
from stephttp._wire.stored_state import Memo, MemoKind
from stephttp.errors import UsageError
from stephttp.options import resolve
from stephttp.testing.recorded import RecordedEvent
from stephttp.testing.stand_ins import stand_ins
from stephttp.testing.stubs import RecordedCall, Stub, Stubbing, Stubs

_ORIGIN = "http://unit.stephttp.test"
_WHAT = {
    OpCode.WAIT_FOR_EVENT: ("wait_for_event", "event"),
    OpCode.WAIT_FOR_SIGNAL: ("wait_for_signal", "signal"),
    OpCode.INVOKE_FUNCTION: ("invoke", "function_id"),
    OpCode.GATEWAY: ("fetch", "url"),
    OpCode.AI_GATEWAY: ("ai.infer", "url"),
}


class Unit(Stubbing):
    """What happens in a `unit` block: its steps, events and clock.

    Attributes:
        steps: what the steps did, in the order in which they were met.
        events: the events that were sent, in order.
        now: what the clock of the steps shows; sleeps move it.
    """

    def __init__(self, start: datetime) -> None:
        self._stubs: Stubs = _Watching(self)
        self.steps: list[RecordedCall] = []
        self.events: list[RecordedEvent] = []
        self.now = start

    @property
    def step_ids(self) -> list[str]:
        """The ids of the steps, in the order in which they were met."""
        return [step.step for step in self.steps]

    def step(self, step_id: str) -> RecordedCall:
        """Return the last use of a step.

        Args:
            step_id: its id.

        Raises:
            LookupError: it was not used; the message lists those that were.
        """
        for step in reversed(self.steps):
            if step.step == step_id:
                return step
        known = ", ".join(map(repr, self.step_ids)) or "(no step)"
        raise LookupError(f"no step {step_id!r} was used, only: {known}")


@contextmanager
def unit(*, start: datetime | None = None) -> Generator[Unit]:
    """Let handlers and helpers with steps run as plain functions, async or not.

    Inside the block, steps run at once, sleeps only move a clock, and waits get what `stub` says
    for the id of their step: the data of an event or signal, the result of a function, or `None`
    for the timeout. A step that fails is not tried again: its exception is raised.

    Args:
        start: the first time that the clock shows; `None`: the present.

    Returns:
        What the steps do is recorded in it; it also makes the stubs.

    Raises:
        AssertionError: a step waits for something that no stub gives.
        UsageError: inside the block of another one, or in a request.
    """
    if current_call.get() is not None:
        raise UsageError("unit() cannot be used inside of another one, or in a request")
    made = Unit(datetime.now(UTC) if start is None else start)
    transport = httpx2.MockTransport(lambda request: _take_events(made, request))
    runtime = Runtime(
        resolve(_ORIGIN, base_url=_ORIGIN, environ={"INNGEST_DEV": "1"}),
        transport=transport,
        sync_transport=transport,
        now_ns=lambda: round(made.now.timestamp() * 1_000_000) * 1_000,
        rng=random.Random(1),
    )
    call = _Call(runtime)
    scope = UnitScope(runtime, Run(call.run_id), made)
    token = current_call.set(CurrentCall(call, _no_scope, None, scope))
    try:
        with stand_ins([runtime], made._stubs):
            yield made
    finally:
        current_call.reset(token)
        scope.close(None)
        runtime.close(0)
    for problem in made._stubs.problems:
        raise problem


class UnitScope(RunScope):
    """A run whose waits end at once. See `RunScope`.

    Args:
        unit: says what comes of them.
    """

    def __init__(self, runtime: Runtime, run: Run, unit: Unit) -> None:
        super().__init__(runtime, run)
        self._unit = unit
        run.refuse_waits("there is no engine in unit()")

    def wait(self, wait: Wait) -> Step:
        """Come to a step that a server would carry out, and say what comes of it."""
        branch = self.come_to(wait.step_id)
        with self.lock:
            step = self.run.resolve(wait.step_id, None, branch, wait.op)
        if step.verdict is not EXECUTE:
            return step
        raw = Raw(msgspec.json.encode(self._come(wait)))
        return replace(step, verdict=MEMOIZED, memo=Memo(MemoKind.VALUE, raw))

    def _come(self, wait: Wait) -> Any:
        unit = self._unit
        if wait.op is OpCode.SLEEP:
            call = RecordedCall(wait.step_id, (wait.opts["duration"],), {}, "sleep")
            unit.steps.append(call)
            unit.now = max(unit.now, _end_of(wait.opts["duration"], unit.now))
            return None
        tool, key = _WHAT[wait.op]
        call = RecordedCall(wait.step_id, (wait.opts[key],), {}, tool)
        unit.steps.append(call)
        stub = unit._stubs.of(wait.step_id, None)
        try:
            call.result = self._played(stub, wait, key)
        except BaseException as error:
            call.error = error
            raise
        return _on_the_wire(call.result, wait)

    def _played(self, stub: Stub | None, wait: Wait, key: str) -> Any:
        if stub is not None:
            return stub.in_place_of(_nothing, wait.step_id, _WHAT[wait.op][0])(wait.opts[key])
        if wait.op in (OpCode.GATEWAY, OpCode.AI_GATEWAY):
            return _fetched(self._unit._stubs, wait)
        tool, _ = _WHAT[wait.op]
        raise AssertionError(
            f"step {wait.step_id!r} waits ({tool} {wait.opts[key]!r}), and no stub says what comes "
            f"of it; add unit.stub({wait.step_id!r}, ...), with None for the timeout"
        )

    def dispatch(self, callback: Callable[[], None]) -> None:
        """Call `callback` now."""
        callback()

    def later(self, seconds: float, call: Callable[[], None]) -> TimerHandle:
        """Forget a call that is due later: there is no server to report to."""
        return _Never()

    async def drive(self, flow: Flow[T]) -> T:
        """Carry out a flow of the API."""
        return await self.runtime.drive(flow)

    def block(self, flow: Flow[T]) -> T:
        """Carry out a flow of the API while this thread waits."""
        return self.runtime.drive_sync(flow)

    async def suspend(self, step: Step | None = None) -> None:
        """Refuse to wait: nothing would continue the handler.

        Raises:
            UsageError: always.
        """
        raise UsageError("a step had to wait for a server, and unit() has no server")

    def turn(self, step: Step, function: Callable[..., Any] | None) -> Awaitable[None] | None:
        """Return what to wait for before a remembered step is given back: nothing."""
        return None

    async def come_after(self, step: Step, *, ended: bool) -> None:
        """Let the end of a step come after those beside it: no later call has to know."""

    async def park(self, step: Step) -> None:
        """Wait where the handler cut a step off before: there is no call before."""

    def unwind_when_stuck(self) -> None:
        """End the handler if none of its steps can progress: all of them do."""


class _Watching(Stubs):
    """Stubs that also note every step."""

    def __init__(self, unit: Unit) -> None:
        super().__init__()
        self._unit = unit

    def replace(
        self, step_id: str, function: Callable[..., Any], tool: str = "run"
    ) -> Callable[..., Any]:
        watched = super().replace(step_id, function, tool)
        spy = Stub(step_id, lambda inner, args, kwargs: inner(*args, **kwargs))
        spy.calls = self._unit.steps
        return spy.in_place_of(watched, step_id, tool)


class _Call:
    """The request that the steps of a unit belong to."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.started_ns = runtime.now_ns()
        self.run_id = random_ulid(self.started_ns // 1_000_000, bytes(16))
        self.identity: tuple[Any, ...] = (self,)
        self.surroundings: Mapping[str, Any] = {}
        self.attempt = 0

    def run_made(self, scope: RunScope) -> None:
        """Prepare the scope of a run that was just made: it is prepared."""


class _Never:
    def cancel(self) -> None:
        pass


def _no_scope(runtime: Runtime, run: Run, context: Any, started_ns: int | None) -> RunScope:
    raise AssertionError("a unit has its run from the start")


def _nothing(what: Any) -> None:
    """Stand for what the server does."""


def _end_of(text: str, now: datetime) -> datetime:
    """Return when a sleep ends, from its duration or its time."""
    try:
        return now + parse_duration(text)
    except ValueError:
        return datetime.fromisoformat(text)


def _on_the_wire(value: Any, wait: Wait) -> Any:
    """Return what the stub gives in the form in which a server would send it."""
    if value is None:
        return None
    if wait.op is OpCode.WAIT_FOR_EVENT and not _has(value, "name"):
        return {"name": wait.opts["event"], "data": value, "id": "", "ts": 0}
    if wait.op is OpCode.WAIT_FOR_SIGNAL and not _has(value, "signal"):
        return {"signal": wait.opts["signal"], "data": value}
    return value


def _has(value: Any, attribute: str) -> bool:
    return isinstance(value, msgspec.Struct) and hasattr(value, attribute)


def _fetched(stubs: Stubs, wait: Wait) -> Any:
    opts = wait.opts
    body = opts.get("body") or b""
    request = httpx2.Request(
        "POST" if wait.op is OpCode.AI_GATEWAY else opts.get("method", "GET"),
        opts["url"], headers=opts.get("headers") or {},
        content=bytes(body) if isinstance(body, Raw) else body,
    )  # fmt: skip
    response = stubs.respond(request)
    if wait.op is OpCode.AI_GATEWAY:
        return response.json()
    return FetchResponse(
        url=opts["url"], status_code=response.status_code,
        headers=dict(response.headers), body=response.text,
    )  # fmt: skip


def _take_events(unit: Unit, request: httpx2.Request) -> httpx2.Response:
    """Take the events that a step sends."""
    if not request.url.path.startswith("/e/"):
        return httpx2.Response(404, request=request)
    sent = msgspec.json.decode(request.content)
    events = sent if isinstance(sent, list) else [sent]
    for event in events:
        unit.events.append(
            RecordedEvent(event["name"], event.get("data") or {}, event.get("id") or "", unit.now)
        )
    ids = [f"event-{len(unit.events) - len(events) + number}" for number in range(len(events))]
    return httpx2.Response(200, json={"ids": ids, "status": 200}, request=request)
