"""The run of `unit()`: what comes of its waits and failures."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import httpx2
import msgspec
from msgspec import Raw
from msgspec.structs import replace

from stephttp._client.background import TimerHandle
from stephttp._client.flow import Flow, T
from stephttp._core.run import Run
from stephttp._core.step_kinds import KINDS
from stephttp._core.steps import EXECUTE, MEMOIZED, Step
from stephttp._core.tool_types import FetchResponse
from stephttp._core.waits import Wait
from stephttp._run.runtime import Runtime
from stephttp._run.scope import RunScope
from stephttp._wire.durations import parse_duration
from stephttp._wire.opcodes import GATEWAY_OPS, OpCode
from stephttp._wire.stored_state import Memo, MemoKind
from stephttp.errors import UsageError
from stephttp.testing.recorded_calls import RecordedCall
from stephttp.testing.stubs import Stub, Stubs

if TYPE_CHECKING:
    from stephttp.testing.unit_runs import Unit

_SHOWN = {
    OpCode.SLEEP: "duration",
    OpCode.WAIT_FOR_EVENT: "event",
    OpCode.WAIT_FOR_SIGNAL: "signal",
    OpCode.INVOKE_FUNCTION: "function_id",
    OpCode.GATEWAY: "url",
    OpCode.AI_GATEWAY: "url",
}
"""The option of a wait that its recorded call has as argument."""


class UnitScope(RunScope):
    """A run whose waits end at once. See `RunScope`.

    Args:
        unit: says what comes of them.
    """

    def __init__(self, runtime: Runtime, run: Run, unit: Unit) -> None:
        super().__init__(runtime, run)
        self._unit = unit
        run.refuse_waits("there is no engine in unit()")

    def begin(self, step_id: str, retries: int | None) -> Step:
        """Come to a step that runs in this process."""
        step = super().begin(step_id, retries)
        # A step that calls a function says so when it does; see `RecordingStubs`.
        self._unit.steps.append(RecordedCall(step.step_id, (), {}, "send_event"))
        return step

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
        shown = wait.opts[_SHOWN[wait.op]]
        call = RecordedCall(wait.step_id, (shown,), {}, KINDS[wait.op])
        unit.steps.append(call)
        if wait.op is OpCode.SLEEP:
            unit.now = max(unit.now, _end_of(shown, unit.now))
            return None
        stub = unit._stubs.of(wait.step_id, None)
        try:
            call.result = self._played(stub, wait, shown)
        except BaseException as error:
            call.error = error
            raise
        return _on_the_wire(call.result, wait)

    def _played(self, stub: Stub | None, wait: Wait, shown: Any) -> Any:
        tool = KINDS[wait.op]
        if stub is not None:
            return stub.in_place_of(_nothing, wait.step_id, tool)(shown)
        if wait.op in GATEWAY_OPS:
            return _fetched(self._unit._stubs, wait)
        raise AssertionError(
            f"step {wait.step_id!r} waits ({tool} {shown!r}), and no stub says what comes of it; "
            f"add unit.stub({wait.step_id!r}, ...), with None for the timeout"
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


class _Never:
    def cancel(self) -> None:
        pass


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
