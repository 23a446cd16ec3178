"""Access to the running event loop. A program without one, as under WSGI, does not import asyncio,
which would make up half of `import stephttp`."""

from __future__ import annotations

import sys
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread."""
    imported = sys.modules.get("asyncio")
    if imported is None:
        return None
    try:
        loop: asyncio.AbstractEventLoop = imported.get_running_loop()
    except RuntimeError:
        return None
    return loop


async def sleep(seconds: float) -> None:
    """`asyncio.sleep`."""
    import asyncio

    await asyncio.sleep(seconds)


async def settled(future: Future[Any], timeout: float | None) -> bool:
    """Wait for a future that another thread may settle, without cancelling it.

    Args:
        timeout: seconds; `None` waits for as long as it takes.

    Returns:
        Whether it has an outcome.
    """
    import asyncio

    if not future.done():
        done = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda _: _notify(done))
        if timeout is None:
            await done
        else:
            await asyncio.wait((done,), timeout=timeout)
    return future.done()


def _notify(waiter: asyncio.Future[None]) -> None:
    """Set the result of a waiter, from any thread."""
    loop = waiter.get_loop()
    if running_loop() is loop:
        _set(waiter)
    else:
        with suppress(RuntimeError):  # its loop may be closed
            loop.call_soon_threadsafe(_set, waiter)


def _set(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
