"""`Provider.endpoint`, `configure` and waiting for delivery."""

import asyncio
import json
import threading
from datetime import timedelta
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Query

import stephttp
from stephttp import FnOpts, step
from stephttp import sync as stephttp_sync
from tests.durable import durable

NAP = timedelta(minutes=1)


async def test_the_decorator_leaves_the_frameworks_view_of_the_handler_as_it_is() -> None:
    app = FastAPI()
    tried: list[int] = []

    def build(provider: stephttp.Provider) -> Any:
        @app.get("/orders/{order}")
        @provider.endpoint(id="get-order", retries=2)
        async def get_order(order: int, q: str = Query("x"), n: int = Depends(lambda: 7)) -> str:
            """Documented."""

            def body() -> str:
                tried.append(order)
                assert len(tried) == 3
                return f"{order}{q}{n}"

            return await step.run("a", body)

        @app.get("/plain/{order}")
        @provider.endpoint(id="plain")
        def plain(order: int) -> int:
            return stephttp_sync.step.run("a", lambda: order + 1)

        assert get_order.__name__ == "get_order"
        assert get_order.__doc__ == "Documented."
        return provider.asgi(app)

    async with durable(build) as world:
        first = await world.client.get("/orders/5?q=y")
        assert (await world.follow(first)).json() == "5y7"
        assert tried == [5, 5, 5]
        assert (await world.client.get("/orders/five")).status_code == 422
        assert (await world.client.get("/plain/1")).json() == 2
        assert await world.provider.wait()
        sent = [json.loads(r.content) for r in world.to_engine.requests if r.content]
        ids = {s["event"]["data"]["fn"] for s in sent if "event" in s}
        assert ids == {"get-order", "plain"}
        assert world.to_app.app.app.openapi()["paths"].keys() == {
            "/orders/{order}",
            "/plain/{order}",
        }


async def test_configure_refines_the_decorator_and_warns_at_the_second_call() -> None:
    app = FastAPI()

    def build(provider: stephttp.Provider) -> Any:
        @app.get("/")
        @provider.endpoint(id="outer", retries=1)
        async def handler() -> list[Any]:
            stephttp.configure(FnOpts(id="inner", omit_request_body=True), retries=2)
            from stephttp._context import current_run

            scope = current_run.get()
            assert scope is not None
            with pytest.warns(UserWarning, match="configure was called twice"):
                stephttp.configure(omit_response_body=True)
            opts = scope.run.opts
            return [opts.id, opts.omit_request_body, opts.omit_response_body, scope.run.retries]

        return provider.asgi(app)

    async with durable(build) as world:
        assert (await world.client.get("/")).json() == ["inner", True, True, 2]


@pytest.mark.parametrize(
    "options",
    [
        {"retries": -1},
        {"retries": 21},
        {"id": ""},
        {"async_response": stephttp.AsyncResponseToken},
        {"async_response": lambda: None},
    ],
)
def test_nonsense_is_refused_at_once(options: Any) -> None:
    provider = stephttp.setup("x", base_url="http://e")
    with pytest.raises((ValueError, stephttp.ConfigurationError), match=next(iter(options))):
        provider.endpoint(**options)
    with pytest.raises((ValueError, stephttp.ConfigurationError), match=next(iter(options))):
        stephttp.configure(**options)


def test_outside_a_request_it_does_nothing() -> None:
    provider = stephttp.setup("x", base_url="http://e")
    assert provider.endpoint(id="f")(lambda a: a + 1)(1) == 2
    stephttp.configure(id="f")
    stephttp.update_omit_response_body(True)


def app_with_a_step() -> FastAPI:
    app = FastAPI()

    @app.get("/")
    async def handler() -> int:
        return await step.run("a", lambda: 1)

    return app


async def test_wait_sync_waits_from_another_thread() -> None:
    async with durable(lambda p: p.asgi(app_with_a_step())) as world:
        world.to_engine.down = True
        await world.client.get("/")
        assert world.provider.outbox.depth == 1
        assert not await asyncio.to_thread(world.provider.wait_sync, 0)
        world.to_engine.down = False
        assert await asyncio.to_thread(world.provider.wait_sync)
        assert world.provider.outbox.depth == 0
        with pytest.raises(stephttp.UsageError, match=r"await provider\.wait"):
            world.provider.wait_sync()


def test_wait_sync_delivers_after_the_loop_has_ended() -> None:
    from tests.realserver import RealServer

    server = RealServer()
    provider = server.provider()
    server.app = provider.asgi(app_with_a_step())

    async def serve() -> None:
        async with server.client() as client:
            server.down = lambda request: True
            assert (await client.get("/")).json() == 1

    asyncio.run(serve())
    assert server.runs == {}
    server.down = lambda request: False
    assert provider.wait_sync(60)
    assert [run.status for run in server.runs.values()] == ["Completed"]
    done = threading.Thread(target=provider.wait_sync)
    done.start()
    done.join(60)
    assert not done.is_alive()


def test_nothing_secret_shows() -> None:
    key, fallback, event = "ab" * 16, "cd" * 16, "event-secret"
    provider = stephttp.setup(
        "x", signing_key=key, signing_key_fallback=fallback, event_key=event, base_url="http://e"
    )
    client = stephttp.APIClient("http://e", key, fallback)
    blocking = stephttp_sync.APIClient("http://e", key, fallback)
    run = stephttp.CheckpointRun("R", token="tok-secret", signature="sig-secret")
    parts = [
        provider, provider.settings, provider.lifecycle, client, blocking, client._flows.keys, run,
    ]  # fmt: skip
    for thing in parts:
        for secret in (key, fallback, event, "tok-secret", "sig-secret"):
            assert secret not in repr(thing)
