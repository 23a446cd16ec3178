"""A run of a function of PyPI `inngest` in one call of it, as the step tools see it: where steps
may start, what they are called, what the function gets of them, and what is refused.

The server calls a function once for each step, and the step ends the call. So a step must not begin
in a task or thread of its own (`asyncio.gather`): the call would end while its siblings are at
work, and they would run again. That is refused before anything begins, and so are ids that stand in
two branches of one group, because that SDK tells uses of an id apart by their order.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any, NoReturn

import inngest
import msgspec
from inngest._internal import execution_lib, server_lib, step_lib, types

from stephttp._core.conversion import CONVERSIONS, PLAIN
from stephttp._core.encoding import decode_plain, decode_result, encode_argument
from stephttp._core.step_options import StepOptions
from stephttp._core.steps import plain_id, user_hash
from stephttp._core.tool_types import Event
from stephttp._core.waits import Wait
from stephttp._wire import ids
from stephttp._wire.json import encode_struct
from stephttp.errors import NestedStepError, UsageError
from stephttp.integrations._inngest_errors import remembered

_INSTEAD = {
    "fetch": "make the request in step.run",
    "wait_for_signal": "wait for an event with step.wait_for_event",
    "race": "use step.wait_for_event with a timeout, or a durable endpoint",
    "first": "catch the failures in the function, or use a durable endpoint",
}
_OPS = frozenset(one.value for one in server_lib.Opcode)


class FunctionRun:
    """A run of a function, in one call of it: what async and plain functions have in common.

    Args:
        client: of the function.
        ctx: of the call.
    """

    blocking: bool

    def __init__(self, client: inngest.Inngest, ctx: inngest.Context | inngest.ContextSync) -> None:
        self._client = client
        self._ctx = ctx
        self.attempt = ctx.attempt
        # What the server says of the call, and how often an id was used: both are not public.
        self.max_attempts = ctx.step._execution._request.ctx.max_attempts
        self._uses = ctx.step._step_id_counter
        self.later: inngest.RetryAfterError | None = None
        """What a failed step wants for its next attempt."""
        self._groups: list[BranchIds] = []

    def is_of(self, ctx: inngest.Context | inngest.ContextSync) -> bool:
        """Return whether this is the run of a call."""
        return self._ctx is ctx

    @property
    def ended(self) -> bool:
        """Whether this call of the function is over. The threads of a pool may remember it."""
        try:
            return execution_lib.get_step_context() is not self._ctx.step
        except LookupError:
            return True

    def inside(self, step_id: str) -> InsideStep:
        """Return this run as the body of a step sees it. To be called before the step begins."""
        return InsideStep(self, step_id)

    def idempotency_key(self) -> str:
        raise UsageError(
            "stephttp.idempotency_key was called outside a step; call it in the function that you "
            "give to step.run"
        )

    def step_hash(self, step_id: str) -> str:
        """Return the hash of the latest use of an id."""
        return user_hash(step_id, self._used(step_id) - 1)

    def begin_race(self, tool: str, step_id: str) -> None:
        self.refuse(f"step.{tool}", _INSTEAD[tool])

    def refuse(self, tool: str, instead: str) -> NoReturn:
        raise UsageError(
            f"{tool} does not exist in functions of PyPI inngest, whose SDK has no such step; "
            f"{instead}"
        )

    def come_to(self, step_id: str) -> str:
        """Check that a step may begin here. Returns its id, as plain text.

        Raises:
            UsageError: it is in a task or thread of its own, or its id stands in another branch.
            TypeError, ValueError: it cannot be an id.
        """
        if not self._is_at_home():
            raise UsageError(
                f"step {step_id!r} was called in a task or thread of its own (asyncio.gather, "
                "TaskGroup, create_task, to_thread); a step ends the call of a function of PyPI "
                "inngest, so the others would be cut off and run twice; run them side by side with "
                "step.parallel"
            )
        step_id = plain_id(step_id)
        user_hash(step_id, 0)
        for group in self._groups:
            group.claim(step_id)
        return step_id

    def outgoing(self, step_id: str, events: list[Event]) -> list[inngest.Event]:
        """Return events as Inngest's SDK sends them. Those without an id get one that stays the
        same when the step is tried again."""
        used = user_hash(step_id, self._used(step_id))
        return [
            inngest.Event(
                name=event.name,
                data=decode_plain(
                    encode_argument(event.data, step_id, f"events[{index}].data", None)
                ),
                id=event.id or f"{self._ctx.run_id}-{used[:12]}-{index}",
                ts=event.ts,
            )
            for index, event in enumerate(events)
        ]

    def requested(self, tool: str, wait: Wait) -> step_lib.StepInfo:
        """Return a step that the server carries out, as Inngest's SDK reports it.

        Raises:
            UsageError: that SDK does not have it, or not with options.
        """
        if wait.op.value not in _OPS:
            self.refuse(f"step.{tool}", _INSTEAD[tool])
        if wait.policy is not None:
            self.refuse(f"step.options(...).{tool}", f"use step.{tool} without options")
        step_id = self.come_to(wait.step_id)
        parsed = self._ctx.step._parse_step_id(step_id)
        return step_lib.StepInfo(
            display_name=step_id,
            id=parsed.hashed,
            name=wait.name,
            op=server_lib.Opcode(wait.op.value),
            opts=decode_plain(encode_struct(wait.opts)),
            userland=parsed.userland_info(),
        )

    def answer(
        self,
        wait: Wait,
        reported: execution_lib.ReportedStep | execution_lib.models.ReportedStepSync,
    ) -> Any:
        """Return what the function gets of a step that the server has carried out.

        Raises:
            StepError: it failed.
        """
        if reported.error is not None:
            raise remembered(reported.error)
        assert reported.output is not types.empty_sentinel, "what is not known ends the call"
        conversion = PLAIN if wait.result is Any else CONVERSIONS.of(wait.result)
        raw = msgspec.json.encode(reported.output)
        value = decode_result(raw, conversion, wait.step_id)
        return value if wait.convert is None else wait.convert(value)

    @contextmanager
    def group(self) -> Generator[BranchIds]:
        """Come to branches side by side."""
        self._groups.append(BranchIds())
        try:
            yield self._groups[-1]
        finally:
            self._groups.pop()

    def _used(self, step_id: str) -> int:
        return self._uses._counts.get(step_id, 0)

    def _is_at_home(self) -> bool:
        raise NotImplementedError


class BranchIds:
    """The branches of one `step.parallel`, which come to their steps one after the other."""

    def __init__(self) -> None:
        self.branch = 0
        """The one that is looked at."""
        self._owners: dict[str, int] = {}

    def claim(self, step_id: str) -> None:
        """Note that the present branch uses an id.

        Raises:
            UsageError: another one does.
        """
        owner = self._owners.setdefault(step_id, self.branch)
        if owner != self.branch:
            raise UsageError(
                f"step {step_id!r} is in branches {owner} and {self.branch} of step.parallel; in a "
                "function of PyPI inngest each step of a branch needs an id of its own, such as "
                f"f'{step_id}-{{number}}'"
            )


class InsideStep:
    """A run as the body of one of its steps sees it: a step inside of a step is an error.

    Args:
        run: the run.
        step_id: of the step.
    """

    def __init__(self, run: FunctionRun, step_id: str) -> None:
        self._run = run
        self._step_id = step_id
        self._hash = run.step_hash(step_id)
        self.blocking = run.blocking
        self.refuse = run.refuse

    @property
    def ended(self) -> bool:
        """Whether this call of the function is over."""
        return self._run.ended

    def idempotency_key(self) -> str:
        return ids.idempotency_key(self._run._ctx.run_id, self._hash)

    def run(
        self,
        options: StepOptions,
        step_id: str,
        handler: Callable[..., Any],
        args: Any,
        kwargs: Any,
    ) -> Any:
        self._refuse_step(step_id)

    def send_event(self, step_id: str, events: list[Event]) -> Any:
        self._refuse_step(step_id)

    def request(self, tool: str, wait: Wait) -> Any:
        self._refuse_step(wait.step_id)

    def parallel(self, callables: Iterable[Callable[[], Any]]) -> Any:
        raise NestedStepError(
            f"step.parallel was called inside the body of step {self._step_id!r}; call it before "
            "or after"
        )

    def begin_race(self, tool: str, step_id: str) -> None:
        self._refuse_step(step_id)

    def _refuse_step(self, step_id: str) -> NoReturn:
        raise NestedStepError(
            f"step {step_id!r} was called inside the body of step {self._step_id!r}; "
            "call it before or after, or call the plain function"
        )
