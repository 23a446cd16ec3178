"""Shows what waits: behind limits of functions, as held events, and for room of applications."""

from __future__ import annotations

from starlette.responses import Response

from stephttp.engine.dashboard.page_request import PageRequest


async def queues(request: PageRequest) -> Response:
    """Show what waits."""
    reader = request.engine.reader
    return request.render(
        "queues.html",
        queues=await reader.queues(),
        used=request.engine.executor.gates.used,
        waiting_by_origin=sorted((await reader.waiting_by_origin()).items()),
        trying=request.engine.executor.origins.trying,
    )
