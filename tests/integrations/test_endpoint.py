"""`Provider.endpoint`, `configure` and waiting for delivery."""

import asyncio
import json
import threading
from datetime import timedelta
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Query

import stephttp
from stephttp import Checkpointing, FnOpts, step
from stephttp import sync as stephttp_sync
from stephttp._run.current import current_scope
from tests.durable import Durable, durable

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
            scope = current_scope()
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
        {"max_runtime": timedelta(0)},
    ],
)
def test_nonsense_is_refused_at_once(options: Any) -> None:
    provider = stephttp.setup("x", base_url="http://e")
    with pytest.raises((ValueError, stephttp.ConfigurationError), match=next(iter(options))):
        provider.endpoint(**options)
    with pytest.raises((ValueError, stephttp.ConfigurationError), match=next(iter(options))):
        stephttp.configure(**options)


@pytest.mark.parametrize("blocking", [False, True])
async def test_the_decorator_sets_keys_and_pace(blocking: bool) -> None:
    """And `configure` still refines them."""
    app = FastAPI()
    ran: list[str] = []
    world: Durable

    modes = set[Checkpointing]()

    def tick(name: str) -> str:
        scope = current_scope()
        assert scope is not None
        modes.add(scope.checkpointing)
        ran.append(name)
        world.clock.advance(4)
        return name

    def key(order: str) -> str | None:
        return None if order == "none" else order

    def build(provider: stephttp.Provider) -> Any:
        endpoint = provider.endpoint(
            idempotency=key, max_runtime=timedelta(seconds=6), checkpointing=Checkpointing.safe
        )

        @app.post("/async/{order}")
        @endpoint
        async def on_loop(order: str) -> list[str]:
            if order == "patient":
                stephttp.configure(max_runtime=timedelta(hours=1))
            return [await step.run(name, tick, name) for name in "abc"]

        @app.post("/blocking/{order}")
        @endpoint
        def in_thread(order: str) -> list[str]:
            if order == "patient":
                stephttp.configure(max_runtime=timedelta(hours=1))
            return [stephttp_sync.step.run(name, tick, name) for name in "abc"]

        return provider.asgi(app)

    async with durable(build) as made:
        world = made
        path = "/blocking/" if blocking else "/async/"
        first = await world.client.post(path + "1")
        assert (first.status_code, ran) == (303, ["a", "b"])
        assert (await world.follow(first)).json() == ["a", "b", "c"]
        again = await world.client.post(path + "1")
        assert (again.status_code, again.json()) == (200, ["a", "b", "c"])
        assert again.headers["x-run-id"] == first.headers["x-run-id"]
        assert ran == ["a", "b", "c"]
        for _ in range(2):  # no key, so both are runs of their own
            assert (await world.client.post(path + "none")).status_code == 303
        patient = await world.client.post(path + "patient")
        assert (patient.status_code, patient.json()) == (200, ["a", "b", "c"])
        assert await world.provider.wait()
    assert modes == {Checkpointing.safe}


async def test_a_key_that_is_no_text_is_refused() -> None:
    with pytest.raises(stephttp.ConfigurationError, match="idempotency must be a function"):
        stephttp.setup("x", base_url="http://e").endpoint(idempotency="k")  # type: ignore[arg-type]

    def build(provider: stephttp.Provider) -> Any:
        app = FastAPI()

        @app.post("/{order}")
        @provider.endpoint(idempotency=lambda order: order)
        async def handler(order: int) -> int:
            return await step.run("a", lambda: order)

        return provider.asgi(app)

    async with durable(build) as world:
        with pytest.raises(stephttp.UsageError, match="must be a text, not 7"):
            await world.client.post("/7")


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
        assert world.provider.runtime.outbox.depth == 1
        assert not await asyncio.to_thread(world.provider.wait_sync, 0)
        world.to_engine.down = False
        assert await asyncio.to_thread(world.provider.wait_sync)
        assert world.provider.runtime.outbox.depth == 0
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
        provider, provider.settings, provider.runtime.checkpoints, client, blocking,
        client._flows.keys, run,
    ]  # fmt: skip
    for thing in parts:
        for secret in (key, fallback, event, "tok-secret", "sig-secret"):
            assert secret not in repr(thing)
