"""The options of one step, as users give them to `step.options` and as a step uses them
(retries, timeout, thread, converters).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, TypedDict

from stephttp._core import retry_policy
from stephttp._core.retry_policy import ExceptionTypes, RetryPolicy


class StepSettings(TypedDict, total=False):
    """The options of one step, for `stephttp.step.options`. Each may be left out."""

    retries: int | None
    """How often it is tried again when it fails, 0 to 20; default: the endpoint's number."""

    delay: timedelta | None
    """The pause before the first repetition, at most 24 hours; each further one is twice as long,
    and up to a tenth is added at random. A server waits at least a second. Default: the pauses
    of the endpoint, else those of the server."""

    max_delay: timedelta | None
    """The longest pause; default: 24 hours. Without `delay`, the first pause is a second."""

    retry_on: ExceptionTypes | None
    """Only these types of exceptions are worth a repetition."""

    give_up_on: ExceptionTypes | None
    """These types of exceptions are not worth one, whatever `retry_on` says. `()` takes back what
    the endpoint says. `RetryAfterError` and `NonRetriableError` take precedence over both."""

    timeout: timedelta | None
    """A function that takes longer fails with `StepTimeoutError`. Async functions and those in a
    thread are left at that time; a function that blocks cannot be interrupted, and fails when it
    returns."""

    thread: bool
    """Run a plain function in a worker thread (as `asyncio.to_thread`), so that it does not block
    the event loop."""


class BlockingStepSettings(TypedDict, total=False):
    """The same for `stephttp.sync.step.options`, but for `thread`."""

    retries: int | None
    delay: timedelta | None
    max_delay: timedelta | None
    retry_on: ExceptionTypes | None
    give_up_on: ExceptionTypes | None
    timeout: timedelta | None


class StepOptions(RetryPolicy, frozen=True, kw_only=True):
    """The options of one step, checked."""

    output_type: Any = Any
    """Of its result; `Any` for what its function says."""
    timeout: timedelta | None = None
    thread: bool = False
    supervised: bool = False
    """Whether its function needs more than to be called."""


_POLICY = frozenset(RetryPolicy.__struct_fields__)


def step_options(
    given: Mapping[str, Any], output_type: Any = Any, *, blocking: bool = False
) -> StepOptions:
    """Check the options of a step.

    Args:
        given: see `StepSettings`.
        output_type: of its result.
        blocking: they are for the blocking tools.

    Raises:
        TypeError: an option does not exist, or a value has another type.
        ValueError: a value is out of range, or two contradict each other.
    """
    if blocking and "thread" in given:
        raise TypeError(
            "options() of the blocking tools takes no `thread`: the handler is in a thread already"
        )
    for name in given.keys() - StepSettings.__annotations__.keys():
        raise TypeError(f"options() got an unexpected keyword argument {name!r}")
    policy = {name: value for name, value in given.items() if name in _POLICY}
    timeout, thread = given.get("timeout"), given.get("thread", False)
    if type(thread) is not bool:
        raise TypeError(f"thread must be True or False, not {thread!r}")
    _check_timeout(timeout)
    return StepOptions(
        **retry_policy.checked(**policy),
        output_type=output_type,
        timeout=timeout,
        thread=thread,
        supervised=thread or timeout is not None,
    )


def policy_of_request(options: StepOptions, step_id: str, tool: str) -> RetryPolicy:
    """Return the policy of a step whose request the server makes.

    Raises:
        ValueError: an option has no meaning there.
    """
    for name in ("retry_on", "give_up_on", "timeout", "thread"):
        if getattr(options, name) not in (None, False):
            raise ValueError(
                f"step {step_id!r}: {name} is for functions, and {tool} is a request of the "
                "server, which decides by the answer; use retries, delay and max_delay"
            )
    return options


def _check_timeout(timeout: Any) -> None:
    if timeout is None:
        return
    if not isinstance(timeout, timedelta):
        raise TypeError(
            f"timeout must be a timedelta, not {timeout!r}; write for example timedelta(seconds=30)"
        )
    if timeout <= timedelta(0):
        raise ValueError(
            f"timeout must be positive, not {timeout.total_seconds():g} seconds; leave it out for "
            "no limit"
        )
