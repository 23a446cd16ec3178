"""What steps of stephttp do in functions of PyPI `inngest` beside running one after the other:
branches, events that are sent, and all that is refused."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import inngest
import msgspec
import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

import stephttp
from stephttp import step
from stephttp.integrations.sqlalchemy import transaction
from stephttp.sync import step as blocking
from tests.integrations.functions_world import STYLES, output, serving

NAP = timedelta(minutes=1)
DAY = timedelta(days=1)
done: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    done.clear()


def no_luck() -> None:
    done.append("no luck")
    raise ZeroDivisionError("no luck")


def note(name: str) -> str:
    done.append(name)
    return name


@pytest.mark.parametrize("style", STYLES)
async def test_branches_run_side_by_side_and_continue_without_each_other(style: str) -> None:
    async def on_loop(ctx: inngest.Context) -> Any:
        async def two(name: str) -> str:
            first = await step.run(f"{name}1", note, f"{name}1")
            return first + await step.run(f"{name}2", note, f"{name}2")

        async def waits() -> Any:
            return await step.wait_for_event("go", event="shop/on", timeout=DAY)

        results = await step.parallel([lambda: two("a"), waits, lambda: two("b")])
        return [*results[::2], await step.run("after", note, "after")]

    def in_thread(ctx: inngest.ContextSync) -> Any:
        def two(name: str) -> str:
            first = blocking.run(f"{name}1", note, f"{name}1")
            return first + blocking.run(f"{name}2", note, f"{name}2")

        def waits() -> Any:
            return blocking.wait_for_event("go", event="shop/on", timeout=DAY)

        results = blocking.parallel([lambda: two("a"), waits, lambda: two("b")])
        return [*results[::2], blocking.run("after", note, "after")]

    async with serving(style, on_loop, in_thread) as world:
        event_id = await world.send("shop/go")
        assert sorted(done) == ["a1", "a2", "b1", "b2"]
        await world.send("shop/on")
        assert output(await world.outcome(event_id)) == ["a1a2", "b1b2", "after"]
    assert sorted(done) == ["a1", "a2", "after", "b1", "b2"]


@pytest.mark.parametrize("style", STYLES)
async def test_a_branch_that_fails_lets_the_others_end(style: str) -> None:
    async def on_loop(ctx: inngest.Context) -> Any:
        async def fine_later() -> str:
            await step.sleep("nap", NAP)
            return await step.run("fine", note, "fine")

        try:
            await step.parallel((lambda: step.run("bad", no_luck), fine_later))
        except stephttp.StepError as error:
            return [error.name, *done]

    def in_thread(ctx: inngest.ContextSync) -> Any:
        def fine_later() -> str:
            blocking.sleep("nap", NAP)
            return blocking.run("fine", note, "fine")

        try:
            blocking.parallel((lambda: blocking.run("bad", no_luck), fine_later))
        except stephttp.StepError as error:
            return [error.name, *done]

    async with serving(style, on_loop, in_thread) as world:
        assert await world.result() == ["ZeroDivisionError", "no luck", "fine"]


@pytest.mark.parametrize("style", STYLES)
async def test_groups_stand_inside_of_each_other(style: str) -> None:
    async def on_loop(ctx: inngest.Context) -> Any:
        def group(name: str) -> Any:
            return step.parallel([lambda: step.run(f"{name}1", note, "1"), lambda: two(name)])

        async def two(name: str) -> str:
            await step.sleep(f"{name} nap", NAP)
            return await step.run(f"{name}2", note, "2")

        return await step.parallel([lambda: group("a"), lambda: group("b")])

    def in_thread(ctx: inngest.ContextSync) -> Any:
        def group(name: str) -> Any:
            return blocking.parallel(
                [lambda: blocking.run(f"{name}1", note, "1"), lambda: two(name)]
            )

        def two(name: str) -> str:
            blocking.sleep(f"{name} nap", NAP)
            return blocking.run(f"{name}2", note, "2")

        return blocking.parallel([lambda: group("a"), lambda: group("b")])

    async with serving(style, on_loop, in_thread) as world:
        assert await world.result() == [["1", "2"], ["1", "2"]]
    assert sorted(done) == ["1", "1", "2", "2"]


@pytest.mark.parametrize("style", STYLES)
async def test_ids_that_stand_in_two_branches_are_refused_before_any_step(style: str) -> None:
    async def on_loop(ctx: inngest.Context) -> Any:
        await step.parallel([lambda: step.run("bad", no_luck), lambda: step.run("bad", no_luck)])

    def in_thread(ctx: inngest.ContextSync) -> Any:
        bad: Callable[[], None] = lambda: blocking.run("bad", no_luck)  # noqa: E731
        blocking.parallel([bad, bad])

    async with serving(style, on_loop, in_thread) as world:
        error = await world.failure()
    assert (error["name"], done) == ("UsageError", [])
    assert "step 'bad' is in branches 0 and 1 of step.parallel" in error["message"]


async def gathered() -> None:
    await asyncio.gather(step.run("a", no_luck), step.sleep("b", NAP))


async def grouped() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(step.run("a", no_luck))


def threaded() -> None:
    failures: list[Exception] = []

    def call() -> None:
        try:
            blocking.run("a", no_luck)
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=copy_context().run, args=(call,))
    thread.start()
    thread.join()
    raise failures[0]


@pytest.mark.parametrize("program", [gathered, grouped, threaded])
async def test_steps_in_tasks_and_threads_of_their_own_are_refused_before_they_begin(
    program: Callable[[], Any],
) -> None:
    async def on_loop(ctx: inngest.Context) -> Any:
        try:
            await program()
        except* stephttp.UsageError as group:
            raise group.exceptions[0] from None

    style = "blocking" if program is threaded else "async"
    async with serving(style, on_loop, lambda ctx: program(), retries=3) as world:
        error = await world.failure()
    assert (error["name"], done) == ("UsageError", [])
    assert "in a task or thread of its own" in error["message"]
    assert "step.parallel" in error["message"]


@pytest.mark.parametrize("style", STYLES)
async def test_a_step_with_its_transaction_is_refused_before_it_writes(style: str) -> None:
    """Its row would not be found again: the run is not one of an endpoint."""

    def write(session: Session) -> None:
        done.append("written")

    async def write_later(session: AsyncSession) -> None:
        done.append("written")

    def sessions() -> Session:
        return Session(create_engine("sqlite://"))

    def async_sessions() -> AsyncSession:
        return AsyncSession(create_async_engine("sqlite+aiosqlite://"))

    async def on_loop(ctx: inngest.Context) -> Any:
        await transaction("order", async_sessions, write_later)

    def in_thread(ctx: inngest.ContextSync) -> Any:
        transaction("order", sessions, write)

    async with serving(style, on_loop, in_thread, retries=3) as world:
        error = await world.failure()
    assert (error["name"], done) == ("UsageError", [])
    assert error["message"].startswith("transaction does not exist in functions of PyPI inngest")


def lacking(tools: Any) -> dict[str, Callable[[], Any]]:
    """Uses of tools that do not exist in functions, by the name that their error has."""
    adapter = stephttp.ModelAdapter(url="http://model.test/chat")
    patient = tools.options(retries=1)
    return {
        "step.fetch": lambda: tools.fetch("x", "http://other.test/"),
        "step.wait_for_signal": lambda: tools.wait_for_signal("x", signal="s", timeout=NAP),
        "step.race": lambda: tools.race("x", [no_luck]),
        "step.first": lambda: tools.first("x", [no_luck]),
        "step.options(...).ai.infer": lambda: patient.ai.infer("x", adapter=adapter, body={}),
    }


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("name", lacking(step))
async def test_tools_that_the_other_sdk_lacks_are_refused_by_name(style: str, name: str) -> None:
    async def on_loop(ctx: inngest.Context) -> Any:
        await lacking(step)[name]()

    async with serving(style, on_loop, lambda ctx: lacking(blocking)[name](), retries=3) as world:
        error = await world.failure()
    assert (error["name"], done) == ("UsageError", [])
    assert error["message"].startswith(f"{name} does not exist in functions of PyPI inngest")


@pytest.mark.parametrize("style", STYLES)
async def test_the_tools_of_the_other_kind_are_refused(style: str) -> None:
    async def on_loop(ctx: inngest.Context) -> Any:
        blocking.run("a", no_luck)

    def in_thread(ctx: inngest.ContextSync) -> Any:
        asyncio.run(step.sleep("a", NAP))

    async with serving(style, on_loop, in_thread) as world:
        error = await world.failure()
    assert (error["name"], done) == ("UsageError", [])
    wanted = "from stephttp import step" if style == "async" else "from stephttp.sync import step"
    assert wanted in error["message"]


@contextmanager
def events_taken() -> Generator[tuple[str, list[Any]]]:
    """A place to send events to: its address, and what came. It refuses what comes first."""
    taken: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            refused = not taken
            events = msgspec.json.decode(self.rfile.read(int(self.headers["content-length"])))
            taken.extend(events)
            ids = [f"i{number}" for number in range(len(events))]
            answer = {"ids": [], "error": "no"} if refused else {"ids": ids}
            said = msgspec.json.encode(answer)
            self.send_response(400 if refused else 200)
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", taken
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("style", STYLES)
async def test_events_are_sent_with_ids_that_outlive_an_attempt(style: str) -> None:
    paid = stephttp.Event(name="shop/paid", data={"when": datetime(2026, 5, 1, tzinfo=UTC)})
    packed = stephttp.Event(name="shop/packed", id="mine")

    async def on_loop(ctx: inngest.Context) -> Any:
        return [await step.send_event("tell", [paid, packed]), await step.send_event("tell", paid)]

    def in_thread(ctx: inngest.ContextSync) -> Any:
        return [blocking.send_event("tell", [paid, packed]), blocking.send_event("tell", paid)]

    with events_taken() as (url, taken):
        async with serving(style, on_loop, in_thread, retries=1, events_url=url) as world:
            assert await world.result() == [["i0", "i1"], ["i0"]]
    assert [one["name"] for one in taken] == ["shop/paid", "shop/packed"] * 2 + ["shop/paid"]
    assert taken[0]["data"] == {"when": "2026-05-01T00:00:00Z"}
    ids = [one["id"] for one in taken]
    assert ids[0] == ids[2] != ids[4]
    assert (ids[1], ids[3]) == ("mine", "mine")


@pytest.mark.parametrize("style", STYLES)
async def test_arguments_are_refused_before_anything_begins(style: str) -> None:
    long = timedelta(days=400)
    number: Any = 1

    async def on_loop(ctx: inngest.Context) -> Any:
        with pytest.raises(ValueError, match="366 days"):
            await step.sleep("nap", long)
        with pytest.raises(ValueError, match="start with 'stephttp:'"):
            await step.run("stephttp:x", no_luck)
        with pytest.raises(TypeError, match="must be a str"):
            await step.run(number, no_luck)
        with pytest.raises(TypeError, match="its function must be one"):
            await step.run("x", number)
        with pytest.raises(ValueError, match=r"events\[0\].name"):
            await step.send_event("x", stephttp.Event(name=""))
        return "refused"

    def in_thread(ctx: inngest.ContextSync) -> Any:
        with pytest.raises(ValueError, match="366 days"):
            blocking.sleep("nap", long)
        with pytest.raises(ValueError, match="start with 'stephttp:'"):
            blocking.run("stephttp:x", no_luck)
        with pytest.raises(TypeError, match="must be a str"):
            blocking.run(number, no_luck)
        with pytest.raises(TypeError, match="cannot run an async function"):
            blocking.run("x", gathered)  # type: ignore[unused-coroutine]
        with pytest.raises(TypeError, match="cannot run an async function"):
            blocking.parallel([gathered])
        return "refused"

    async with serving(style, on_loop, in_thread) as world:
        assert await world.result() == "refused"
    assert done == []


@pytest.mark.parametrize("style", STYLES)
async def test_without_the_middleware_steps_are_refused_with_its_name(style: str) -> None:
    async def on_loop(ctx: inngest.Context) -> Any:
        await step.run("a", no_luck)

    def in_thread(ctx: inngest.ContextSync) -> Any:
        blocking.run("a", no_luck)

    async with serving(style, on_loop, in_thread, middleware=()) as world:
        error = await world.failure()
    assert (error["name"], done) == ("OutsideRunError", [])
    assert "stephttp.integrations.inngest.StepMiddleware" in error["message"]


class Fails(inngest.MiddlewareSync):
    """Ends a call before the middleware behind it is asked."""

    def before_response(self) -> None:
        raise LookupError("broken")


@pytest.mark.parametrize("middleware", ["alone", "twice", "behind one that fails"])
async def test_a_thread_in_which_a_function_ran_has_no_run_after_it(middleware: str) -> None:
    """Servers give their threads to one request after the other."""
    from stephttp.integrations.inngest import StepMiddleware

    chosen = {
        "alone": (StepMiddleware,),
        "twice": (StepMiddleware, StepMiddleware),
        "behind one that fails": (Fails, StepMiddleware),
    }

    def in_thread(ctx: inngest.ContextSync) -> Any:
        return blocking.run("a", note, "a")

    async def never(ctx: inngest.Context) -> Any:
        raise AssertionError("this is the blocking one")

    event = {"name": "shop/go"}
    ctx = {"attempt": 0, "disable_immediate_execution": False, "run_id": "r", "stack": {}}
    body = {"ctx": ctx, "event": event, "events": [event], "steps": {}, "use_api": False}
    async with serving("blocking", never, in_thread, middleware=chosen[middleware]) as world:
        client = world.durable.to_app.app.test_client()
        client.post("/api/inngest?fnId=shop-go&stepId=step", json=body)
    assert done == ["a"]
    assert blocking.run("plain", note, "plain") == "plain"
    with pytest.raises(stephttp.OutsideRunError):
        blocking.sleep("nap", NAP)
