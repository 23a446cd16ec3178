"""Clients and middleware of Inngest's own Python SDK, on endpoints."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import inngest
import pytest
from inngest_encryption import EncryptionMiddleware

import stephttp
from stephttp import step
from stephttp._wire.ids import hash_step_id
from stephttp.integrations.inngest import StepMiddleware, adapt, setup
from stephttp.options import CLOUD_URL
from stephttp.sync import step as sync_step
from tests.durable import Durable
from tests.styles import STYLES, serving

NAP = timedelta(minutes=1)
HIDDEN = "4111-1111-1111-1111"
client = inngest.Inngest(app_id="shop", is_production=False)
encryption = EncryptionMiddleware.factory("a secret")
seen: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_seen() -> Iterator[None]:
    seen.clear()
    yield
    seen.clear()


async def stored(world: Durable) -> str:
    """All that is in the engine's database."""
    dump: str = await world.engine.store.read(lambda db: "\n".join(db.iterdump()))
    return dump


def decrypted(data: Any, middleware: Any = encryption) -> Any:
    """As an Inngest function with that middleware gets it."""
    memos = inngest.StepMemos.from_raw({"h": {"data": data}})
    event = inngest.Event(name="e")
    ctx: Any = type("Context", (), {"event": event, "events": [event]})()
    function: Any = None
    middleware(client, None).transform_input(ctx, function, memos)
    (memo,) = memos.values()
    return memo.data


@STYLES
async def test_results_are_encrypted_with_the_engine_and_plain_in_the_handler(style: str) -> None:
    def card() -> dict[str, str]:
        return {"number": HIDDEN}

    async def on_loop() -> int:
        seen.append(await step.run("card", card))
        await step.sleep("nap", NAP)
        seen.append(await step.run("again", lambda: [HIDDEN]))
        await step.sleep("more", NAP)
        return len(seen)

    def in_thread() -> int:
        seen.append(sync_step.run("card", card))
        sync_step.sleep("nap", NAP)
        seen.append(sync_step.run("again", lambda: [HIDDEN]))
        sync_step.sleep("more", NAP)
        return len(seen)

    async with serving(style, on_loop, in_thread, middleware=[adapt(client, encryption)]) as world:
        first = await world.client.get("/")
        await world.engine.idle()
        memos = (await world.api.get(f"/v0/runs/{first.headers['x-run-id']}/actions")).json()
        (kept,) = [memo["data"] for memo in memos.values() if "__ENCRYPTED__" in str(memo)]
        assert kept["__STRATEGY__"] == "inngest/libsodium"
        assert decrypted(kept) == {"number": HIDDEN}
        assert (await world.follow(first)).json() == 5
        wire = b"".join(request.content for request in world.to_engine.requests)
        assert HIDDEN not in await stored(world)
        assert HIDDEN.encode() not in wire
    both = [{"number": HIDDEN}, [HIDDEN]]
    assert seen == [both[0], *both, *both]


@STYLES
async def test_events_and_the_data_of_invoked_functions_are_encrypted(style: str) -> None:
    event = inngest.Event(name="shop/paid", data={"id": 7, "encrypted": {"card": HIDDEN}})
    asked = {"n": 1, "encrypted": {"card": HIDDEN}}

    async def on_loop() -> list[str]:
        ids = await step.send_event("send", event)
        try:
            await step.invoke_by_id("other", function_id="shop-other", data=asked)
        except stephttp.StepError:
            pass
        return ids

    def in_thread() -> list[str]:
        ids = sync_step.send_event("send", [event])
        try:
            sync_step.invoke_by_id("other", function_id="shop-other", data=asked)
        except stephttp.StepError:
            pass
        return ids

    async with serving(style, on_loop, in_thread, middleware=[adapt(client, encryption)]) as world:
        first = await world.client.get("/")
        checkpoints = [
            json.loads(one.content) for one in world.to_engine.requests if b"steps" in one.content
        ]
        (invoke,) = [
            op for one in checkpoints for op in one["steps"] if op["op"] == "InvokeFunction"
        ]
        (ident,) = (await world.follow(first)).json()
        data = (await world.api.get(f"/v1/events/{ident}")).json()["data"]["data"]
        assert HIDDEN not in await stored(world)
    assert (data["id"], decrypted(data["encrypted"])) == (7, {"card": HIDDEN})
    sent = invoke["opts"]["payload"]["data"]
    assert (sent["n"], decrypted(sent["encrypted"])) == (1, {"card": HIDDEN})
    assert event.data["encrypted"] == {"card": HIDDEN}, "the handler's own event stays as it is"


async def test_what_others_have_encrypted_is_read_with_a_fallback_key_too() -> None:
    result = inngest.TransformOutputResult(None, {"card": HIDDEN}, None)
    EncryptionMiddleware(client, None, "the old secret").transform_output(result)
    rotating = EncryptionMiddleware.factory(
        "a new one", fallback_decryption_keys=["the old secret"]
    )

    def never() -> Any:
        raise AssertionError("it is remembered")

    async def handler() -> Any:
        await step.sleep("nap", NAP)
        return await step.run("card", never)

    async with serving("async", handler, handler, middleware=[adapt(client, rotating)]) as world:
        first = await world.client.get("/")
        run_id = first.headers["x-run-id"]
        op = {"op": "StepRun", "id": hash_step_id("card"), "name": "card", "data": result.output}
        told = await world.api.post(f"/v1/checkpoint/{run_id}/steps", json={"steps": [op]})
        assert told.status_code == 200, told.text
        assert (await world.follow(first)).json() == {"card": HIDDEN}


class Noting(inngest.Middleware):
    """Notes what it is told; its methods are async, as those of `inngest.Middleware` are."""

    async def transform_input(
        self,
        ctx: inngest.Context | inngest.ContextSync,
        function: inngest.Function[Any],
        steps: inngest.StepMemos,
    ) -> None:
        assert isinstance(self.raw_request, stephttp.Request)
        seen.append(("input", ctx.run_id, ctx.event.data["path"], function.name, steps.size))

    async def before_execution(self) -> None:
        seen.append(("before_execution",))

    async def transform_output(self, result: inngest.TransformOutputResult) -> None:
        step_id = result.step and (result.step.id, result.step.op.value)
        output = result.output if result.has_output() else None
        seen.append(("output", step_id, output, result.error and str(result.error)))

    async def after_execution(self) -> None:
        seen.append(("after_execution",))

    async def before_response(self) -> None:
        seen.append(("before_response",))

    async def before_send_events(self, events: list[inngest.Event]) -> None:
        seen.append(("before_send_events", [event.name for event in events]))

    async def after_send_events(self, result: inngest.SendEventsResult) -> None:
        seen.append(("after_send_events", len(result.ids), result.error))


@STYLES
async def test_middleware_with_async_methods_is_told_everything(style: str) -> None:
    def fails() -> None:
        raise ValueError("no luck")

    async def on_loop() -> None:
        await step.send_event("send", stephttp.Event(name="shop/paid"))
        await step.wait_for_signal("signal", signal="none", timeout=NAP)
        await step.run("fails", fails)

    def in_thread() -> None:
        sync_step.send_event("send", stephttp.Event(name="shop/paid"))
        sync_step.wait_for_signal("signal", signal="none", timeout=NAP)
        sync_step.run("fails", fails)

    async with serving(style, on_loop, in_thread, middleware=[adapt(client, Noting)]) as world:
        first = await world.client.get("/")
        assert (await world.follow(first)).status_code == 500
        (event,) = (await world.api.get("/v1/events")).json()["data"]
    run_id = first.headers["x-run-id"]
    assert seen == [
        ("input", run_id, "/", "GET /", 0),
        ("before_execution",),
        ("before_send_events", ["shop/paid"]),
        ("after_send_events", 1, None),
        ("output", ("send", "StepRun"), [event["internal_id"]], None),
        ("after_execution",),
        ("before_response",),
        ("input", run_id, "/", "GET /", 2),
        ("before_execution",),
        ("output", ("fails", "StepRun"), None, "no luck"),
        ("output", None, None, "no luck"),
        ("after_execution",),
        ("before_response",),
    ]


@pytest.mark.parametrize("production", [True, False])
def test_a_provider_is_set_up_as_the_client_is(
    production: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("INNGEST_SIGNING_KEY", "INNGEST_EVENT_KEY", "INNGEST_ENV", "INNGEST_DEV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("INNGEST_SIGNING_KEY_FALLBACK", "signkey-prod-" + "cd" * 16)
    mine = inngest.Inngest(
        app_id="shop",
        is_production=production,
        signing_key="signkey-prod-" + "ab" * 16,
        event_key="an-event-key",
        env="branch",
        middleware=[encryption],
    )
    settings = setup(mine, "https://api.test", result_path="/result").settings
    assert settings.dev is not production
    assert settings.signing_key == "signkey-prod-" + "ab" * 16
    assert settings.signing_key_fallback == "signkey-prod-" + "cd" * 16
    assert (settings.event_key, settings.env) == ("an-event-key", "branch")
    assert (settings.result_path, len(settings.middleware)) == ("/result", 1)
    assert settings.base_url == (CLOUD_URL if production else "http://127.0.0.1:8288")
    assert settings.event_origin == ("https://inn.gs" if production else "http://127.0.0.1:8288")


async def test_the_middleware_for_functions_does_nothing_to_endpoints() -> None:
    both = inngest.Inngest(
        app_id="shop", is_production=False, middleware=[StepMiddleware, encryption]
    )
    assert len(setup(both, "https://api.test").settings.middleware) == 1

    async def handler() -> str:
        await step.sleep("nap", NAP)
        return await step.run("a", lambda: "a")

    added = [adapt(both, StepMiddleware)]
    async with serving("async", handler, lambda: None, middleware=added) as world:
        first = await world.client.get("/")
        assert (await world.follow(first)).json() == "a"


def test_options_win_over_what_the_client_says() -> None:
    mine = inngest.Inngest(
        app_id="shop", is_production=False, event_api_base_url="http://events.test"
    )
    provider = setup(
        mine, "https://api.test", base_url="http://engine.test", middleware=[stephttp.Middleware]
    )
    settings = provider.settings
    assert (settings.base_url, settings.event_origin) == (
        "http://engine.test",
        "http://events.test",
    )
    assert settings.middleware == (stephttp.Middleware,)
    with pytest.raises(stephttp.ConfigurationError, match="max_body_bytes"):
        setup(mine, "https://api.test", max_body_bytes=0)
