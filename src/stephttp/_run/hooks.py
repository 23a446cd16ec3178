"""Calls the methods of the user's middleware, in their order, written once for `async def` handlers
and threads; what happens when one raises.

The calls are generators, as flows of the API are: one yields what is to be awaited, or the body of
a step to be called, and is sent the result, or has the error thrown in. `drive` carries it out on
the event loop, `drive_blocking` in a handler's thread. They are not flows, because a flow is
carried out on the event loop and sees ordinary exceptions only: plain methods have to be called in
the handler's own thread, and a step has to see a cancellation to be abandoned.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Generator, Sequence
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from stephttp._client.flow import Flow, Invoke, carry_out, carry_out_blocking
from stephttp._core.encoding import decode_plain, encode_result
from stephttp._core.failures import step_error
from stephttp._core.run import Run
from stephttp._core.tool_types import Event
from stephttp._wire.http import Request, Response
from stephttp._wire.json import encode_struct
from stephttp.errors import ConfigurationError
from stephttp.middleware import (
    MISSING,
    CallEnd,
    Middleware,
    MiddlewareFactory,
    RunContext,
    SendEventsResult,
    StepEnd,
    StepInfo,
    StepMemo,
    TransformOutputResult,
)

if TYPE_CHECKING:
    from stephttp._run.scope import RunScope

logger = logging.getLogger("stephttp")

T = TypeVar("T")
Hooked = Generator[Awaitable[Any] | Callable[[], Any], Any, T]


async def drive(flow: Hooked[T]) -> T:
    """Carry out `flow` on the event loop."""
    return await carry_out(flow, _do_here, BaseException)


async def _do_here(wanted: Awaitable[Any] | Callable[[], Any]) -> Any:
    value = _do(wanted)
    return await value if isawaitable(value) else value


def drive_blocking(flow: Hooked[T], wait: Callable[[Awaitable[Any]], Any]) -> T:
    """Carry out `flow` on the calling thread.

    Args:
        wait: has something awaited elsewhere, while this thread waits.
    """
    return carry_out_blocking(
        flow, lambda wanted: wanted() if callable(wanted) else wait(wanted), BaseException
    )


def as_flow(hooked: Hooked[T]) -> Flow[T]:
    """Return the same as a flow of the API, for code that serves both kinds of adapters."""
    try:
        wanted = next(hooked)
        while True:
            try:
                value = yield Invoke(_do, wanted)
            except Exception as error:
                wanted = hooked.throw(error)
            else:
                wanted = hooked.send(value)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        hooked.close()


def _do(wanted: Awaitable[Any] | Callable[[], Any]) -> Any:
    return wanted() if callable(wanted) else wanted


def awaiting(awaitable: Awaitable[T]) -> Flow[T]:
    """Have `awaitable` awaited, as a flow of the API."""

    def itself(_: None) -> Awaitable[T]:
        return awaitable

    return (yield Invoke(itself, None))  # type: ignore[no-any-return]


class Hooks:
    """The middleware of one call of a handler.

    Args:
        factories: what makes them.
        run: the run that is called.
        ctx: what they get to know of it.
    """

    __slots__ = ("_all", "_factories", "_idle", "_over", "_reverse", "_run", "ctx")

    def __init__(self, factories: Sequence[MiddlewareFactory], run: Run, ctx: RunContext) -> None:
        self._factories = factories
        self.ctx = ctx
        self._run = run
        self._all: list[Middleware] = []
        self._reverse: list[Middleware] = []
        self._idle = [True]  # a list, because taking from it is atomic
        self._over = False

    @classmethod
    def of(cls, scope: RunScope, request: Request, request_id: str = "", attempt: int = 0) -> Hooks:
        """Make the middleware of the runtime, for one call.

        Args:
            scope: of the run.
            request: what the handler is called with.
            request_id: the server's id of this call.
            attempt: how many calls for the same purpose failed before.
        """
        ctx = RunContext(scope.run, request, scope.now_ns, scope.started_ns, request_id, attempt)
        return cls(scope.runtime.settings.middleware, scope.run, ctx)

    def open(self) -> Hooked[None]:
        """Make the middleware, and call it before the handler.

        Raises:
            ConfigurationError: a factory does not make a `Middleware`.
        """
        self._run.middleware_began()
        self._all = [_made(factory, self.ctx) for factory in self._factories]
        self._reverse = self._all[::-1]
        yield from self._call(self._all, "before_call")
        if any(_has(one, "transform_input") for one in self._all):
            yield from self._transform_input()
        yield from self.execute()
        self._run.handler_reached()

    def execute(self) -> Hooked[None]:
        """Report, once, that new code is about to run."""
        if self._idle and not self._run.replaying:
            try:
                self._idle.pop()
            except IndexError:  # another thread was faster
                return
            yield from self._call(self._all, "before_execution")

    def before_step(self, step: StepInfo) -> Hooked[None]:
        """Report that a step is about to run."""
        yield from self.execute()
        yield from self._call(self._all, "before_step", step)

    def transform_output(self, step: StepInfo, output: Any = MISSING) -> Hooked[Any]:
        """Return what goes to the server instead of a step's `output`."""
        result = TransformOutputResult(output, step)
        yield from self._call(self._reverse, "transform_output", result)
        return result.output

    @property
    def transforms_output(self) -> bool:
        """Whether any middleware changes what goes to the server."""
        return any(_has(one, "transform_output") for one in self._all)

    def after_step(self, step: StepInfo, end: StepEnd) -> Hooked[None]:
        """Report that an attempt has ended."""
        if isinstance(end.error, Exception):
            yield from self._call_safely(self._reverse, "on_error", end.error, step)
        yield from self._call_safely(self._reverse, "after_step", step, end)

    def send_events(
        self, events: list[Event], send: Callable[[list[Event]], Any]
    ) -> Hooked[list[str]]:
        """Send events by `send`, which returns their ids."""
        events = [msgspec.structs.replace(event) for event in events]
        yield from self._call(self._all, "before_send_events", events)
        try:
            ids = yield lambda: send(events)
        except Exception as error:
            yield from self._call_safely(
                self._reverse, "after_send_events", SendEventsResult(error=error)
            )
            raise
        yield from self._call_safely(
            self._reverse, "after_send_events", SendEventsResult(list(ids))
        )
        return ids  # type: ignore[no-any-return]

    def close(self, error: BaseException | None) -> Hooked[None]:
        """Report that the handler has ended."""
        if isinstance(error, Exception):
            yield from self._call_safely(self._reverse, "on_error", error, None)
        yield from self._call_safely(self._reverse, "after_execution")

    def before_response(self, response: Response) -> Hooked[None]:
        """Report that `response` is about to be sent."""
        yield from self._call_safely(self._all, "before_response", response)

    def over(self, end: CallEnd) -> Hooked[None]:
        """Report, once, that this call of the handler is over."""
        if not self._over:
            self._over = True
            yield from self._call_safely(self._reverse, "after_call", end)

    def _transform_input(self) -> Hooked[None]:
        memos = {
            key: StepMemo(error=step_error(memo.error))
            if memo.error is not None
            else StepMemo(decode_plain(memo.raw))
            for key, memo in self._run.earlier.finished().items()
        }
        yield from self._call(self._all, "transform_input", memos)
        changed = {
            key: msgspec.Raw(b'{"data":' + encode_result(memo.data, key) + b"}")
            for key, memo in memos.items()
            if memo.error is None
        }
        self._run.remember(changed)

    def _call(self, middleware: Sequence[Middleware], name: str, *args: Any) -> Hooked[None]:
        for one in middleware:
            if _has(one, name):
                value = getattr(one, name)(*args)
                if isawaitable(value):
                    yield value

    def _call_safely(self, middleware: Sequence[Middleware], name: str, *args: Any) -> Hooked[None]:
        for one in middleware:
            try:
                yield from self._call([one], name, *args)
            except Exception:
                logger.exception(
                    "stephttp: run %s: %s.%s failed; the run continues",
                    self._run.run_id, type(one).__name__, name,
                )  # fmt: skip


def _made(factory: MiddlewareFactory, ctx: RunContext) -> Middleware:
    made = factory(ctx)
    if not isinstance(made, Middleware):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(
            f"middleware: {factory!r} must make a stephttp.Middleware, not {made!r}"
        )
    return made


def _has(middleware: Middleware, name: str) -> bool:
    """Whether a method does anything."""
    return getattr(type(middleware), name) is not getattr(Middleware, name)


def plain_opts(opts: dict[str, Any]) -> dict[str, Any]:
    """Return what is requested of the server, as plain JSON that middleware can change."""
    return {key: decode_plain(encode_struct(value)) for key, value in opts.items()}
