"""One step of a run, from the tool that comes to it to what the handler gets: remembered,
executed, retried, or waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context, copy_context
from types import CoroutineType, TracebackType
from typing import TYPE_CHECKING, Any

from stephttp._core.annotations import conversion_of, decode_arguments
from stephttp._core.conversion import CONVERSIONS, PLAIN, Conversion
from stephttp._core.encoding import (
    choose_types,
    decode_result,
    encode_input,
    encode_result,
    refuse_result,
    result_conversion,
)
from stephttp._core.failures import failed_attempt, step_error
from stephttp._core.retry_policy import merged
from stephttp._core.step_options import StepOptions
from stephttp._core.steps import CUT, EXECUTE, SUSPEND, Step
from stephttp._core.tool_types import Event
from stephttp._core.waits import Wait
from stephttp._run import cut_steps
from stephttp._run.branches import suspension
from stephttp._run.own_context import InContext
from stephttp._run.places import here
from stephttp._run.scope import RunScope
from stephttp._run.sending_events import send_events
from stephttp._wire.opcodes import ErrorInfo
from stephttp.errors import StepError, Suspended

if TYPE_CHECKING:
    from stephttp._client.flow import Flow

ENDED = object()
# To look these up each time takes more instructions.
_set_here = here.set
_run_in = Context.run
_send = CoroutineType.send


class StepCall:
    """One step in one call of the handler; entered as a context manager, an attempt to execute it.

    Args:
        scope: of its run.
        step: what the run says of it.
        conversion: into the type of its result.
        convert: makes what the handler gets out of the decoded result.
        options: of a step that runs in this process.
    """

    __slots__ = (
        "_conversion", "_convert", "_kept", "_options", "_opts", "_raw", "_value", "before",
        "executes", "returned", "scope", "started_ns", "step", "suspended",
    )  # fmt: skip

    @classmethod
    def begin(
        cls, scope: RunScope, step_id: str, handler: Callable[..., Any], options: StepOptions
    ) -> StepCall:
        """Come to a step that runs in this process."""
        if not callable(handler):
            raise TypeError(
                f"step {step_id!r}: its function must be one, not {handler!r}; give the function "
                "itself and its arguments, as in step.run('charge', charge_card, order)"
            )
        type_ = options.output_type
        if type_ is Any:
            conversion = result_conversion(handler)
        else:
            conversion = conversion_of(type_, f"step {step_id!r}")
        # Before the step starts: one that has started, and then cannot run, would be waited for.
        if conversion.refusal:
            refuse_result(conversion, step_id)
        return cls(scope, scope.begin(step_id, options.retries), conversion, None, options)

    @classmethod
    def wait(cls, scope: RunScope, wait: Wait) -> StepCall:
        """Come to a step that the server carries out."""
        conversion = PLAIN if wait.result is Any else CONVERSIONS.of(wait.result)
        return cls(scope, scope.wait(wait), conversion, wait.convert)

    def __init__(
        self,
        scope: RunScope,
        step: Step,
        conversion: Conversion,
        convert: Callable[[Any], Any] | None = None,
        options: StepOptions | None = None,
    ) -> None:
        self.scope = scope
        self.step = step
        self._conversion = conversion
        self._convert = convert
        self._options = options
        self._opts: dict[str, Any] | None = None
        self._raw: bytes | None = None
        self._kept: bytes | None = None
        self.returned: Any
        """What an async body has returned that never waited; see `start`."""
        self.before: Any
        """What `RunScope.step_watch` saw before the body ran."""
        verdict = step.verdict
        self.executes = verdict is EXECUTE
        """Whether the step's body has to run now."""
        self.suspended = verdict is SUSPEND
        """Whether the handler cannot pass this step now."""

    @property
    def cut(self) -> bool:
        """Whether the handler cut the step off in an earlier call."""
        return self.step.verdict is CUT

    def begin_again(self) -> None:
        """Begin the step although it was cut off in an earlier call: it is not in this one."""
        self._set(cut_steps.again(self.scope, self.step, body=True))

    def wait_again(self, wait: Wait) -> None:
        """Do the same with a step that the server carries out."""
        self._set(cut_steps.wait_again(self.scope, self.step, wait))

    def reconsider(self) -> None:
        """See whether the step may still begin, now that the engine was asked."""
        with self.scope.lock:
            step = self.scope.run.reconsider(self.step)
        self._set(step)

    def _set(self, step: Step) -> None:
        self.step = step
        self.executes, self.suspended = step.verdict is EXECUTE, step.verdict is SUSPEND

    def complete(self, value: Any, sent: bytes | None = None) -> None:
        """Take what the body returned.

        Args:
            value: what it returned.
            sent: what the server gets instead of it, as JSON.

        Raises:
            StepResultError: `value` cannot be stored.
        """
        conversion, step_id = self._conversion, self.step.step_id
        raw = encode_result(value, step_id)
        self._value = decode_result(raw, conversion, step_id, None, value)
        if conversion.keeps_choices:
            self._value, self._kept = choose_types(value, self._value, raw, conversion, step_id)
        self._raw = raw if sent is None else sent

    def invoke(self, body: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call the body of a step in a context of its own; see `invoke_in`."""
        context = copy_context()
        value = self.invoke_in(context, body, args, kwargs)
        return InContext(value, context) if isinstance(value, CoroutineType) else value

    def start(self, body: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Do the same, and let an async body run until it waits for something for the first time.

        Returns:
            `ENDED` if an async body never waited: `complete` then takes `returned`.
        """
        context = copy_context()
        value = self.invoke_in(context, body, args, kwargs)
        if type(value) is not CoroutineType:
            return value
        try:
            wanted = _run_in(context, _send, value, None)
        except StopIteration as end:
            self.returned = end.value
            return ENDED
        return InContext(value, context, (wanted,))

    def invoke_in(self, context: Context, body: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call the body of a step with what the handler gives it, or, in a rerun, with positional
        arguments that were edited.

        Args:
            context: a copy of the handler's: what the body sets there is gone after it, since a
                later call does not run it, and its handler must not see more in this one.

        Raises:
            StepResultError: the edited arguments do not fit the body.
        """
        step = self.step
        if step.memo is not None:
            args = decode_arguments(step.memo.raw, body, step.step_id)
        if args and self.scope.runtime.settings.record_inputs:
            raw = encode_input(args)
            self._opts = None if raw is None else {"input": raw}
        _run_in(context, _set_here, self)
        if kwargs:  # an empty `**` copies a dict
            return _run_in(context, body, *args, **kwargs)
        return _run_in(context, body, *args)

    def result(self) -> Any:
        """Return what the handler gets: the value, or the remembered failure as `StepError`."""
        failures = self.scope.final_failures
        if failures is not None:
            failures.last = False
        if self._raw is not None:
            return self._value
        memo = self.step.memo
        assert memo is not None, "a step that neither ran nor is remembered has no result"
        try:
            if memo.error is not None:
                raise step_error(memo.error)
            kept = (
                self.scope.run.earlier.choices_of(self.step.hash)
                if self._conversion.keeps_choices
                else None
            )
            value = decode_result(memo.raw, self._conversion, self.step.step_id, kept)
            return value if self._convert is None else self._convert(value)
        except StepError as error:
            self._failed_for_good(error)
            raise

    def send(self, events: list[Event]) -> Flow[list[str]]:
        """Do what the body of a step that sends events has to do; return their ids."""
        checkpoints = self.scope.runtime.checkpoints
        return send_events(checkpoints, self.scope.run.run_id, self.step, events)

    def suspension(self) -> Suspended:
        """Return what a blocking tool raises when the handler cannot pass this step now."""
        return suspension(self.scope, f"step {self.step.step_id!r}", self.step)

    def _failure(self, error: Exception) -> tuple[ErrorInfo, str | None]:
        """Return a failure as data, and when the step wants its next attempt."""
        scope, run = self.scope, self.scope.run
        policy = run.opts if self._options is None else merged(self._options, run.opts)
        failures = run.earlier.failed_before(self.step.hash)
        jitter = scope.runtime.checkpoints.rng.random
        return failed_attempt(error, policy, failures, scope.now_ns(), jitter)

    def _failed_for_good(self, error: BaseException) -> None:
        """Note that `error` is raised in the handler, as it would be in every later call."""
        from stephttp._run.final_failures import failures_of  # few runs fail

        failures = failures_of(self.scope)
        if failures is not None:
            failures.note(error)

    def __enter__(self) -> None:
        self.began()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        return self.ended(error)

    def began(self) -> None:
        """Note that the body begins. `ended` must follow."""
        if self.scope.step_watch is not None:
            self.before = self.scope.step_watch.began()
        now_ns = self.scope.now_ns  # called as an attribute, it takes more instructions
        self.started_ns = now_ns()

    def ended(self, error: BaseException | None) -> bool:
        """Record how the body has ended: as `complete` has noted, or with an error.

        Returns:
            Whether the handler does not see the error, since the step will be tried again.
        """
        scope, step = self.scope, self.step
        run, now_ns = scope.run, scope.now_ns
        duration = now_ns() - self.started_ns
        if duration < 0:  # the clock was set
            duration = 0
        if self._raw is not None:
            if scope.step_watch is not None:
                scope.step_watch.ended(self, self.before)
            scope.lock.acquire()  # a `with` takes twice the instructions
            try:
                verdict = run.complete(
                    step, self._raw, self.started_ns, duration, self._opts, self._kept
                )
            finally:
                scope.lock.release()
            self.suspended = verdict is SUSPEND
        elif isinstance(error, Exception):
            info, later = self._failure(error)
            with scope.lock:
                verdict = run.fail(step, info, self.started_ns, duration, later, self._opts)
            self.suspended = verdict is SUSPEND
            if not self.suspended:
                self._failed_for_good(error)
        else:
            cut_steps.left(scope, step, error, self.started_ns)
        if scope.stream is not None:
            scope.stream.step_ended(step.hash, stays=self._raw is not None)
        scope.recorded()
        return self.suspended
