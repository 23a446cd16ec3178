"""Serves `result_path` under ASGI; `_run.result_path` decides what to answer."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from stephttp._adapters.asgi.messages import Receive, Send, reply_with
from stephttp._client.drivers import Streamed
from stephttp._run import result_path
from stephttp._run.asking import Outcome
from stephttp._run.result_path import Question
from stephttp._run.runtime import Runtime
from stephttp._wire.http import Request, Response, text_headers
from stephttp.errors import APIConnectionError


async def serve_result(runtime: Runtime, request: Request, receive: Receive, send: Send) -> None:
    """Answer a request for the result of a run; give up when the caller leaves."""
    planned = result_path.plan(runtime, request)
    if isinstance(planned, Response):
        await _whole(send, planned, request)
        return
    passing = asyncio.ensure_future(_pass_on(runtime, planned, send))
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


async def _pass_on(runtime: Runtime, question: Question, send: Send) -> None:
    asking = question.asking(runtime.checkpoints.keys, runtime.settings.hold, runtime.monotonic)
    request, begun, pending = question.request, False, b""
    checkpoints = runtime.checkpoints
    while True:
        unsure: Response | None = None
        try:
            async with runtime.stream(asking.call()) as streamed:
                first = await _first(streamed)
                headers = dict(text_headers(streamed.headers))
                outcome = asking.read(streamed.status, headers, first)
                if outcome is Outcome.RESULT:
                    question.note(runtime, headers)
                    if question.follows and result_path.is_whole(headers):
                        body = first + b"".join([chunk async for chunk in streamed.chunks])
                        answer = Response(streamed.status, streamed.headers, body)
                        await _whole(send, question.as_event(answer), request)
                        return
                    begun = True
                    await _stream(send, streamed, first, request)
                    return
                if outcome is Outcome.NOT_YET:
                    pending = first + b"".join([chunk async for chunk in streamed.chunks])
                if outcome is Outcome.UNSURE:
                    body = first + b"".join([chunk async for chunk in streamed.chunks])
                    unsure = Response(streamed.status, streamed.headers, body)
        except APIConnectionError as error:
            if begun and (question.events or question.follows):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return  # the caller asks for the rest of them
            if begun:
                raise  # the server ends the connection: the caller sees that the body is not whole
            outcome = asking.failed(error)
        if unsure is not None:
            from stephttp._run.second_look import look

            seen = await runtime.drive(
                look(question.run_id, unsure, checkpoints.keys, checkpoints.rng)
            )
            if seen is not None:
                await _whole(send, question.whole(seen), request)
                return
            outcome = asking.failed()
        if isinstance(outcome, Outcome):
            await _whole(send, question.not_yet(pending), request)
            return
        await runtime.pause(outcome.seconds)


async def _stream(send: Send, streamed: Streamed, first: bytes, request: Request) -> None:
    headers = result_path.head(streamed.headers, request)
    await send({"type": "http.response.start", "status": streamed.status, "headers": headers})
    if request.method != "HEAD":
        await send({"type": "http.response.body", "body": first, "more_body": True})
        async for chunk in streamed.chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _first(streamed: Streamed) -> bytes:
    """Read the first part of the body; empty if it has none."""
    async for chunk in streamed.chunks:
        if chunk:
            found: bytes = chunk
            return found
    return b""


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _whole(send: Send, response: Response, request: Request) -> None:
    if request.method == "HEAD":
        response.body = b""
    await reply_with(send, response, [])
