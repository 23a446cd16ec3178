"""What belongs to a run is made when its handler first needs it, in whatever thread that is."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections import Counter
from contextvars import copy_context
from datetime import timedelta
from functools import partial
from typing import Any

import flask
import httpx2
import pytest
from asgiref.wsgi import WsgiToAsgi

import stephttp
from stephttp import CannotWaitError
from stephttp.options import resolve
from stephttp.provider import Provider
from stephttp.sync import step
from tests.durable import durable

NAP = timedelta(minutes=1)
THREADS = 4
"""No more than the loop's executor has on one core."""


class Together:
    """A handler whose threads all come to their first step at the same time."""

    def __init__(self, when: str) -> None:
        self.when = when
        self.ran: Counter[int] = Counter()
        self.raised: list[BaseException] = []
        self.barrier = threading.Barrier(THREADS)
        self.left: list[asyncio.Task[None]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": []}
        if self.when == "after the response has started":
            await send(start)
        threads = [asyncio.create_task(asyncio.to_thread(self.go, n)) for n in range(THREADS)]
        if self.when == "after the handler has ended":
            self.left = threads
        else:
            await asyncio.gather(*threads)
        if self.when != "after the response has started":
            await send(start)
        await send({"type": "http.response.body", "body": b"done"})

    def go(self, number: int) -> None:
        self.barrier.wait()
        step.run(f"step {number}", self.ran.update, [number])
        if self.when != "at first":
            try:
                step.sleep(f"nap {number}", NAP)
            except CannotWaitError as error:
                self.raised.append(error)


@pytest.mark.parametrize(
    "when", ["at first", "after the response has started", "after the handler has ended"]
)
async def test_threads_that_come_to_a_first_step_together_are_in_one_run(when: str) -> None:
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(20):
            handler = Together(when)
            async with durable(partial(Provider.asgi, app=handler)) as world:
                answer = await world.client.get("/")
                await asyncio.gather(*handler.left)
                assert (answer.status_code, answer.text) == (200, "done")
                assert handler.ran == dict.fromkeys(range(THREADS), 1)
                assert len(handler.raised) == (0 if when == "at first" else THREADS)
    finally:
        sys.setswitchinterval(switch)


async def test_a_step_in_a_thread_of_an_application_that_runs_in_no_task() -> None:
    """Some servers drive coroutines themselves."""
    settings = resolve("http://app", base_url="http://engine", environ={"INNGEST_DEV": "1"})
    provider = Provider(settings)
    provider.runtime.outbox.put = lambda item: True  # type: ignore[method-assign]
    loop = asyncio.get_running_loop()
    results: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        call = partial(copy_context().run, partial(step.run, "a", int))
        results.append(await loop.run_in_executor(None, call))

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"app")]}
    done = loop.create_future()
    coroutine = provider.asgi(app)(scope, _nothing, _nothing)
    context = copy_context()

    def drive(value: Any = None) -> None:
        try:
            waited = context.run(coroutine.send, None)
        except StopIteration:
            done.set_result(None)
        except BaseException as error:
            done.set_exception(error)
        else:
            waited._asyncio_future_blocking = False
            waited.add_done_callback(drive)

    loop.call_soon(drive)
    await done
    assert results == [0]


async def _nothing(*_: Any) -> Any:
    raise AssertionError("nobody asks")


async def test_a_wsgi_application_in_the_adapter_of_asgiref() -> None:
    app = flask.Flask("inner")
    ran: list[str] = []

    @app.post("/")
    def echo() -> bytes:
        step.run("note", ran.append, "x")
        return flask.request.get_data()

    settings = resolve("http://app", base_url="http://engine", environ={"INNGEST_DEV": "1"})
    provider = stephttp.Provider(settings)
    provider.runtime.outbox.put = lambda item: True  # type: ignore[method-assign]
    inner = WsgiToAsgi(app)  # type: ignore[no-untyped-call]
    transport = httpx2.ASGITransport(provider.asgi(inner))
    async with httpx2.AsyncClient(transport=transport, base_url="http://app") as client:
        answer = await client.post("/", content=b"body")
    assert (answer.status_code, answer.content, ran) == (200, b"body", ["x"])


async def test_what_outlives_the_handler_can_still_ask_whether_the_caller_is_there() -> None:
    over, tasks, heard = asyncio.Event(), [], []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def listen() -> None:
            await over.wait()
            heard.append(await receive())
            heard.append(await stephttp.step.run("late", int))

        tasks.append(asyncio.create_task(listen()))

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"app")]}
    await _provider().asgi(app)(scope, receive, _nothing)
    over.set()
    await asyncio.gather(*tasks)
    assert heard == [{"type": "http.disconnect"}, 0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="3.12 warns of forks beside threads")
def test_a_process_forked_while_a_run_is_made_can_make_runs() -> None:
    provider = _provider()
    with provider.runtime.opening:
        child = os.fork()
        if not child:
            signal.alarm(10)
            os._exit(0 if _opens(provider) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _provider() -> Provider:
    settings = resolve("http://app", base_url="http://engine", environ={"INNGEST_DEV": "1"})
    return Provider(settings)


def _opens(provider: Provider) -> bool:
    """Whether a request comes to a step here."""
    provider.runtime.outbox.put = lambda item: True  # type: ignore[method-assign]
    ran: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await stephttp.step.run("note", ran.append, "x")

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"app")]}
    asyncio.run(provider.asgi(app)(scope, _nothing, _nothing))
    return ran == ["x"]
