"""Which files does a request walk through, and have to be opened to follow it?

    python -m benchmarks.walk

An application, the SDK and an engine in one process, warmed up. Then the profiler of Python notes
each file of `src/stephttp` in which a function is called: by the SDK for a request with two steps
(until it is answered) and for one with a sleep and its re-entry, and by the engine for the first
checkpoint, the wake-up and the settlement of the latter.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import httpx2
from fastapi import FastAPI

import stephttp
from stephttp import step
from tests.durable import Durable, durable

SOURCE = str(Path(stephttp.__file__).parent) + "/"
SHARED = "_wire/"
"""Files of this package belong to the walk of the side that called them."""
NO_PART = frozenset({"idle", "rests", "must_look"})
"""By functions of these names tests wait for an engine; a request calls none."""


def build(provider: stephttp.Provider) -> Any:
    """The application: one endpoint with two steps, one with a sleep between them."""
    app = FastAPI()

    async def double(number: int) -> int:
        return number * 2

    @app.post("/steps")
    async def steps(number: int) -> int:
        return await step.run("again", double, await step.run("double", double, number))

    @app.post("/sleep")
    async def sleep(number: int) -> int:
        first = await step.run("double", double, number)
        await step.sleep("rest", timedelta(seconds=10))  # before the next sweep
        return await step.run("again", double, first)

    return provider.asgi(app)


@contextmanager
def watched(files: set[str]) -> Generator[None]:
    """Note the files of stephttp in which functions are called, in all threads."""

    def note(frame: FrameType, event: str, _: Any) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(SOURCE) and frame.f_code.co_name not in NO_PART:
            name = name.removeprefix(SOURCE)
            if not name.startswith(SHARED) or not _of_the_engine(frame):
                files.add(name)

    threading.setprofile(note)  # for threads that start from now on, such as the store's
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def _of_the_engine(frame: FrameType | None) -> bool:
    """Return whether the engine called a function of a package that both sides share."""
    while frame is not None:
        name = frame.f_code.co_filename.removeprefix(SOURCE)
        if name != frame.f_code.co_filename and not name.startswith(SHARED):
            return name.startswith("engine/")
        frame = frame.f_back
    return False


async def _request(world: Durable, path: str) -> httpx2.Response:
    answer = await world.client.post(path, params={"number": 3})
    if answer.status_code == 303:
        await world.engine.idle()
        await world.turn()
    return answer


async def _walk(path: str) -> set[str]:
    files: set[str] = set()
    with watched(files):
        async with durable(build) as world:
            await _request(world, path)  # fills caches
            assert await world.provider.wait()
            files.clear()
            answer = await _request(world, path)
            walked = set(files)
            if answer.status_code == 303:
                assert await world.status(answer) == "Completed"
            else:
                assert answer.json() == 12, answer.text
    return walked


def sdk(path: str) -> set[str]:
    """The SDK's files that a request to `path` walks through."""
    return {name for name in asyncio.run(_walk(path)) if not name.startswith("engine/")}


def engine(path: str) -> set[str]:
    """The engine's files that a request to `path` walks through."""
    return {name for name in asyncio.run(_walk(path)) if name.startswith("engine/")}


WALKS: dict[str, Callable[[], set[str]]] = {
    "SDK, a request with two steps": lambda: sdk("/steps"),
    "SDK, a request with a sleep and its re-entry": lambda: sdk("/sleep"),
    "engine, first checkpoint, wake-up and settlement": lambda: engine("/sleep"),
}


if __name__ == "__main__":
    for what, files in WALKS.items():
        walked = files()
        print(f"{len(walked):3} {what}")
        print("    " + "\n    ".join(sorted(walked)))
