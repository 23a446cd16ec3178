"""The call of a handler that the current code belongs to."""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Protocol

from stephttp.errors import ConfigurationError, OutsideRunError

if TYPE_CHECKING:
    from stephttp._run.runtime import Runtime
    from stephttp._run.scope import RunScope


class Current(Protocol):
    """One call of a handler: a `RunScope`, or what makes one when something needs it."""

    @property
    def runtime(self) -> Runtime: ...

    @property
    def run_id(self) -> str: ...

    @property
    def request(self) -> tuple[Any, ...]:
        """What tells the request from others: method, path, query, headers; or the environment."""
        ...

    @property
    def over(self) -> bool:
        """Whether the handler has ended."""
        ...

    @property
    def replaying(self) -> bool:
        """Whether the handler still passes over what it did in earlier calls."""
        ...

    def open(self) -> RunScope:
        """The run's scope. May be called in any thread."""
        ...


current_call: ContextVar[Current | None] = ContextVar("stephttp_call", default=None)


def current_scope() -> RunScope | None:
    """The current run, if there is one."""
    call = current_call.get()
    return None if call is None else call.open()


def run_scope(tool: str) -> RunScope:
    """The current run, for a tool that cannot do without one.

    Raises:
        OutsideRunError: there is none.
    """
    call = current_call.get()
    if call is None:
        raise OutsideRunError(
            f"step.{tool} was called outside a request that passes through the stephttp "
            "middleware, so there is nothing that could wait; wrap the application with "
            "provider.asgi(app), or call it from a handler"
        )
    return call.open()


def enter(call: Current) -> Token[Current | None]:
    """Make `call` the current one, for the caller to reset.

    Raises:
        ConfigurationError: another run of this application is at work on the same request,
            further out. (A request that a handler makes in its own process is another one.)
    """
    outer = current_call.get()
    if outer is not None and outer.request == call.request:
        refuse_inside(outer, call)
    return current_call.set(call)


def refuse_inside(outer: Current, call: Current) -> None:
    """Raise `ConfigurationError` if `outer` is at work, on the request of `call`."""
    if outer.runtime is call.runtime and not outer.over:
        raise ConfigurationError(
            "two runs in one context: this request passes the stephttp middleware twice, once "
            "further out; wrap the outermost application only"
        )
