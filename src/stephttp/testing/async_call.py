"""One request of an `async def` test, with its run and its response (`await
call.until_waiting()`).
"""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Generator
from typing import Any, ParamSpec, TypeVar

import httpx2

from stephttp.testing.calls import Exchange
from stephttp.testing.loop_thread import within
from stephttp.testing.recorded import RecordedRun

P = ParamSpec("P")
T = TypeVar("T")


class AsyncCall:
    """A request, and its run. It is sent when it is awaited, or with the first of its methods.

    `response = await client.post(...)` lets time pass until the answer is there that the caller
    gets at last. `call = client.post(...)` and `await call.until_waiting()` stop before that;
    `await call` then continues.
    """

    def __init__(self, exchange: Exchange, patience: float) -> None:
        self._exchange = exchange
        self._patience = patience
        self._used = False

    def __await__(self) -> Generator[Any, None, httpx2.Response]:
        return self.response().__await__()

    def __del__(self) -> None:
        if not self._used:
            warnings.warn(
                f"{self!r} was never awaited, so it was not sent", RuntimeWarning, stacklevel=2
            )

    async def accepted(self) -> httpx2.Response:
        """Return the first answer, as it was: of a run that waits, a redirect to its result; of a
        stream, what has come of it so far."""
        return await self._use(self._exchange.accepted)

    async def response(self) -> httpx2.Response:
        """Let time pass until the answer is there that the caller gets at last, and return it.

        Raises:
            Stuck: the run does not end.
        """
        return await self._use(self._exchange.last)

    async def result(self) -> httpx2.Response:
        """Return the handler's answer, also where the caller got a token, or another answer before.

        Raises:
            Stuck: the run does not end.
        """
        return await self._use(self._exchange.result)

    async def run(self) -> RecordedRun:
        """Return the run as it stands now; lets no time pass.

        Raises:
            LookupError: the request has none, since its handler came to no step.
        """
        return await self._use(self._exchange.run)

    async def finish(self) -> RecordedRun:
        """Let time pass until the run has ended, and return it.

        Raises:
            Stuck: it does not end.
        """
        return await self._use(self._exchange.finish)

    async def until_waiting(self, step_id: str | None = None) -> RecordedRun:
        """Let time pass until the run waits for a time, an event, a signal or another run.

        Args:
            step_id: the step that is to wait; `None`: any.

        Returns:
            The run.

        Raises:
            Stuck: the run ends first.
        """
        return await self._use(self._exchange.until_waiting, step_id)

    async def until_step(self, step_id: str) -> RecordedRun:
        """Let time pass until a step has ended, or waits.

        Args:
            step_id: the step.

        Returns:
            The run.

        Raises:
            Stuck: the run ends first.
        """
        return await self._use(self._exchange.until_step, step_id)

    async def cancel(self) -> RecordedRun:
        """End the run as cancelled, and return it."""
        return await self._use(self._exchange.cancel)

    async def _use(self, work: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        self._used = True
        return await within(self._patience, work(*args, **kwargs))

    def __repr__(self) -> str:
        return f"<AsyncCall {self._exchange.label}>"
