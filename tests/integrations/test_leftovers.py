"""What a handler leaves running, what is too large or too odd: nothing is lost or done twice."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, Response

import stephttp
from stephttp import step
from stephttp.sync import step as sync_step
from tests.durable import Durable, durable

NAP = timedelta(minutes=1)
did: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def fresh() -> None:
    did.clear()


def serve(handler: Callable[[], Awaitable[Any]]) -> Callable[[Any], Any]:
    app = FastAPI()
    app.get("/")(handler)
    return lambda provider: provider.asgi(app)


class Gate:
    """A place inside a step or between steps that a test opens."""

    def __init__(self) -> None:
        self.entered, self.open = asyncio.Event(), asyncio.Event()

    async def __call__(self) -> None:
        self.entered.set()
        await self.open.wait()


async def test_a_task_that_outlives_the_redirect_leaves_its_next_step_to_the_re_entry() -> None:
    gate = Gate()

    async def flow() -> None:
        await gate()
        await step.run("charge", did.update, ["charge"])

    tasks: list[asyncio.Task[None]] = []

    async def handler() -> str:
        if not tasks:
            tasks.append(asyncio.create_task(flow()))
            await asyncio.wait([asyncio.create_task(step.sleep("nap", NAP)), tasks[0]])
        await step.sleep("nap", NAP)
        await step.run("charge", did.update, ["charge"])
        return "done"

    async with durable(serve(handler)) as world:
        first = await world.client.get("/")
        gate.open.set()
        with contextlib.suppress(asyncio.CancelledError):
            await tasks[0]
        assert did["charge"] == 0
        assert (await world.follow(first)).json() == "done"
        assert did["charge"] == 1


async def test_a_thread_that_outlives_the_redirect_leaves_its_next_step_to_the_re_entry() -> None:
    import threading

    go, out = threading.Event(), []

    def work() -> None:
        go.wait()
        try:
            sync_step.run("charge", did.update, ["charge"])
        except BaseException as error:
            out.append(error)
            raise

    threads: list[asyncio.Future[None]] = []

    async def handler() -> str:
        if not threads:
            threads.append(asyncio.ensure_future(asyncio.to_thread(work)))
        await step.sleep("nap", NAP)
        await step.run("charge", did.update, ["charge"])
        return "done"

    async with durable(serve(handler)) as world:
        first = await world.client.get("/")
        go.set()
        with contextlib.suppress(stephttp.Suspended):
            await threads[0]
        assert [type(error) for error in out] == [stephttp.Suspended]
        assert (await world.follow(first)).json() == "done"
        assert did["charge"] == 1


@pytest.mark.parametrize("how", ["gave up", "in a thread"])
async def test_a_step_still_running_when_the_handler_ends_is_waited_for(how: str) -> None:
    gate = Gate()

    async def slow() -> str:
        did["start"] += 1
        await gate()
        did["end"] += 1
        return "slow"

    async def handler() -> str:
        running = asyncio.create_task(step.run("slow", slow))
        if how == "gave up":
            napping = asyncio.create_task(step.sleep("nap", NAP))
            await asyncio.sleep(0)
            if not napping.done():
                return "still busy"
        else:
            await asyncio.sleep(0)
            await asyncio.to_thread(sync_step.sleep, "nap", NAP)
        return await running

    async with durable(serve(handler)) as world:
        request = asyncio.ensure_future(world.client.get("/"))
        await gate.entered.wait()
        for _ in range(50):
            await asyncio.sleep(0)
        assert not request.done()
        gate.open.set()
        first = await request
        final = await world.follow(first)
        assert final.json() == "slow"
        assert did == {"start": 1, "end": 1}


async def test_what_meets_a_step_while_the_checkpoint_is_on_its_way_is_ended() -> None:
    gate = Gate()
    ended = asyncio.Event()

    async def detached() -> None:
        try:
            await gate()
            await step.sleep("another", NAP)
        finally:
            ended.set()

    async def handler() -> str:
        if not gate.entered.is_set():
            tasks.append(asyncio.create_task(detached()))
            await gate.entered.wait()
        await step.sleep("nap", NAP)
        return "done"

    tasks: list[asyncio.Task[None]] = []
    async with durable(serve(handler)) as world:
        send = world.to_engine.handle_async_request

        async def late(request: httpx2.Request) -> httpx2.Response:
            gate.open.set()
            await ended.wait()
            return await send(request)

        world.to_engine.handle_async_request = late  # type: ignore[method-assign]
        first = await world.client.get("/")
        assert (await world.follow(first)).json() == "done"


async def test_an_external_cancellation_is_not_repeated_by_ours() -> None:
    entered = asyncio.Event()
    log: list[str] = []

    async def handler() -> str:
        try:
            napping = asyncio.create_task(step.sleep("nap", NAP))
            running = asyncio.create_task(step.run("endless", asyncio.Event().wait))
            await asyncio.sleep(0)
            entered.set()
            await asyncio.wait([napping, running])
        finally:
            running.cancel()
            for _ in range(50):  # clean-up that takes a while
                await asyncio.sleep(0)
            log.append("cleaned up")
        return ""

    async with durable(serve(handler)) as world:
        request = asyncio.create_task(world.client.get("/"))
        await entered.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert log == ["cleaned up"]


class Nasty(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


@pytest.mark.parametrize("error", [Nasty(), ValueError("lone \udcff surrogate")], ids=type)
async def test_an_exception_with_an_odd_text_is_like_any_other(error: Exception) -> None:
    def fail() -> None:
        raise error

    async def handler() -> str:
        try:
            await step.run("a", fail)
        except (type(error), stephttp.StepError):
            await step.sleep("nap", NAP)
        return "caught"

    async with durable(serve(handler)) as world:
        first = await world.client.get("/")
        assert (await world.follow(first)).json() == "caught"


MB = 1024 * 1024


async def test_many_large_results_travel_in_several_checkpoints() -> None:
    async def handler() -> list[int]:
        def body(n: int) -> str:
            did[str(n)] += 1
            return str(n) * (3 * MB // 2)

        before = [await step.run(f"s{n}", body, n) for n in range(4)]
        await step.sleep("nap", NAP)
        after = await asyncio.gather(*(step.run(f"s{n}", body, n) for n in range(4, 8)))
        await step.sleep("another", NAP)
        return [len(text) for text in [*before, *after]]

    async with durable(serve(handler)) as world:
        final = await world.follow(await world.client.get("/"))
        assert final.json() == [3 * MB // 2] * 8
        assert set(did.values()) == {1}
        assert max(len(r.content) for r in world.to_engine.requests) <= 4 * MB


async def test_a_finished_run_with_large_results_is_recorded_without_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handler() -> str:
        for n in range(3):
            await step.run(f"s{n}", lambda: "x" * (3 * MB // 2))
        return "done"

    async with durable(serve(handler)) as world:
        answer = await world.client.get("/")
        assert await world.provider.wait()
        assert set(await world.steps(answer)) == {"s0", "s1", "s2"}
        assert "bodies and results are left out" in caplog.text


async def test_a_result_that_no_server_takes_is_an_error_of_the_step() -> None:
    async def handler() -> str:
        try:
            await step.run("big", lambda: "x" * (4 * MB))
        except stephttp.StepResultError as error:
            return str(error)
        return ""

    async with durable(serve(handler)) as world:
        text = (await world.client.get("/")).json()
        assert "step 'big' returned" in text
        assert "bytes" in text


async def refuse_steps(world: Durable, status: int) -> None:
    """The engine answers every further `/steps` with `status`."""
    send = world.to_engine.handle_async_request

    async def refusing(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/steps"):
            return httpx2.Response(
                status, headers={"x-stephttp-features": "leases"}, json={"error": "no"}
            )
        return await send(request)

    world.to_engine.handle_async_request = refusing  # type: ignore[method-assign]


async def test_steps_that_are_refused_for_good_end_the_run_and_do_not_repeat_for_ever() -> None:
    async def handler() -> str:
        await step.sleep("nap", NAP)
        await step.run("charge", did.update, ["charge"])
        return "done"

    async with durable(serve(handler)) as world:
        first = await world.client.get("/")
        world.lacks("steps-with-result")
        await refuse_steps(world, 413)
        final = await world.follow(first)
        assert final.status_code == 500
        assert "a step was refused" in final.json()["error"]
        assert did["charge"] == 1


async def test_steps_that_could_not_be_stored_travel_with_the_answer_if_there_is_one() -> None:
    async def handler() -> str:
        await step.sleep("nap", NAP)
        await step.run("charge", did.update, ["charge"])
        await step.sleep("another", NAP)
        return "done"

    async with durable(serve(handler)) as world:
        first = await world.client.get("/")
        await refuse_steps(world, 502)
        assert (await world.follow(first)).json() == "done"
        assert did["charge"] == 1


async def test_a_step_may_call_another_durable_application_in_this_process() -> None:
    async def inner() -> int:
        return await step.run("inner", lambda: 7)

    async def outer() -> int:
        async with httpx2.AsyncClient(
            transport=httpx2.ASGITransport(other.to_app.app), base_url="http://app.test"
        ) as client:
            value: int = (await client.get("/")).json()
            return value

    async def handler() -> int:
        return await step.run("outer", outer)

    async with durable(serve(inner)) as other, durable(serve(handler)) as world:
        assert (await world.client.get("/")).json() == 7
        assert await other.provider.wait()  # or `world` would find its task


async def test_a_request_target_that_is_no_path_cannot_wait() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await step.sleep("nap", NAP)

    async with durable(lambda provider: provider.asgi(app)) as world:
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "GET",
            "path": "@evil.example/x",
            "raw_path": b"@evil.example/x",
            "headers": [],
            "query_string": b"",
        }
        await world.to_app.app(scope, receive, send)
        assert sent[0]["status"] == 400
        assert world.to_engine.requests == []


@pytest.mark.parametrize("path", ["/a%2Fb", "/a%20b;c=%C3%A4", "//a"])
async def test_paths_come_back_as_they_were_sent(path: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await step.sleep("nap", NAP)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["raw_path"]})

    async with durable(lambda provider: provider.asgi(app)) as world:
        url = httpx2.URL("http://app.test").copy_with(raw_path=path.encode())
        final = await world.follow(await world.client.get(url))
        assert final.text == path


async def test_in_production_the_host_header_does_not_decide_where_the_server_calls() -> None:
    async def handler() -> str:
        await step.sleep("nap", NAP)
        return "done"

    async with durable(serve(handler), key="ab" * 16) as world:
        first = await world.client.get("/", headers={"host": "evil.example"})
        await world.follow(first)
        (reentry,) = world.reentries
        assert str(reentry.url) == "http://app.test/"


async def test_after_a_resumed_response_has_begun_no_step_can_wait() -> None:
    errors: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await step.sleep("nap", NAP)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            await step.sleep("late", NAP)
        except stephttp.CannotWaitError as error:
            errors.append(str(error))
        await send({"type": "http.response.body", "body": b"ok"})

    async with durable(lambda provider: provider.asgi(app)) as world:
        assert (await world.follow(await world.client.get("/"))).text == "ok"
        assert "the response has started" in errors[0]


async def test_reserved_ids_are_refused() -> None:
    async def handler() -> str:
        try:
            await step.run("stephttp:request", lambda: 1)
        except ValueError as error:
            return str(error)
        return ""

    async with durable(serve(handler)) as world:
        assert "start with 'stephttp:'" in (await world.client.get("/")).json()


async def test_a_compressing_middleware_does_not_compress_what_is_kept() -> None:
    from starlette.middleware.gzip import GZipMiddleware

    app = FastAPI()
    app.add_middleware(GZipMiddleware, minimum_size=10)

    @app.get("/")
    async def handler() -> Response:
        await step.sleep("nap", NAP)
        return Response("x" * 1000, media_type="text/plain")

    async with durable(lambda provider: provider.asgi(app)) as world:
        final = await world.follow(await world.client.get("/"))
        assert final.text == "x" * 1000
        assert "content-encoding" not in final.headers
