"""How the engine's own tasks end, which run beside its requests."""

from __future__ import annotations

import asyncio
from contextlib import suppress


async def cancelled(task: asyncio.Task[None] | None) -> None:
    """Cancel a task, if there is one, and wait until it has ended."""
    if task is not None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
