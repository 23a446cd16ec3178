"""`Middleware`: your own code around runs and steps; see its methods, and docs/middleware.md.

Names are those of Inngest's Python SDK where the meaning is the same. `_run.hooks` makes the calls.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from msgspec import Struct, field

from stephttp._core.run import Run
from stephttp._core.tool_types import Event
from stephttp._wire.http import Request, Response
from stephttp._wire.opcodes import OpCode
from stephttp.errors import StepError

__all__ = [
    "CallEnd",
    "Middleware",
    "MiddlewareFactory",
    "RunContext",
    "SendEventsResult",
    "StepEnd",
    "StepInfo",
    "StepMemo",
    "TransformOutputResult",
]

MISSING: Any = object()
"""Stands for the output of a step that has none."""


class RunContext:
    """The run that a middleware belongs to, in one call of its handler.

    Attributes:
        request: what the handler is called with. The body of a first call is not there yet.
        request_id: the server's id of this call; empty in the first call.
        attempt: how many calls for the same purpose failed before this one.
        started_ns: when this call started, nanoseconds since the epoch.
        now_ns: the clock.
    """

    __slots__ = ("_run", "attempt", "now_ns", "request", "request_id", "started_ns")

    def __init__(
        self,
        run: Run,
        request: Request,
        now_ns: Callable[[], int],
        started_ns: int,
        request_id: str = "",
        attempt: int = 0,
    ) -> None:
        self._run = run
        self.request = request
        self.now_ns = now_ns
        self.started_ns = started_ns
        self.request_id = request_id
        self.attempt = attempt

    @property
    def run_id(self) -> str:
        """The run's ULID."""
        return self._run.run_id

    @property
    def fn_id(self) -> str:
        """The endpoint's id; without one, method and route, once the first call has ended."""
        return self._run.opts.id or self.request.endpoint

    @property
    def resumed(self) -> bool:
        """True if this is a re-entry: a call of the server that continues a run."""
        return self._run.resumed

    @property
    def replaying(self) -> bool:
        """True if the handler still passes over what it did in earlier calls."""
        return self._run.replaying

    @property
    def used(self) -> bool:
        """True if the handler has met a step, or is recorded anyway."""
        return self._run.used

    @property
    def suspended(self) -> bool:
        """True if a step has to wait, so that the run continues in a later call."""
        return self._run.suspended

    @property
    def carried(self) -> dict[str, str]:
        """Texts that later calls of this run find here again.

        They are stored with the run, readable by the server, when it goes async. Only what the
        first call puts here before that is kept.
        """
        if self._run.carried is None:
            self._run.carry({})
        assert self._run.carried is not None
        return self._run.carried


class StepInfo(Struct):
    """One attempt at a step.

    Attributes:
        id: as the handler wrote it.
        index: how often the same id was used before in this run.
        hash: stands for id and index on the wire, and names the step in `transform_input`.
        op: `OpCode.STEP_RUN` for what runs in this process; anything else is asked of the server.
        attempt: how often the step failed before, as far as the server says: a plain Inngest
            server counts calls, not steps.
        opts: what is asked of the server, as plain JSON; `transform_output` may change it.
    """

    id: str
    index: int
    hash: str
    op: OpCode
    attempt: int = 0
    opts: dict[str, Any] | None = None


class StepEnd(Struct, frozen=True):
    """How an attempt at a step ended.

    Attributes:
        error: what it raised; `None` if it succeeded, or was asked of the server.
        retried: whether it will be tried again in a later call.
    """

    error: BaseException | None = None
    retried: bool = False


class CallEnd(Struct, frozen=True):
    """How a call of the handler ended.

    Attributes:
        response: what was answered, as far as it is known: of a live response status and headers.
        error: what the handler raised; `None` too when it was suspended.
        run_ended: whether the run is over. It is not when it waits for something, nor when the
            server will call again because the handler failed.
    """

    response: Response | None
    error: BaseException | None
    run_ended: bool


class StepMemo(Struct):
    """A step as the server remembers it.

    Attributes:
        data: its result as plain JSON; may be replaced.
        error: its failure, if it failed; `data` is `None` then.
    """

    data: Any = None
    error: StepError | None = None


class TransformOutputResult(Struct):
    """The output that a step is about to send to the server.

    Attributes:
        output: the result as plain JSON; may be replaced. Steps that the server carries out have
            none.
        step: which. Its `opts` may be changed.
    """

    output: Any
    step: StepInfo

    def has_output(self) -> bool:
        """Return whether there is a result."""
        return self.output is not MISSING


class SendEventsResult(Struct):
    """The outcome of sending events.

    Attributes:
        ids: the server's id of each.
        error: why they could not be sent.
    """

    ids: list[str] = field(default_factory=list)
    error: Exception | None = None


Maybe = Awaitable[None] | None
"""Methods may be `async def` or `def`."""


class Middleware:
    """Base class of middleware: each method does nothing. Give the class, or a function that
    makes an instance from a `RunContext`, to `setup(middleware=[...])`.

    There is one instance for each call of a handler. Methods may be `async def` or `def`. Plain
    ones are called where the handler runs: on the event loop for `async def` handlers, where they
    must not block, and in the handler's thread for others. `async def` ones run on the event loop
    while a blocking tool waits for them; what they set in context variables the handler does not
    see then.

    `before_…` and `transform_input` are called in the order of the list, the others in reverse.
    What `before_…` and `transform_…` raise fails the step or the call that they are about. For
    `before_response`, `after_…` and `on_error` it is too late for that: what they raise is logged.

    Args:
        ctx: the run, and this call of its handler.
    """

    def __init__(self, ctx: RunContext) -> None:
        self.ctx = ctx

    def before_call(self) -> Maybe:
        """The handler is about to be called, for a new run or a resumed one."""

    def transform_input(self, steps: Mapping[str, StepMemo]) -> Maybe:
        """Change what the handler gets from finished steps; the reverse of `transform_output`.

        Args:
            steps: all that the server remembers, by step hash. Empty in the first call.
        """

    def before_execution(self) -> Maybe:
        """New code is about to run, now that finished steps are passed. At most once a call."""

    def before_step(self, step: StepInfo) -> Maybe:
        """A step is about to run, or to be asked of the server. Not called for finished steps.

        Args:
            step: which.
        """

    def transform_output(self, result: TransformOutputResult) -> Maybe:
        """Change what of a step goes to the server: its result, or what is asked for.

        The handler gets the result as the step returned it, so `transform_input` has to restore
        that. A step that failed has no output.

        Args:
            result: what is about to be sent; to be changed in place.
        """

    def after_step(self, step: StepInfo, end: StepEnd) -> Maybe:
        """An attempt at a step has ended, or the server will be asked.

        Args:
            step: which.
            end: how.
        """

    def before_send_events(self, events: list[Event]) -> Maybe:
        """`step.send_event` is about to send events.

        Args:
            events: they may be changed.
        """

    def after_send_events(self, result: SendEventsResult) -> Maybe:
        """Events were sent, or could not be.

        Args:
            result: what became of them.
        """

    def on_error(self, error: Exception, step: StepInfo | None) -> Maybe:
        """Something failed.

        Args:
            error: what was raised.
            step: the step that raised it; `None` when the handler did. The handler may do so
                because a step did: then both are reported.
        """

    def after_execution(self) -> Maybe:
        """The handler has ended in this call: it returned, raised, or was suspended."""

    def before_response(self, response: Response) -> Maybe:
        """An answer is about to be sent: the handler's own, or that of a request that waits.

        Args:
            response: may be changed. One that is sent while the handler runs has no body here.
        """

    def after_call(self, end: CallEnd) -> Maybe:
        """This call of the handler is over. Called last.

        Args:
            end: how it ended.
        """


MiddlewareFactory = Callable[[RunContext], Middleware]
