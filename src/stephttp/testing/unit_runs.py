"""`unit()`: handlers and helpers with steps, without an application, an engine, or middleware.

The steps belong to a real run in its first call, so results are stored and converted as ever. Only
what would wait for the server ends at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx2
import msgspec

from stephttp._core.run import Run
from stephttp._run.current import CurrentCall, current_call
from stephttp._run.runtime import Runtime
from stephttp._run.scope import RunScope
from stephttp._wire.ids import random_ulid
from stephttp.errors import UsageError
from stephttp.options import resolve
from stephttp.testing.problems import add_problems, raise_problems
from stephttp.testing.recorded import RecordedEvent
from stephttp.testing.recorded_calls import RecordedCall, recording
from stephttp.testing.stand_ins import stand_ins
from stephttp.testing.stubbing import Stubbing
from stephttp.testing.stubs import Stubs
from stephttp.testing.tracebacks import end_in_users_code
from stephttp.testing.unit_scope import UnitScope

_ORIGIN = "http://unit.stephttp.test"


class Unit(Stubbing):
    """What happens in a `unit` block: its steps, events and clock.

    Attributes:
        steps: what the steps did, in the order in which they were met.
        events: the events that were sent, in order.
        now: what the clock of the steps shows; sleeps move it.
    """

    def __init__(self, start: datetime) -> None:
        self._stubs: Stubs = RecordingStubs(self)
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
        AssertionError: a step waits for something that no stub gives, or a stub was not used.
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
            made._stubs.check_used()
    except BaseException as error:
        add_problems(error, made._stubs.taken_problems())
        end_in_users_code(error)
        raise
    finally:
        current_call.reset(token)
        scope.close(None)
        runtime.close(0)
    raise_problems(made._stubs.taken_problems())


class RecordingStubs(Stubs):
    """Stubs that also note what every step does."""

    give_waits = True

    def __init__(self, unit: Unit) -> None:
        super().__init__()
        self._unit = unit

    def replace(
        self, step_id: str, function: Callable[..., Any], tool: str = "run"
    ) -> Callable[..., Any]:
        """Return what a step calls."""
        call = self._unit.step(step_id)
        call.tool = tool
        return recording(super().replace(step_id, function, tool), call)


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


def _no_scope(runtime: Runtime, run: Run, context: Any, started_ns: int | None) -> RunScope:
    raise AssertionError("a unit has its run from the start")


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
