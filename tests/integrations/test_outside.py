"""The run from inside (`current_run`), and runs from outside of a request (`Provider`)."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import anyio.to_thread
import flask
import httpx2
import msgspec
import pydantic
import pytest
from fastapi import Depends, FastAPI

import stephttp
from stephttp import step
from stephttp._wire.ids import ulid_ms
from stephttp._wire.run_links import run_link
from stephttp.engine.model.sdk_links import read_sdk_link
from stephttp.engine.model.tokens import RunToken
from stephttp.options import CLOUD_URL, resolve
from stephttp.provider import Provider
from stephttp.sync import step as blocking
from tests.durable import APP, ENGINE, KEY, durable
from tests.realserver import RealServer

HOUR = timedelta(hours=1)
RUN = "01M81NT13NCCP5V7EQ9MPKSWMT"


class Receipt(pydantic.BaseModel):
    id: str = pydantic.Field(alias="ID")


class World:
    """What is no data."""


def seen() -> dict[str, Any]:
    run = stephttp.current_run()
    return {"id": run.id, "url": run.result_url, "attempt": run.attempt, "old": run.replaying}


def fastapi(provider: Provider) -> Any:
    app = FastAPI()

    @app.get("/waits")
    @provider.endpoint(id="waits")
    async def waits(
        dependency: Annotated[dict[str, Any], Depends(seen)],
    ) -> list[dict[str, Any]]:
        start = seen()
        in_step = await step.run("a", seen)
        in_thread = await step.run("b", lambda: anyio.to_thread.run_sync(seen))
        packed = await step.wait_for_event("packed", event="order/packed", timeout=HOUR)
        gone = await step.wait_for_signal("gone", signal="gone", timeout=HOUR)
        data = [packed and packed.data, gone and gone.data]
        return [dependency, start, in_step, in_thread, seen(), {"data": data}]

    @app.get("/def")
    def of_a_thread() -> dict[str, Any]:
        found: list[dict[str, Any]] = list(blocking.parallel((seen,)))
        return found[0]

    @app.get("/fails")
    async def fails() -> None:
        await step.sleep("nap", timedelta(seconds=1))
        raise ValueError("no ink left")

    @app.get("/retries")
    @provider.endpoint(retries=2)
    async def retries() -> int:
        await step.sleep("nap", timedelta(seconds=1))
        if stephttp.current_run().attempt < 2:
            raise ValueError("again")
        return stephttp.current_run().attempt

    @app.get("/receipt")
    async def receipt() -> dict[str, Any]:
        await step.sleep("nap", timedelta(seconds=1))
        return {"ID": "r1"}

    return provider.asgi(app)


def of_flask(provider: Provider) -> Any:
    app = flask.Flask("outside")

    @app.get("/waits")
    @provider.endpoint(id="waits")
    def waits() -> Any:
        start = seen()
        in_step = blocking.run("a", seen)
        (in_thread,) = blocking.parallel((seen,))
        packed = blocking.wait_for_event("packed", event="order/packed", timeout=HOUR)
        gone = blocking.wait_for_signal("gone", signal="gone", timeout=HOUR)
        data = [packed and packed.data, gone and gone.data]
        return flask.jsonify([start, start, in_step, in_thread, seen(), {"data": data}])

    return provider.wsgi(app)


@pytest.mark.parametrize("key", ["", KEY], ids=["development", "production"])
@pytest.mark.parametrize("wsgi", [False, True], ids=["asgi", "wsgi"])
async def test_a_run_is_seen_from_inside_and_moved_from_outside(wsgi: bool, key: str) -> None:
    build = of_flask if wsgi else fastapi
    async with durable(build, key=key, wsgi=wsgi, event_key="e") as world:
        provider = world.provider
        first = await world.client.get("/waits")
        run_id = first.headers["x-run-id"]
        info = await provider.get_run(run_id)
        assert (info.id, info.status, info.endpoint) == (run_id, "waiting", "waits")
        assert info.started_at.tzinfo is not None
        assert info.ended_at is None
        with pytest.raises(stephttp.ResultTimeoutError, match=r"within 0\.5 s"):
            await provider.result(run_id, timeout=timedelta(seconds=0.5))
        assert len(await provider.send_event("order/packed", {"n": 1}, id="once")) == 26
        await world.engine.idle()
        with pytest.raises(stephttp.SignalNotAwaitedError, match="'nobody': no run waits"):
            await provider.send_signal("nobody")
        assert await provider.send_signal("gone", [1]) == run_id
        await world.engine.idle()
        result = await provider.result(run_id)
        assert (result.status_code, result.headers["content-type"]) == (200, "application/json")
        outer, start, in_step, in_thread, end, data = result.json()
        assert data == {"data": [{"n": 1}, [1]]}
        assert {each["id"] for each in (outer, start, in_step, in_thread, end)} == {run_id}
        assert (start["attempt"], start["old"], in_step["old"], end["old"]) == (
            0,
            True,
            False,
            False,
        )
        urls = {each["url"] for each in (outer, start, in_step, in_thread, end)}
        assert len(urls) == 1, "the address stays the same"
        answer = await httpx2.AsyncClient(transport=world.to_engine).get(urls.pop())
        assert (answer.status_code, answer.json()) == (200, result.json())
        assert (await provider.get_run(run_id)).status == "completed"
        await provider.cancel(run_id)  # too late: nothing changes
        assert (await provider.get_run(run_id)).status == "completed"


async def test_the_twins_that_block_do_the_same() -> None:
    async with durable(fastapi) as world:
        provider = world.provider
        run_id = (await world.client.get("/waits")).headers["x-run-id"]

        def script() -> stephttp.RunResult:
            assert provider.get_run_sync(run_id).status == "waiting"
            assert len(provider.send_event_sync("order/packed", {"n": 1})) == 26
            asyncio.run_coroutine_threadsafe(world.engine.idle(), loop).result()
            assert provider.send_signal_sync("gone", 2) == run_id
            asyncio.run_coroutine_threadsafe(world.engine.idle(), loop).result()
            return provider.result_sync(run_id, timeout=HOUR)

        loop = asyncio.get_running_loop()
        result = await asyncio.to_thread(script)
        assert result.json()[-1] == {"data": [{"n": 1}, 2]}
        with pytest.raises(stephttp.UsageError, match=r"await provider\.result"):
            provider.result_sync(run_id)
        other = (await world.client.get("/waits")).headers["x-run-id"]
        await asyncio.to_thread(provider.cancel_sync, other)
        with pytest.raises(stephttp.RunCancelledError, match=other):
            await asyncio.to_thread(provider.result_sync, other)


async def test_a_result_has_a_type_and_a_failure_is_an_exception() -> None:
    async with durable(fastapi) as world:
        provider = world.provider
        first = await world.client.get("/receipt")
        await world.follow(first)
        result = await provider.result(first.headers["x-run-id"])
        assert result.json(Receipt) == Receipt(ID="r1")
        assert result.json(dict[str, str]) == {"ID": "r1"}
        assert result.text == '{"ID":"r1"}'
        with pytest.raises(msgspec.ValidationError):
            result.json(list[int])
        with pytest.raises(pydantic.ValidationError):
            result.json(list[Receipt])
        with pytest.raises(TypeError, match="cannot be read as"):
            result.json(World)
        failed = await world.client.get("/fails")
        await world.follow(failed)
        with pytest.raises(
            stephttp.RunFailedError, match=r"has failed \(ValueError: no ink left\)"
        ) as e:
            await provider.result(failed.headers["x-run-id"])
        assert e.value.result.status_code == 500
        info = await provider.get_run(failed.headers["x-run-id"])
        assert info.error is not None
        assert (info.status, info.error.name) == ("failed", "ValueError")
        for ask in (provider.get_run, provider.result, provider.cancel):
            with pytest.raises(stephttp.RunNotFoundError, match=f"run {RUN}: the server does not"):
                await ask(RUN)
            with pytest.raises(ValueError, match="run_id: 'x' is not a ULID"):
                await ask("x")
        assert (await world.follow(await world.client.get("/retries"))).json() == 2


async def test_a_link_waits_for_a_run_that_is_not_reported_yet() -> None:
    async with durable(fastapi) as world:
        world.to_engine.down = True
        found = (await world.client.get("/def")).json()
        asking = asyncio.ensure_future(world.api.get(found["url"].removeprefix(ENGINE)))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not asking.done()
        world.to_engine.down = False
        assert await world.provider.wait(60)
        assert (await asking).json() == found
        forged = await world.api.get(found["url"].removeprefix(ENGINE)[:-1] + "_")
        assert forged.status_code == 401


@pytest.mark.parametrize(
    ("keys", "run_id", "age_s", "link"),
    [
        ((KEY,), RUN, 0, RunToken(RUN, expired=False, cookies=False, early=True)),
        (("ab" * 32, KEY), RUN, 3601, RunToken(RUN, expired=False, cookies=False)),
        ((KEY,), RUN, 7201, RunToken(RUN, expired=True, cookies=False)),
        (("ab" * 32,), RUN, 0, None),
        ((), RUN, 0, None),
        ((KEY,), RUN[:-1] + "V", 0, None),
        ((KEY,), "x", 0, None),
    ],
)
def test_a_link_is_for_one_run_of_engines_with_the_key(
    keys: tuple[str, ...], run_id: str, age_s: int, link: RunToken | None
) -> None:
    now_s = ulid_ms(RUN) // 1000 + age_s
    for token in (run_link(RUN, KEY), run_link(RUN, f"signkey-prod-{KEY}")):
        assert read_sdk_link(token, run_id, keys, now_s, 7200) == link
    assert read_sdk_link("l1.é", run_id, keys, now_s, None) is None
    assert read_sdk_link(run_link("x", ""), "x", (), now_s, None) is None


def test_outside_of_a_request_there_is_no_run() -> None:
    with pytest.raises(stephttp.OutsideRunError, match="outside a request"):
        stephttp.current_run()


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda p: p.send_event_sync(""), ValueError, "name must not be empty"),
        (lambda p: p.send_event_sync("inngest/x"), ValueError, "for the server's own"),
        (lambda p: p.send_event_sync("a", {"x": object()}), ValueError, "data cannot be sent as"),
        (lambda p: p.send_event_sync("a", [1]), TypeError, "data must be a mapping"),
        (lambda p: p.send_signal_sync(""), ValueError, "name must not be empty"),
        (lambda p: p.send_signal_sync("a", object()), ValueError, "signal 'a': data cannot be"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(
    call: Callable[[Provider], Any], error: type[Exception], text: str
) -> None:
    server = RealServer()
    with pytest.raises(error, match=text):
        call(server.provider())
    assert server.api == []


def test_without_an_event_key_no_event_is_sent() -> None:
    server = RealServer(key=KEY)
    with pytest.raises(stephttp.ConfigurationError, match="INNGEST_EVENT_KEY"):
        server.provider().send_event_sync("a")


def inngest(answers: dict[str, tuple[int, Any]]) -> tuple[Provider, list[httpx2.Request]]:
    """A provider of an Inngest server that gives these answers (docs/protocol.md 4.9, 4.11)."""
    asked: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        status, value = answers[f"{request.method} {request.url.path}"]
        return httpx2.Response(status, json=value, headers={"x-inngest-server-kind": "cloud"})

    settings = resolve(APP, base_url=ENGINE, environ={"INNGEST_SIGNING_KEY": KEY}, event_key="e k")
    return Provider(settings, sync_transport=httpx2.MockTransport(answer)), asked


def run_of(status: str, output: Any = None) -> tuple[int, Any]:
    data = {
        "run_id": RUN, "run_started_at": "2026-11-28T12:00:00Z", "function_id": "c8e0",
        "function_version": 0, "event_id": RUN, "status": status, "ended_at": None,
    }  # fmt: skip
    if output is not None:
        data["output"] = base64.b64encode(json.dumps(output).encode()).decode()
    return 200, {"data": data, "metadata": {}}


def test_an_inngest_server_answers_as_far_as_it_knows() -> None:
    op = {"data": {"status": 201, "headers": {"X-Own": "yes"}, "body": "made"}}
    path = f"/v1/runs/{RUN}"
    provider, asked = inngest(
        {
            f"GET {path}": run_of("Completed", op),
            f"DELETE {path}": (404, {"error": "not found"}),
            "POST /v1/signals": (200, {"data": {"run_id": RUN}, "metadata": {}}),
            "POST /e/e k": (200, {"ids": ["01M8"], "status": 200}),
        }
    )
    info = provider.get_run_sync(RUN)
    assert (info.status, info.endpoint) == ("completed", "")
    assert info.started_at == datetime(2026, 11, 28, 12, tzinfo=UTC)
    result = provider.result_sync(RUN)
    assert (result.status_code, result.headers, result.body) == (201, {"x-own": "yes"}, b"made")
    with pytest.raises(stephttp.RunNotFoundError):
        provider.cancel_sync(RUN)
    assert provider.send_signal_sync("go", {"a": 1}) == RUN
    assert json.loads(asked[-1].content) == {"signal": "go", "data": {"a": 1}}
    assert provider.send_event_sync("a", {"b": None}, ts=5) == "01M8"
    assert json.loads(asked[-1].content) == [{"name": "a", "data": {"b": None}, "ts": 5}]
    assert "authorization" not in asked[-1].headers, "events have a key of their own"
    unknown, _ = inngest({f"GET {path}": (200, {"error": "not found", "status": 500})})
    with pytest.raises(stephttp.RunNotFoundError):
        unknown.get_run_sync(RUN)
    other, _ = inngest({f"GET {path}": run_of("Failed", {"error": {"name": "E"}})})
    with pytest.raises(stephttp.RunFailedError) as failed:
        other.result_sync(RUN)
    assert failed.value.result.json() == {"error": {"name": "E"}}


async def test_an_inngest_server_gives_no_address_before_a_run_waits() -> None:
    app = FastAPI()

    @app.get("/")
    async def url() -> str:
        with pytest.raises(stephttp.UsageError, match="result_url needs a stephttp engine") as e:
            _ = stephttp.current_run().result_url
        return str(e.value)

    @app.get("/nap")
    async def nap() -> None:
        await step.sleep("nap", timedelta(seconds=1))

    server = RealServer()
    server.app = server.provider().asgi(app)
    await server.finish(await server.client().get("/nap"))  # now the server is known
    assert (await server.client().get("/")).status_code == 200
    cloud = Provider(resolve(APP, base_url=CLOUD_URL, environ={"INNGEST_SIGNING_KEY": KEY}))
    transport = httpx2.ASGITransport(cloud.asgi(app))
    assert (await httpx2.AsyncClient(transport=transport, base_url=APP).get("/")).status_code == 200


async def test_with_a_result_path_the_address_is_a_path_of_the_application() -> None:
    async with durable(fastapi, result_path="/result") as world:
        found = (await world.client.get("/def")).json()
        assert found["url"].startswith(f"/result?run_id={found['id']}&token=l1.")
        assert await world.provider.wait(60)
        assert (await world.client.get(found["url"])).json() == found
