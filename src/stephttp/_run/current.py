"""The call of a handler that the current code belongs to, and whether it has a run; a run
starts at the first step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakSet

from stephttp._client.api_calls import SDK
from stephttp._core.run import Run
from stephttp._wire.http import Headers
from stephttp.errors import ConfigurationError

if TYPE_CHECKING:
    from stephttp._client.flow import Flow
    from stephttp._run.callers import CallerOf
    from stephttp._run.run_stream import RunStream
    from stephttp._run.runtime import Runtime
    from stephttp._run.scope import RunScope

MARK = "stephttp.run_id"
"""Key by which a scope or environ shows that it has passed through the middleware."""

_SDK_HEADER = (b"x-inngest-sdk", SDK.encode())


def run_headers(run_id: str, before: Sequence[tuple[bytes, bytes]] = ()) -> Headers:
    """Return the two headers that every response of a durable application carries.

    Args:
        before: headers to which they are added, in a new list.
    """
    return [*before, (b"x-run-id", run_id.encode("latin-1")), _SDK_HEADER]


class FirstCallOfRun(Protocol):
    """A first call, as the scope of its run knows it."""

    def first_step(self) -> None:
        """Begin to save, as configured; dispatched when the body of a first step has begun."""

    def claim_late(self, text: str, scope: CallerOf | None) -> Flow[bool]:
        """Claim a key that the handler gave. Returns whether its steps are to run."""
        ...

    def open_within_limits(self) -> Flow[bool]:
        """Open the run if its limits have room. Returns whether the handler is to begin."""
        ...

    def open_stream(self, scope: RunScope) -> RunStream:
        """Begin to take what the handler pushes. May be called in any thread."""
        ...


class HandlerCall(Protocol):
    """A first call or a re-entry: what a `CurrentCall` stands for while the handler runs."""

    @property
    def runtime(self) -> Runtime: ...

    @property
    def run_id(self) -> str: ...

    @property
    def started_ns(self) -> int: ...

    @property
    def identity(self) -> tuple[Any, ...]:
        """What tells the request from others: method, path, query, headers; or the environ."""
        ...

    @property
    def surroundings(self) -> Mapping[str, Any]:
        """The ASGI scope or the environ that the application was called with."""
        ...

    @property
    def attempt(self) -> int:
        """How many calls for the same purpose failed before this one."""
        ...

    def run_made(self, scope: RunScope) -> None:
        """Prepare the scope of a run that was just made. May be called in any thread."""
        ...


class CurrentCall:
    """One call of a handler, as all code in its context knows it: the value of `current_call`.

    It is the one place that knows whether the request has a run. A re-entry has one from the
    start. Most first calls come to no step and never need one, so theirs is made when a step, an
    option or middleware first asks for its scope.

    Timers and tasks copy the context and may keep it for long. Therefore `leave` lets go of the
    request. What continues after that continues as if there were no steps: it finds a run that
    has ended.

    Args:
        call: the first call or re-entry.
        new_scope: makes a scope from the runtime, a run, the context, and when the call began.
        context: where the handler is called, in the terms of the adapter.
        scope: the run's scope, where there is one already.
    """

    # Any thread may be the first to need the scope, while the event loop sends the response or
    # ends the call. The loop takes no lock for that: it would have to wait, and the many requests
    # without a run would pay for it. Both sides write first and read second:
    #
    #     the loop                               the thread that makes the scope
    #     1. sets `_response_began` or `left`    1. publishes the scope in `so_far`
    #     2. looks for a scope in `so_far`       2. looks at both flags
    #
    # So at least one side sees the other. Either the loop finds the scope and acts on its run, or
    # the thread finds the flag and does the same in its place. Both may do it, for doing it twice
    # changes nothing. Only then is the scope put into `made`, where other threads take it from
    # without a lock: none of them comes to a step before the run knows what has happened.
    # `Runtime.opening` is for the threads among themselves, so that they make one run.
    #
    # Under WSGI the thread of the server has the part of the loop.

    __slots__ = (
        "_call",
        "_context",
        "_new_scope",
        "_response_began",
        "made",
        "run_id",
        "runtime",
        "sessions",
        "so_far",
    )
    can_have_run = True
    """False: every step raises an exception that says why."""

    def __init__(
        self,
        call: HandlerCall,
        new_scope: Callable[[Runtime, Run, Any, int | None], RunScope],
        context: Any,
        scope: RunScope | None = None,
    ) -> None:
        self.runtime = call.runtime
        self.run_id = call.run_id
        self._call: HandlerCall | None = call
        self._new_scope = new_scope
        self._context = context
        self.so_far = self.made = scope
        """The run's scope, if anything has needed it while the handler ran."""
        self._response_began = False
        self.sessions: WeakSet[Any] | None = None
        """Sessions of SQLAlchemy that began to work in this call, if it has a watch for them."""

    @property
    def identity(self) -> tuple[Any, ...]:
        """What tells the request from others, while the handler runs."""
        call = self._call
        return () if call is None else call.identity

    @property
    def surroundings(self) -> Mapping[str, Any]:
        """The ASGI scope or the environ of the request, while the handler runs."""
        call = self._call
        return {} if call is None else call.surroundings

    @property
    def attempt(self) -> int:
        """How many calls for the same purpose failed before this one, while the handler runs."""
        call = self._call
        return 0 if call is None else call.attempt

    @property
    def left(self) -> bool:
        """Whether the handler has ended."""
        return self._call is None

    @property
    def replaying(self) -> bool:
        """Whether the handler still passes over what it did in earlier calls."""
        return self.made is not None and self.made.run.replaying

    def scope(self) -> RunScope:
        """Return the run's scope, made at the first need. May be called in any thread."""
        return self.made or self._make_scope()

    def begin_response(self) -> RunScope | None:
        """Note that the response begins.

        Returns:
            The run's scope, for the caller to tell its run. Without one, a run that is made from
            now on knows.
        """
        self._response_began = True
        return self.so_far

    def leave(self) -> RunScope | None:
        """Note that the handler has ended, and let go of the request.

        Returns:
            The run's scope, for the caller to end its run. Without one, a run that is made from
            now on has ended.
        """
        self._call = None
        return self.so_far

    @property
    def suspended(self) -> bool:
        """Whether a wait has overtaken the handler: what it sends is dropped."""
        return self.so_far is not None and self.so_far.run.suspended

    def may_lose_writes(self) -> bool:
        """Return whether the handler has written what only its end commits, as far as that is
        watched. A failure behind its response is then a failure of the run."""
        scope = self.so_far
        if scope is not None and scope.writes:
            return True
        sessions = self.sessions
        if not sessions:
            return False
        return any(one.in_transaction() for one in sessions)

    def _make_scope(self) -> RunScope:
        opening = self.runtime.opening
        opening.acquire()  # a `with` takes twice the instructions
        try:
            if self.made is None:
                call = self._call
                started_ns = None if call is None else call.started_ns
                scope = self._new_scope(self.runtime, Run(self.run_id), self._context, started_ns)
                if call is not None:
                    call.run_made(scope)
                    self.so_far = scope
                if self._response_began:
                    scope.run.response_began()
                if self._call is None:
                    scope.run.end()
                    scope.close(None)
                self.made = scope
            return self.made
        finally:
            opening.release()


current_call: ContextVar[CurrentCall | None] = ContextVar("stephttp_call", default=None)


def current_scope() -> RunScope | None:
    """Return the scope of the current run; `None` outside a request."""
    call = current_call.get()
    return None if call is None else call.made or call.scope()


def configured_scope() -> RunScope | None:
    """Return the scope whose options code sets; `None` where there is no run, nor can be one."""
    call = current_call.get()
    return None if call is None or not call.can_have_run else call.made or call.scope()


def present_ns() -> int | None:
    """Return what the clock of the current run shows; `None` outside a request."""
    scope = current_scope()
    return None if scope is None else scope.now_ns()


def enter(call: CurrentCall) -> Token[CurrentCall | None]:
    """Make `call` the current one, for the caller to reset.

    Raises:
        ConfigurationError: another call of this application's handler is at work on the same
            request, further out. (A request that a handler makes in its own process is another
            request.)
    """
    outer = current_call.get()
    if outer is not None and outer.identity == call.identity:
        refuse_inside(outer, call)
    return current_call.set(call)


restore = current_call.reset
"""Make the call current again that was before `enter`, which returned what this takes."""


def refuse_inside(outer: CurrentCall, call: CurrentCall) -> None:
    """Raise `ConfigurationError` if `outer` is at work on the request of `call`."""
    if outer.runtime is call.runtime and not outer.left:
        raise ConfigurationError(
            "two runs in one context: this request passes the stephttp middleware twice, once "
            "further out; wrap the outermost application only"
        )
