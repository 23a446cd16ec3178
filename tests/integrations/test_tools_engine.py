"""The tools with the engine: whole runs, on a virtual clock."""

import json
from base64 import b64decode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, HTTPException

import stephttp
from stephttp import Event, ModelAdapter, RetryAfterError, StepError, step
from stephttp.provider import Provider
from stephttp.sync import step as sync_step
from tests.durable import KEY, Durable, durable

HOUR = timedelta(hours=1)
STYLES = pytest.mark.parametrize("style", ["async", "blocking"])


def application(on_loop: Callable[..., Any], in_thread: Callable[..., Any], style: str) -> FastAPI:
    app = FastAPI()
    app.get("/", response_model=None)(on_loop if style == "async" else in_thread)
    return app


def wrapped(app: FastAPI) -> Callable[[Provider], Any]:
    return lambda provider: provider.asgi(app)


async def outcome(world: Durable, response: httpx2.Response) -> Any:
    """What the handler returned at last. Waits that take hours outlive the token of the answer."""
    assert response.status_code == 303, (response.status_code, response.text)
    for _ in range(100):
        await world.engine.idle()
        if await world.status(response) != "Running":
            run = await world.api.get(f"/v1/runs/{response.headers['x-run-id']}")
            result = json.loads(b64decode(run.json()["data"]["output"]))
            return json.loads(result["body"])
        await world.turn()
    raise AssertionError("the run does not end")


async def send(world: Durable, name: str, data: dict[str, Any]) -> None:
    answer = await world.api.post("/e/any", json={"name": name, "data": data})
    assert answer.status_code == 200, answer.text
    await world.engine.idle()


def as_json(event: Event | None) -> Any:
    return None if event is None else [event.name, event.data]


@STYLES
@pytest.mark.parametrize("if_exp", ["async.data.id == 'o1'", "event.data.path == async.data.path"])
async def test_an_event_that_matches_ends_the_wait(style: str, if_exp: str) -> None:
    async def on_loop() -> Any:
        event = await step.wait_for_event("packed", event="packed", timeout=HOUR, if_exp=if_exp)
        return as_json(event)

    def in_thread() -> Any:
        return as_json(
            sync_step.wait_for_event("packed", event="packed", timeout=HOUR, if_exp=if_exp)
        )

    async with durable(wrapped(application(on_loop, in_thread, style))) as world:
        first = await world.client.get("/")
        await world.engine.idle()
        await send(world, "packed", {"id": "other", "path": "/other"})
        assert await world.status(first) == "Running"
        await send(world, "packed", {"id": "o1", "path": "/"})
        assert await outcome(world, first) == ["packed", {"id": "o1", "path": "/"}]
        world.clock.advance(1)  # what came before a run began is not for it
        begun = await world.client.get("/")
        assert await outcome(world, begun) is None  # nobody sends: the timeout


@STYLES
async def test_a_signal_ends_the_wait_of_one(style: str) -> None:
    async def on_loop() -> Any:
        signal = await step.wait_for_signal("s", signal="go", timeout=HOUR, on_conflict="replace")
        return None if signal is None else [signal.signal, signal.data]

    def in_thread() -> Any:
        signal = sync_step.wait_for_signal("s", signal="go", timeout=HOUR, on_conflict="replace")
        return None if signal is None else [signal.signal, signal.data]

    async with durable(wrapped(application(on_loop, in_thread, style))) as world:
        replaced, first = await world.client.get("/"), await world.client.get("/")
        answer = await world.api.post("/v1/signals", json={"signal": "go", "data": {"n": 1}})
        assert answer.json()["data"]["run_id"] == first.headers["x-run-id"]
        assert await outcome(world, first) == ["go", {"n": 1}]
        assert await outcome(world, replaced) is None


@STYLES
async def test_one_run_wakes_another(style: str) -> None:
    app = FastAPI()

    @app.get("/waits")
    async def waits_for_it() -> Any:
        return as_json(await step.wait_for_event("w", event="shop/go", timeout=HOUR))

    async def on_loop() -> list[str]:
        await step.sleep("first", HOUR / 2)
        sent = await step.send_event("send", [Event(name="shop/go", data={"n": 1})])
        await step.sleep("second", HOUR)
        return sent

    def in_thread() -> list[str]:
        sync_step.sleep("first", HOUR / 2)
        sent = sync_step.send_event("send", [Event(name="shop/go", data={"n": 1})])
        sync_step.sleep("second", HOUR)
        return sent

    app.get("/sends")(on_loop if style == "async" else in_thread)
    async with durable(wrapped(app)) as world:
        waiting, sending = await world.client.get("/waits"), await world.client.get("/sends")
        assert await outcome(world, waiting) == ["shop/go", {"n": 1}]
        (event_id,) = await outcome(world, sending)
        listed = (await world.api.get("/v1/events")).json()["data"]
        assert [one["internal_id"] for one in listed if one["name"] == "shop/go"] == [event_id]


@STYLES
@pytest.mark.parametrize("by", ["function", "id"])
async def test_an_endpoint_invokes_another(style: str, by: str) -> None:
    app = FastAPI()
    provider = stephttp.setup("http://app.test")

    @app.post("/square")
    @provider.endpoint(id="square")
    async def square(n: dict[str, int]) -> datetime:
        await step.sleep("think", HOUR)
        if n["n"] < 0:
            raise ValueError("too small")
        if n["n"] == 0:
            raise HTTPException(404, "no such number")
        return datetime(2026, 1, n["n"] ** 2, tzinfo=UTC)

    async def on_loop(n: int) -> str:
        try:
            if by == "function":
                when = await step.invoke("call", function=square, data={"n": n})
            else:
                when = await step.invoke_by_id(
                    "call", function_id="square", data={"n": n}, output_type=datetime
                )
        except StepError as error:
            return str(error)
        assert isinstance(when, datetime)
        return str(when.day)

    def in_thread(n: int) -> str:
        try:
            if by == "function":
                when = sync_step.invoke("call", function=square, data={"n": n})
            else:
                when = sync_step.invoke_by_id(
                    "call", function_id="square", data={"n": n}, output_type=datetime
                )
        except StepError as error:
            return str(error)
        assert isinstance(when, datetime)
        return str(when.day)

    app.get("/")(on_loop if style == "async" else in_thread)
    async with durable(wrapped(app)) as world:
        seen = await world.client.post("/square", json={"n": 1})
        await outcome(world, seen)
        assert await outcome(world, await world.client.get("/?n=3")) == "9"
        failed = await outcome(world, await world.client.get("/?n=-1"))
        assert failed == "ValueError: too small"
        refused = await outcome(world, await world.client.get("/?n=0"))
        assert refused.startswith("EndpointError: the endpoint answered 404: ")


async def test_an_unknown_function_is_a_step_error() -> None:
    app = FastAPI()

    @app.get("/")
    async def handler() -> str:
        try:
            await step.invoke_by_id("call", app_id="no", function_id="body")
        except StepError as error:
            return error.message
        return "invoked"

    async with durable(wrapped(app), key=KEY) as world:
        assert "no-body" in await outcome(world, await world.client.get("/"))


@STYLES
async def test_the_engine_makes_requests_for_steps(
    style: str,
) -> None:
    asked: list[tuple[str, str, str | None, bytes]] = []

    def serve(request: httpx2.Request) -> httpx2.Response:
        key = request.headers.get("authorization")
        asked.append((request.method, request.url.path, key, request.content))
        if request.url.path == "/busy":
            return httpx2.Response(429, json={"slow": 1})
        if request.url.path == "/chat":
            return httpx2.Response(200, json={"choices": [1]})
        return httpx2.Response(404, text="not here")

    gateway = httpx2.MockTransport(serve)
    model = ModelAdapter(url="http://model.test/chat", auth_key="sk", model="m")
    busy = ModelAdapter(url="http://model.test/busy")

    async def on_loop() -> Any:
        page = await step.fetch("page", "http://x.test/page", method="POST", body="t")
        answer = await step.ai.infer("ask", adapter=model, body={"messages": []})
        try:
            await step.ai.infer("again", adapter=busy, body={})
        except StepError as error:
            return [page.status_code, page.body, answer, error.name, error.data]

    def in_thread() -> Any:
        page = sync_step.fetch("page", "http://x.test/page", method="POST", body="t")
        answer = sync_step.ai.infer("ask", adapter=model, body={"messages": []})
        try:
            sync_step.ai.infer("again", adapter=busy, body={})
        except StepError as error:
            return [page.status_code, page.body, answer, error.name, error.data]

    app = application(on_loop, in_thread, style)
    async with durable(wrapped(app), gateway=gateway) as world:
        first = await world.client.get("/")
        answer = {"choices": [1]}
        assert await outcome(world, first) == [
            404,
            "not here",
            answer,
            "AIGatewayError",
            {"slow": 1},
        ]
        assert asked == [
            ("POST", "/page", None, b"t"),
            ("POST", "/chat", "Bearer sk", b'{"messages":[],"model":"m"}'),
            ("POST", "/busy", None, b"{}"),
        ]


# --- retries of a step ---


async def due_in(world: Durable) -> float:
    """Seconds to when the engine has something to do next."""
    due_ms: int = await world.engine.store.read(
        lambda connection: connection.execute("SELECT min(due_ms) FROM timers").fetchone()[0]
    )
    return (due_ms - world.clock.now_ms()) / 1000


async def test_when_to_try_again_is_kept_in_the_first_call_and_in_later_ones() -> None:
    app = FastAPI()
    tries: list[int] = []
    pauses: list[float | timedelta] = [90, timedelta(hours=2), 3600.0]

    def busy() -> str:
        tries.append(len(tries))
        if len(tries) < 4:
            raise RetryAfterError("busy", pauses[len(tries) - 1])
        return "done"

    @app.get("/")
    async def handler() -> str:
        return await step.options(retries=3).run("s", busy)

    async with durable(wrapped(app)) as world:
        first = await world.client.get("/")
        for seconds in (90, 7200, 3600):
            assert await due_in(world) == pytest.approx(seconds, abs=1)
            await world.turn()
        assert await outcome(world, first) == "done"
        assert len(tries) == 4
        assert (await world.steps(first))["s"]["attempts"] == 4


@STYLES
@pytest.mark.parametrize(("own", "endpoint", "expected"), [(2, 0, 3), (0, 3, 1), (1, 3, 2)])
async def test_each_step_has_its_own_number_of_tries(
    style: str, own: int, endpoint: int, expected: int
) -> None:
    tries: list[str] = []

    def fails() -> None:
        tries.append("own")
        raise ValueError("own")

    def fails_too() -> None:
        tries.append("endpoint's")
        raise ValueError("endpoint's")

    async def on_loop() -> str:
        stephttp.configure(retries=endpoint)
        for tool, body in ((step.options(retries=own), fails), (step.options(), fails_too)):
            try:
                await tool.run(body.__name__, body)
            except (ValueError, StepError):
                continue
        return "done"

    def in_thread() -> str:
        stephttp.configure(retries=endpoint)
        for tool, body in (
            (sync_step.options(retries=own), fails),
            (sync_step.options(), fails_too),
        ):
            try:
                tool.run(body.__name__, body)
            except (ValueError, StepError):
                continue
        return "done"

    async with durable(wrapped(application(on_loop, in_thread, style))) as world:
        first = await world.client.get("/")
        if first.status_code == 303:
            assert await outcome(world, first) == "done"
        else:
            assert first.json() == "done"
        assert tries.count("own") == expected
        assert tries.count("endpoint's") == endpoint + 1


@STYLES
async def test_branches_wait_side_by_side(style: str) -> None:
    log: list[str] = []

    async def on_loop() -> Any:
        async def branch(name: str) -> str:
            await step.sleep(f"nap {name}", HOUR)
            await step.run(f"note {name}", log.append, name)
            return name

        return list(await step.parallel((lambda: branch("a"), lambda: branch("b"))))

    def in_thread() -> Any:
        def branch(name: str) -> str:
            sync_step.sleep(f"nap {name}", HOUR)
            sync_step.run(f"note {name}", log.append, name)
            return name

        return list(sync_step.parallel((lambda: branch("a"), lambda: branch("b"))))

    async with durable(wrapped(application(on_loop, in_thread, style))) as world:
        first = await world.client.get("/")
        begun = world.clock.now_ms()
        assert await outcome(world, first) == ["a", "b"]
        assert sorted(log) == ["a", "b"]
        assert (world.clock.now_ms() - begun) / 1000 == pytest.approx(3600, abs=60)


def test_the_engine_refuses_wishes_that_make_no_sense() -> None:
    from stephttp._wire.opcodes import Op, OpCode
    from stephttp.engine.model.refused import Refused
    from stephttp.engine.rules.due_times import retry_wishes

    def op(**opts: Any) -> Op:
        return Op(OpCode.STEP_ERROR, "a", opts=json.loads(json.dumps(opts)))

    assert retry_wishes(op(), "steps[0]", 4, 0) == (4, None)
    assert retry_wishes(op(retries=99), "steps[0]", 4, 0) == (20, None)
    assert retry_wishes(op(retries=1, retry_after="60"), "steps[0]", 4, 0) == (1, 60_000)
    for wrong in ({"retries": -1}, {"retries": "2"}, {"retries": True}):
        with pytest.raises(Refused, match=r"steps\[0\].opts.retries: expected a number"):
            retry_wishes(op(**wrong), "steps[0]", 4, 0)
    for wrong in ({"retry_after": "soon"}, {"retry_after": 5}):
        with pytest.raises(Refused, match=r"steps\[0\].opts.retry_after: expected seconds"):
            retry_wishes(op(**wrong), "steps[0]", 4, 0)
