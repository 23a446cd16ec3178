"""The ASGI application around an `Engine`: `create_app`, its routes and its lifespan."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from random import Random

import httpx2
from starlette.applications import Starlette
from starlette.types import ASGIApp

from stephttp.engine.api import ROUTES
from stephttp.engine.dashboard import ROUTES as PAGES
from stephttp.engine.dashboard import dashboard
from stephttp.engine.engine import Engine
from stephttp.engine.model.clock import Clock
from stephttp.engine.model.settings import Settings
from stephttp.engine.web.exception_handlers import EXCEPTION_HANDLERS
from stephttp.engine.web.guard import Guard


class _Application(Starlette):
    """Starlette, with `Guard` around all of it.

    Starlette puts added middleware inside the one that answers unexpected errors, whose responses
    would then lack what the guard adds.
    """

    def build_middleware_stack(self) -> ASGIApp:
        return Guard(super().build_middleware_stack(), self.state.engine)


def create_app(
    settings: Settings | None = None,
    *,
    clock: Clock | None = None,
    rng: Random | None = None,
    transport: httpx2.AsyncBaseTransport | None = None,
    gateway: httpx2.AsyncBaseTransport | None = None,
) -> Starlette:
    """Make the ASGI application of an engine; its lifespan starts and stops the engine.

    The arguments are those of `Engine`. The engine itself is at `app.state.engine`.
    """
    engine = Engine(
        settings or Settings(), clock=clock, rng=rng, transport=transport, gateway=gateway
    )

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        await engine.start()
        try:
            yield
        finally:
            await engine.stop()

    app = _Application(
        routes=[*ROUTES, *PAGES],
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=lifespan,
    )
    # A slash too many is another path. A redirect would lead to the host that the request names.
    app.router.redirect_slashes = False
    app.state.engine = engine
    app.state.dashboard = dashboard(engine)
    return app
