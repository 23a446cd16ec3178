"""The step tools of stephttp in functions of PyPI `inngest`: each delegates to the function's own
`ctx.step`, once for async functions and once for plain ones.

    tool                                         what it becomes
    run, send_event                              ctx.step.run, ctx.step.send_event
    sleep, sleep_until, wait_for_event,          the same op that an endpoint reports, as a step of
      invoke, invoke_by_id, ai.infer               the function
    parallel                                     ctx.group.parallel, with branches that continue
                                                   without each other
    wait_for_signal, fetch, race, first          UsageError: that SDK has no such thing
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from functools import partial
from inspect import isawaitable
from time import monotonic_ns
from typing import Any

import inngest

from stephttp._core.step_options import StepOptions
from stephttp._core.tool_types import Event
from stephttp._core.waits import Wait
from stephttp._run.supervised import is_async, refuse_thread, supervise, supervise_blocking
from stephttp.errors import UsageError
from stephttp.integrations._inngest_errors import remembered
from stephttp.integrations._inngest_run import FunctionRun
from stephttp.integrations._inngest_step import FunctionStep
from stephttp.sync._plain_functions import async_refused, refuse_coroutine

_BRANCHES = inngest.ParallelMode.RACE
"""As in endpoints, a branch continues while another one waits."""


class AsyncRun(FunctionRun):
    """A run of an `async def` function."""

    blocking = False

    def __init__(self, client: inngest.Inngest, ctx: inngest.Context) -> None:
        super().__init__(client, ctx)
        self._step = ctx.step
        self._group = ctx.group
        self._task = asyncio.current_task()

    async def run(
        self,
        options: StepOptions,
        step_id: str,
        handler: Callable[..., Any],
        args: Any,
        kwargs: Any,
    ) -> Any:
        step_id = self.come_to(step_id)
        if options.thread:
            refuse_thread(step_id, handler)
        one = FunctionStep(self, step_id, handler, options)

        async def body() -> Any:
            with one.attempt():
                invoke = partial(handler, *args, **kwargs)
                return one.stored(await supervise(options, step_id, monotonic_ns, invoke))

        with one.ending():
            return one.result(await self._step.run(step_id, body))

    async def send_event(self, step_id: str, events: list[Event]) -> list[str]:
        step_id = self.come_to(step_id)
        try:
            return await self._step.send_event(step_id, [*self.outgoing(step_id, events)])
        except inngest.StepError as error:
            raise remembered(error) from None

    async def request(self, tool: str, wait: Wait) -> Any:
        info = self.requested(tool, wait)
        async with await self._step._execution.report_step(info) as reported:
            return self.answer(wait, reported)

    async def parallel(self, callables: Iterable[Callable[[], Any]]) -> tuple[Any, ...]:
        with self.group() as group:

            async def branch(number: int, one: Callable[[], Any]) -> _Outcome:
                group.branch = number
                try:
                    value = one()
                    return (await value if isawaitable(value) else value), None
                except UsageError:
                    raise
                except Exception as error:
                    return None, error

            branches = tuple(partial(branch, *each) for each in enumerate(callables))
            return _results(await self._group.parallel(branches, _BRANCHES))

    def _is_at_home(self) -> bool:
        return asyncio.current_task() is self._task


class BlockingRun(FunctionRun):
    """A run of a plain function."""

    blocking = True

    def __init__(self, client: inngest.Inngest, ctx: inngest.ContextSync) -> None:
        super().__init__(client, ctx)
        self._step = ctx.step
        self._group = ctx.group
        self._thread = threading.get_ident()

    def run(
        self,
        options: StepOptions,
        step_id: str,
        handler: Callable[..., Any],
        args: Any,
        kwargs: Any,
    ) -> Any:
        step_id = self.come_to(step_id)
        one = FunctionStep(self, step_id, handler, options)

        def body() -> Any:
            with one.attempt():
                invoke = partial(handler, *args, **kwargs)
                value = supervise_blocking(options, step_id, monotonic_ns, invoke)
                return one.stored(refuse_coroutine(value, f"step {step_id!r}"))

        with one.ending():
            return one.result(self._step.run(step_id, body))

    def send_event(self, step_id: str, events: list[Event]) -> list[str]:
        step_id = self.come_to(step_id)
        try:
            return self._step.send_event(step_id, [*self.outgoing(step_id, events)])
        except inngest.StepError as error:
            raise remembered(error) from None

    def request(self, tool: str, wait: Wait) -> Any:
        info = self.requested(tool, wait)
        with self._step._execution.report_step(info) as reported:
            return self.answer(wait, reported)

    def parallel(self, callables: Iterable[Callable[[], Any]]) -> tuple[Any, ...]:
        made = list(callables)
        for number, each in enumerate(made):
            if is_async(each):
                raise async_refused(f"branch {number}")
        with self.group() as group:

            def branch(number: int, one: Callable[[], Any]) -> _Outcome:
                group.branch = number
                try:
                    return refuse_coroutine(one(), f"branch {number}"), None
                except UsageError:
                    raise
                except Exception as error:
                    return None, error

            branches = tuple(partial(branch, *each) for each in enumerate(made))
            return _results(self._group.parallel(branches, _BRANCHES))

    def _is_at_home(self) -> bool:
        return threading.get_ident() == self._thread


_Outcome = tuple[Any, Exception | None]


def _results(outcomes: tuple[_Outcome, ...]) -> tuple[Any, ...]:
    """Return what branches returned, or raise what the first failed one raised."""
    for _, error in outcomes:
        if error is not None:
            raise error
    return tuple(value for value, _ in outcomes)
