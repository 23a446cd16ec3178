"""One request of a test, from its first answer to its last, for both clients:
`until_waiting`, `until_step`, redirects.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx2

from stephttp.testing.followed_streams import EVENTS, FollowedStream
from stephttp.testing.recorded import RecordedRun
from stephttp.testing.world import World

_RETRIES = frozenset({"retry", "call"})
"""What a run waits for by itself, and not because its handler says so."""
_MOST_REDIRECTS = 20


class Exchange:
    """A request to the application, and what becomes of it.

    Args:
        world: the engine and the application.
        request: the request.
        follow: whether redirects are followed.
    """

    def __init__(self, world: World, request: httpx2.Request, *, follow: bool = True) -> None:
        self._world = world
        self._request = request
        self._follow = follow
        self._first: httpx2.Response | None = None
        self._last: httpx2.Response | None = None
        self._stream: FollowedStream | None = None

    @property
    def label(self) -> str:
        """Names the request."""
        return f"{self._request.method} {self._request.url.raw_path.decode()}"

    async def first(self, *, streamed: bool = False) -> httpx2.Response:
        """Send the request, and return the first answer: perhaps a redirect to the result.

        Args:
            streamed: whether it is read as it comes, as events are in any case.
        """
        if self._first is None:
            world = self._world
            await world.come_after_events()
            response = await world.client.send(self._request, stream=True, follow_redirects=False)
            for _ in range(_MOST_REDIRECTS):
                self._first = response
                next_request = response.next_request
                if next_request is None or not self._follow or self._leads_to_result(response):
                    break
                await response.aclose()
                response = await world.client.send(next_request, stream=True)
            ends_elsewhere = self._follow and self._leads_to_result(response)
            if not (self._is_stream or streamed) or ends_elsewhere:
                await response.aread()
                await world.settle()
            else:
                self._stream = FollowedStream(world, response, follow=self._follow)
                await self._until_under_way()
            world.check()
        assert self._first is not None
        return self._first

    async def accepted(self) -> httpx2.Response:
        """Return the first answer; of a stream, with what has come of it so far."""
        first = await self.first()
        return first if self._stream is None else await self._stream.so_far()

    async def streamed(self) -> FollowedStream:
        """Return the answer, which is read as it comes."""
        first = await self.first(streamed=True)
        if self._stream is None:
            response = await self._redirected(first, stream=True)
            self._stream = FollowedStream(self._world, response, follow=self._follow)
        return self._stream

    async def last(self) -> httpx2.Response:
        """Let time pass until the answer that the caller gets at last is there, and return it.

        Raises:
            Stuck: the run does not end.
        """
        if self._last is None:
            response = await self.first()
            if self._leads_to_result(response) and self._follow:
                response = await self._redirected(response)
            elif self._stream is not None:
                response = await self._stream.whole()
            self._last = response
        return self._last

    async def result(self) -> httpx2.Response:
        """Let time pass until the run has ended, and return its handler's answer, whatever its
        caller got.

        Raises:
            Stuck: the run does not end.
        """
        first = await self.first()
        if not await self._is_known() or self._leads_to_result(first):
            return await self.last()
        result = (await self.finish()).detail.result
        assert result is not None
        headers = [(one.name, one.value) for one in result.headers if not one.masked]
        kept = [pair for pair in headers if pair[0].lower() != "content-length"]
        return httpx2.Response(
            result.status, headers=kept, content=result.body, request=self._request
        )

    async def finish(self) -> RecordedRun:
        """Let time pass until the run has ended, and return it.

        Raises:
            Stuck: it does not end.
            LookupError: the request has none.
        """
        await self._end()
        return await self.run()

    async def until_waiting(self, step_id: str | None = None) -> RecordedRun:
        """Let time pass until the run waits: not for the retry of a failure, which happens.

        Args:
            step_id: the step that is to wait; `None`: any.

        Returns:
            The run.

        Raises:
            Stuck: it ends first.
        """
        what = "waited" if step_id is None else f"waited in step {step_id!r}"
        return await self._until(lambda run: _waits(run, step_id), what)

    async def until_step(self, step_id: str) -> RecordedRun:
        """Let time pass until a step has ended, or waits.

        Args:
            step_id: the step.

        Returns:
            The run.

        Raises:
            Stuck: the run ends first.
        """
        what = f"came to step {step_id!r}"
        return await self._until(lambda run: any(one.id == step_id for one in run.steps), what)

    async def cancel(self) -> RecordedRun:
        """End the run as cancelled, and return it."""
        await self.run()
        await self._world.cancel(self.run_id)
        return await self.run()

    async def run(self) -> RecordedRun:
        """Return the run as it stands now.

        Raises:
            LookupError: the request has none, since it came to no step.
        """
        await self.first()
        await self._world.settle()
        if not await self._is_known():
            raise LookupError(
                f"{self.label} has no run: its handler came to no step, or its path is not one of "
                "the durable application"
            )
        return await self._world.run(self.run_id)

    @property
    def run_id(self) -> str:
        """The id of the run; empty if the answer has none."""
        assert self._first is not None
        run_id: str = self._first.headers.get("x-run-id", "")
        return run_id

    async def _until(self, reached: Callable[[RecordedRun], bool], what: str) -> RecordedRun:
        await self.run()
        await self._world.until(self.run_id, reached, what)
        return await self._world.run(self.run_id)

    async def _redirected(self, first: httpx2.Response, *, stream: bool = False) -> httpx2.Response:
        """Let time pass until the run has ended, and return the result to which `first` leads."""
        await self._end()
        request = first.next_request
        assert request is not None
        return await self._world.client.send(request, stream=stream, follow_redirects=True)

    async def _end(self) -> None:
        """Let time pass until the run has ended, if there is one."""
        await self.first()
        if await self._is_known():
            await self._world.until(self.run_id, None, "ended")

    async def _until_under_way(self) -> None:
        """Return once the run of a caller who follows it is known, or has no steps."""
        known = False
        while not known and self._world.calls_under_way:
            await asyncio.sleep(0)
            known = await self._is_known()

    async def _is_known(self) -> bool:
        return bool(self.run_id) and await self._world.status(self.run_id) is not None

    @property
    def _is_stream(self) -> bool:
        assert self._first is not None
        kind: str = self._first.headers.get("content-type", "")
        return kind.startswith(EVENTS)

    def _leads_to_result(self, response: httpx2.Response) -> bool:
        run_id = response.headers.get("x-run-id", "")
        return bool(run_id) and run_id in response.headers.get("location", "")


def _waits(run: RecordedRun, step_id: str | None) -> bool:
    if step_id is None:
        return any(wait.kind not in _RETRIES for wait in run.waits)
    return any(wait.step == step_id and wait.kind not in _RETRIES for wait in run.waits)
