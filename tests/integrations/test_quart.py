"""What a Quart user sees around a handler that waits."""

from datetime import timedelta

from quart import Quart, g

import stephttp
from stephttp import step
from tests.durable import durable


async def test_clean_up_runs_once_a_call() -> None:
    app, log = Quart(__name__), list[str]()

    @app.before_request
    async def open_session() -> None:
        g.session = "s"
        log.append("open")

    @app.teardown_request
    async def close_session(error: BaseException | None) -> None:
        log.append("close")

    @app.get("/")
    async def handler() -> str:
        await step.sleep("nap", timedelta(minutes=1))
        return str(await step.run("a", lambda: g.session))

    async with durable(lambda provider: provider.asgi(app)) as world:
        first = await world.client.get("/")
        assert log == ["open", "close"]
        final = await world.follow(first)
        assert (final.status_code, final.text) == (200, "s")
        assert log == ["open", "close"] * 2


async def test_the_test_client_needs_no_engine() -> None:
    app = Quart(__name__)
    provider = stephttp.setup("http://app.test")
    app.asgi_app = provider.asgi(app.asgi_app)  # type: ignore[method-assign]

    @app.get("/")
    async def handler() -> str:
        return str(await step.run("a", lambda: "ran"))

    answer = await app.test_client().get("/")
    assert await answer.get_data(as_text=True) == "ran"
    assert "x-run-id" in answer.headers
