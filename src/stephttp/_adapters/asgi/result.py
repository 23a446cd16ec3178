"""Serves `result_path` under ASGI; `_run.result_path` decides what to answer."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from stephttp._adapters.asgi.messages import Receive, Send, reply_with
from stephttp._client.drivers import Streamed
from stephttp._client.flow import Call
from stephttp._run import result_path
from stephttp._run.runtime import Runtime
from stephttp._wire.http import Request, Response
from stephttp.errors import APIConnectionError, APITimeoutError


async def serve_result(runtime: Runtime, request: Request, receive: Receive, send: Send) -> None:
    """Answer a request for the result of a run; give up when the caller leaves."""
    planned = result_path.plan(request)
    if isinstance(planned, Response):
        await _whole(send, planned, request)
        return
    passing = asyncio.ensure_future(_pass_on(runtime, request, planned, send))
    leaving = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({passing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if passing.done():
            passing.result()
    finally:
        for task in (passing, leaving):
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task


async def _pass_on(runtime: Runtime, request: Request, call: Call, send: Send) -> None:
    path = runtime.settings.result_path
    begun = False
    try:
        async with runtime.stream(call) as streamed:
            first = await _peek(streamed)
            if result_path.still_running(streamed.status, first):
                await _whole(send, result_path.not_yet(request, path), request)
                return
            if not result_path.of_the_server(runtime.checkpoints.keys, streamed, first):
                await _whole(send, result_path.unreachable(request), request)
                return
            begun = True
            headers = result_path.head(streamed.headers, request)
            await send(
                {"type": "http.response.start", "status": streamed.status, "headers": headers}
            )
            if request.method != "HEAD":
                await send({"type": "http.response.body", "body": first, "more_body": True})
                async for chunk in streamed.chunks:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
    except APIConnectionError as error:
        if begun:
            raise  # the server ends the connection: the caller sees that the body is not whole
        late = isinstance(error, APITimeoutError)
        reply = result_path.not_yet(request, path) if late else result_path.unreachable(request)
        await _whole(send, reply, request)


async def _peek(streamed: Streamed) -> bytes:
    """Read the beginning of the body; all of it where that is shorter."""
    first = b""
    async for chunk in streamed.chunks:
        first += chunk
        if len(first) >= result_path.PEEKED:
            break
    return first


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _whole(send: Send, response: Response, request: Request) -> None:
    if request.method == "HEAD":
        response.body = b""
    await reply_with(send, response, [])
