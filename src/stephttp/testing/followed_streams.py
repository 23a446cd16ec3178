"""`client.stream(...)`: responses that are read as they come, such as streams of events, while time
passes.

A stream of a run that waits ends, and names the address where it continues. A client that follows
redirects reads on there, as the clients of streams do.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import httpx2

from stephttp.testing.loop_thread import within
from stephttp.testing.passing_time import Stuck
from stephttp.testing.world import World

EVENTS = "text/event-stream"
_GLANCE = 0.02
"""Seconds of real time that a value has to arrive before time passes."""
_READS = 4
"""How often the engine's reader is waited for: a stream that something is there for reads first."""
_CONTINUES = re.compile(rb"event: inngest\.redirect_info\ndata: ([^\n]+)\n")
_OF_ITS_BODY = frozenset({"content-length", "content-encoding", "transfer-encoding"})


class FollowedStream:
    """The body of a response, as it comes.

    Args:
        world: the engine and the application.
        response: a response that was not read.
        follow: whether reading continues where a stream says that it does.
    """

    _coming: asyncio.Future[bytes | None]

    def __init__(self, world: World, response: httpx2.Response, *, follow: bool) -> None:
        self._world = world
        self._head = response
        self._follow = follow
        self._received = bytearray()
        self._first_size: int | None = None
        """How much of it came before it continued elsewhere; `None` until then."""
        self._settling: asyncio.Future[None] | None = None
        self._read(response)

    async def so_far(self) -> httpx2.Response:
        """Return the response with what has come without letting time pass, and without what comes
        where it continues."""
        while self._first_size is None:
            await self._come_without_time()
            if not self._coming.done():
                break
            self._take()
        return self._with_body(bytes(self._received[: self._first_size]))

    async def whole(self) -> httpx2.Response:
        """Let time pass until all of it is there, and return the response with it.

        Raises:
            Stuck: it does not end.
        """
        while await self.next() is not None:
            pass
        return self._with_body(bytes(self._received))

    async def next(self) -> bytes | None:
        """Let time pass until more has come, and return that; `None` at the end.

        Raises:
            Stuck: nothing comes.
        """
        while True:
            await self._come()
            if (chunk := self._take()) is not None:
                return chunk
            if (url := self._continues_at()) is None:
                return None
            client = self._world.client
            request = client.build_request("GET", url, headers={"accept": EVENTS})
            await self._now.aclose()
            self._read(await client.send(request, stream=True))

    async def aclose(self) -> None:
        """Hang up."""
        for one in (self._coming, self._settling):
            if one is not None and not one.done():
                one.cancel()
                await asyncio.wait((one,))
        await self._now.aclose()

    def for_thread(
        self, call: Callable[[Coroutine[Any, Any, bytes | None]], bytes | None]
    ) -> httpx2.Response:
        """Return the response, to be read in a thread.

        Args:
            call: carries out a coroutine on the loop.
        """
        return self._with_stream(_InThread(self, call))

    def for_loop(self, patience: float) -> httpx2.Response:
        """Return the response, to be read on the loop.

        Args:
            patience: seconds of real time that the next part of it may take.
        """
        return self._with_stream(_OnLoop(self, patience))

    def _read(self, response: httpx2.Response) -> None:
        self._now, self._began = response, len(self._received)
        self._chunks = aiter(response.aiter_bytes())
        self._coming = asyncio.ensure_future(anext(self._chunks, None))

    def _take(self) -> bytes | None:
        """Return what has come; `None` at the end of what is read now."""
        chunk = self._coming.result()
        if chunk is not None:
            self._received += chunk
            self._coming = asyncio.ensure_future(anext(self._chunks, None))
        elif self._first_size is None:
            self._first_size = len(self._received)
        return chunk

    def _continues_at(self) -> str | None:
        found = _CONTINUES.findall(self._received, self._began) if self._follow else ()
        return json.loads(found[-1])["url"] if found else None

    async def _come(self) -> None:
        """Let time pass until something has come."""
        while True:
            await self._come_without_time()
            if self._coming.done():
                return
            if not await self._world.turn():
                runs = await self._world.runs()
                if all(run.ended for run in runs):  # it will end, too
                    await asyncio.wait((self._coming,))
                    return
                shown = "\n\n".join(map(str, runs))
                raise Stuck(f"nothing is due any more, and the stream does not end:\n\n{shown}")

    async def _come_without_time(self) -> None:
        """Return once something has come, or would come only if time passed."""
        while not self._coming.done():
            if self._settling is None or self._settling.done():
                self._settling = asyncio.ensure_future(self._settle())
            await asyncio.wait((self._settling, self._coming), return_when=asyncio.FIRST_COMPLETED)
            if not self._settling.done():  # what has come may be needed for its end
                return
            self._settling.result()
            await asyncio.wait((self._coming,), timeout=_GLANCE)
            if not self._world.calls_under_way:
                return

    async def _settle(self) -> None:
        await self._world.settle()
        for _ in range(_READS):
            await self._world.engine.store.read(lambda _: None)
            await asyncio.sleep(0)

    def _with_body(self, body: bytes) -> httpx2.Response:
        head = self._head
        response = httpx2.Response(
            head.status_code, headers=self._headers, content=body, request=head.request
        )
        response.history = head.history
        return response

    def _with_stream(self, stream: _InThread | _OnLoop) -> httpx2.Response:
        head = self._head
        return httpx2.Response(
            head.status_code, headers=self._headers, stream=stream, request=head.request
        )

    @property
    def _headers(self) -> list[tuple[bytes, bytes]]:
        return [
            pair for pair in self._head.headers.raw if pair[0].decode().lower() not in _OF_ITS_BODY
        ]


class _InThread(httpx2.SyncByteStream):
    def __init__(
        self,
        followed: FollowedStream,
        call: Callable[[Coroutine[Any, Any, bytes | None]], bytes | None],
    ) -> None:
        self._followed = followed
        self._call = call

    def __iter__(self) -> Iterator[bytes]:
        while (chunk := self._call(self._followed.next())) is not None:
            yield chunk


class _OnLoop(httpx2.AsyncByteStream):
    def __init__(self, followed: FollowedStream, patience: float) -> None:
        self._followed = followed
        self._patience = patience

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (chunk := await within(self._patience, self._followed.next())) is not None:
            yield chunk
