"""Sleeping and waiting on event loops, without importing asyncio before there is one: a program
that has none, as under WSGI, would spend half of `import stephttp` on it.
"""

from __future__ import annotations

from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from threading import get_ident
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio


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
        done, thread = asyncio.get_running_loop().create_future(), get_ident()
        future.add_done_callback(lambda _: _wake(done, thread))
        if timeout is None:
            await done
        else:
            await asyncio.wait((done,), timeout=timeout)
    return future.done()


def either(*futures: Future[None]) -> Future[None]:
    """Return a future that is done when one of these is."""
    first: Future[None] = Future()

    def one_is(_: Future[None]) -> None:
        with suppress(InvalidStateError):  # another was before
            first.set_result(None)

    for future in futures:
        future.add_done_callback(one_is)
    return first


def _wake(waiter: asyncio.Future[None], thread: int) -> None:
    """Let a coroutine of the event loop in `thread` continue. May be called in any thread."""
    with suppress(RuntimeError):  # its loop may be closed
        if get_ident() == thread:
            _set(waiter)
        else:
            waiter.get_loop().call_soon_threadsafe(_set, waiter)


def _set(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
