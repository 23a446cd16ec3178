"""Where `step` works outside of requests: in a run of another SDK, whose step tools it then stands
for; and the error where there is no run at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any, NoReturn, Protocol

from stephttp._core.step_options import StepOptions
from stephttp._core.tool_types import Event
from stephttp._core.waits import Wait
from stephttp.errors import OutsideRunError, UsageError


class OutsideTools(Protocol):
    """What the step tools do outside of requests. `step` awaits what a method returns, `sync.step`
    takes it as it is. Arguments of tools are checked before."""

    def run(
        self,
        options: StepOptions,
        step_id: str,
        handler: Callable[..., Any],
        args: Any,
        kwargs: Any,
    ) -> Any:
        """Run a function; see `step.run`."""

    def send_event(self, step_id: str, events: list[Event]) -> Any:
        """Send events; see `step.send_event`."""

    def request(self, tool: str, wait: Wait) -> Any:
        """Have the server carry out a step."""

    def parallel(self, callables: Iterable[Callable[[], Any]]) -> Any:
        """Run branches side by side; see `step.parallel`."""

    def begin_race(self, tool: str, step_id: str) -> None:
        """Refuse a race, where its winner could not be kept."""


class OtherRun(OutsideTools, Protocol):
    """A run of another SDK, in one call of its function."""

    @property
    def blocking(self) -> bool:
        """Whether its function is a plain one."""
        ...

    @property
    def ended(self) -> bool:
        """Whether this call of its function is over."""
        ...

    def idempotency_key(self) -> str:
        """Return the key of the current step; see `stephttp.idempotency_key`."""
        ...

    def refuse(self, tool: str, instead: str) -> NoReturn:
        """Raise `UsageError` for a tool that does not exist there.

        Args:
            tool: its name, as users write it.
            instead: what to do instead.
        """
        ...


here_runs: ContextVar[OtherRun | None] = ContextVar("stephttp_other_run", default=None)
"""The run of another SDK that the current code belongs to. Where a request is under way,
`current_call` takes precedence: who sets this variable hides that one (and the other way round, a
request that a function makes in its own process is nearer)."""


def other_run() -> OtherRun | None:
    """Return the run of another SDK that the current code belongs to, outside of requests."""
    found = here_runs.get()
    return None if found is None or found.ended else found


def other_tools(*, blocking: bool) -> OutsideTools | None:
    """Return the tools of the run of another SDK that the current code belongs to.

    Args:
        blocking: whether the blocking tools ask, or the async ones.

    Raises:
        UsageError: the function of that run is of the other kind.
    """
    found = other_run()
    if found is None or found.blocking is blocking:
        return found
    if blocking:
        raise UsageError(
            "a blocking step tool was called in an async function, whose event loop it would "
            "block; use the async tools: from stephttp import step"
        )
    raise UsageError(
        "an async step tool was called in a plain function, which cannot await it; use the "
        "blocking tools: from stephttp.sync import step"
    )


def outside_refused(tool: str) -> OutsideRunError:
    """Return what a tool raises that needs a run, in code that belongs to no run."""
    return OutsideRunError(
        f"step.{tool} was called outside a request that passes through the stephttp "
        "middleware, so there is nothing that could wait; wrap the application with "
        "provider.asgi(app), or call it from a handler (in a function of PyPI inngest: give its "
        "client stephttp.integrations.inngest.StepMiddleware)"
    )
