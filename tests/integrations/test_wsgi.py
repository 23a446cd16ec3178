"""WSGI applications, between two validators (`wsgiref.validate`): around us, and inside us."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import httpx2
import pytest

import stephttp
from stephttp import step as async_step
from stephttp.options import resolve
from stephttp.provider import Provider
from stephttp.sync import step
from tests.durable import Durable, durable
from tests.wsgi import call, environ_of

NAP = timedelta(minutes=1)
TEXT = [("Content-Type", "text/plain")]

Environ = dict[str, Any]
Start = Callable[..., Callable[[bytes], object]]
App = Callable[[Environ, Start], Any]

log: list[str] = []


providers: list[Provider] = []
reachable = threading.Event()


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    log.clear()
    providers.clear()
    reachable.clear()
    yield
    reachable.set()
    for provider in providers:
        assert provider.close(60)


def wrapped(app: App) -> Callable[[Provider], Any]:
    return lambda provider: provider.wsgi(validator(app))


def alone(app: App, **options: Any) -> tuple[Provider, Any]:
    """A wrapped application whose server takes nothing before the end of the test."""

    def take(request: httpx2.Request) -> httpx2.Response:
        assert reachable.wait(60)
        return httpx2.Response(200)

    settings = resolve("http://app.test", environ={"INNGEST_DEV": "1"}, **options)
    provider = Provider(settings, sync_transport=httpx2.MockTransport(take))
    providers.append(provider)
    return provider, provider.wsgi(app)


def environ(
    method: str = "GET", path: str = "/", body: bytes = b"", more: Environ | None = None
) -> Environ:
    request = httpx2.Request(method, f"http://app.test{path}", content=body)
    return environ_of(request, body) | (more or {})


def recorded(world: Durable) -> dict[str, Any]:
    """What the newest run's record says of its end."""
    item = json.loads(world.to_engine.requests[-1].content)
    item = item[-1] if isinstance(item, list) else item
    complete = item["steps"][-1]
    assert complete["op"] == "RunComplete"
    return {"steps": [op["name"] for op in item["steps"][:-1]], **complete["data"]}


# --- requests that have nothing to wait for -------------------------------------------------------


def listed(environ: Environ, start: Start) -> Any:
    start("200 OK", TEXT)
    return [b"whole"]


def generated(environ: Environ, start: Start) -> Any:
    start("200 OK", [*TEXT, ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    yield b"one"
    yield b"two"


def late(environ: Environ, start: Start) -> Any:
    start("404 Nothing Here", TEXT)
    yield b"late"


def written(environ: Environ, start: Start) -> Any:
    start("200 OK", TEXT)(b"written ")
    return [b"and returned"]


def a_file(environ: Environ, start: Start) -> Any:
    start("200 OK", TEXT)
    return environ.get("wsgi.file_wrapper", FileWrapper)(io.BytesIO(b"x" * 20_000))


def echo(environ: Environ, start: Start) -> Any:
    start("200 OK", TEXT)
    return [environ["wsgi.input"].read(3), *environ["wsgi.input"]]


@pytest.mark.parametrize("app", [listed, generated, late, written, a_file, echo])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST"])
def test_without_steps_two_headers_are_all_that_differs(app: App, method: str) -> None:
    provider, ours = alone(app)
    body = b"body\nof lines" if method == "POST" else b""
    expected = call(app, environ(method, body=body))
    got = call(ours, environ(method, body=body))
    assert (got.status, got.body) == (expected.status, expected.body)
    assert [name for name, _ in got.headers[-2:]] == ["x-run-id", "x-inngest-sdk"]
    assert got.headers[:-2] == expected.headers
    assert provider.runtime.outbox.depth == 0


def test_bodies_in_which_nothing_happens_are_returned_as_they_are() -> None:
    body = [b"whole"]
    provider, ours = alone(lambda environ, start: (start("200 OK", TEXT), body)[1])
    assert ours(environ(), lambda *_: None) is body
    provider, ours = alone(a_file)
    got = ours(environ(more={"wsgi.file_wrapper": FileWrapper}), lambda *_: None)
    assert type(got) is FileWrapper
    got.close()
    assert provider.runtime.outbox.depth == 0


def test_a_server_can_still_tell_the_length_of_a_whole_body() -> None:
    def app(environ: Environ, start: Start) -> Any:
        step.run("a", int)
        start("200 OK", TEXT)
        return [b"whole"]

    provider, ours = alone(app)
    chunks = ours(environ(), lambda *_: None)
    assert len(chunks) == 1
    assert provider.runtime.outbox.depth == 0, "the answer is sent before anything is recorded"
    assert list(chunks) == [b"whole"]
    assert provider.runtime.outbox.depth == 0
    chunks.close()
    chunks.close()
    assert provider.runtime.outbox.depth == 1


def test_exceptions_reach_the_server() -> None:
    def at_once(environ: Environ, start: Start) -> Any:
        raise LookupError("at once")

    def meanwhile(environ: Environ, start: Start) -> Any:
        start("200 OK", TEXT)
        yield b"one"
        raise LookupError("meanwhile")

    for app in (at_once, meanwhile):
        with pytest.raises(LookupError, match=app.__name__.replace("_", " ")):
            call(alone(app)[1], environ())


def test_a_response_can_be_replaced_as_long_as_nothing_was_sent() -> None:
    def app(environ: Environ, start: Start) -> Any:
        step.run("a", int)
        start("200 OK", TEXT)
        try:
            raise LookupError("no")
        except LookupError:
            import sys

            start("500 No", [*TEXT, ("X-Own", "1")], sys.exc_info())
        return [b"sorry"]

    _, ours = alone(app)
    answer = call(ours, environ())
    assert (answer.status, answer.body) == (500, b"sorry")
    assert ("X-Own", "1") in answer.headers


class Closing:
    """A body that counts how often it is closed, and runs a step when it is."""

    def __init__(self, *chunks: bytes, error: bool = False) -> None:
        self._chunks, self._error = chunks, error
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            yield step.run(f"make {chunk!r}", str, chunk, "ascii").encode()
        if self._error:
            raise LookupError("in the body")

    def close(self) -> None:
        self.closed += 1
        step.run("close", int)


def sends(body: Any) -> App:
    def app(environ: Environ, start: Start) -> Any:
        step.run("first", int)
        start("200 OK", TEXT)
        return body

    return app


async def test_steps_of_a_streamed_body_are_recorded_and_close_is_forwarded_once() -> None:
    body = Closing(b"a", b"b")
    async with durable(wrapped(sends(body)), wsgi=True) as world:
        assert (await world.client.get("/")).content == b"ab"
        assert await world.provider.wait()
        assert body.closed == 1
        data = recorded(world)
        assert data["steps"] == ["first", "make b'a'", "make b'b'", "close"]
        assert (data["status"], data["body"], data.get("error")) == (200, "ab", None)


async def test_a_body_that_fails_is_recorded_as_failed_and_closed_once() -> None:
    body = Closing(b"a", error=True)
    async with durable(wrapped(sends(body)), wsgi=True) as world:
        assert (await world.client.get("/")).status_code == 500
        assert await world.provider.wait()
        assert body.closed == 1
        assert "in the body" in recorded(world)["error"]


def test_a_caller_that_leaves_ends_the_body_and_the_run() -> None:
    body = Closing(b"a", b"b")
    provider, ours = alone(sends(body))
    chunks = ours(environ(), lambda *_: None)
    assert next(chunks) == b"a"
    chunks.close()
    chunks.close()
    assert body.closed == 1
    assert provider.runtime.outbox.depth == 1


async def test_what_is_written_is_recorded() -> None:
    def app(environ: Environ, start: Start) -> Any:
        step.run("a", int)
        write = start("202 Accepted", TEXT)
        write(b"one ")
        write(b"two ")
        return [b"three"]

    async with durable(wrapped(app), wsgi=True) as world:
        assert (await world.client.get("/")).content == b"one two three"
        assert await world.provider.wait()
        assert (recorded(world)["status"], recorded(world)["body"]) == (202, "one two three")


async def test_no_more_of_a_body_is_kept_than_may_be() -> None:
    def app(environ: Environ, start: Start) -> Any:
        step.run("a", int)
        start("200 OK", TEXT)
        for _ in range(100):
            yield b"x" * 100

    async with durable(wrapped(app), wsgi=True, max_body_bytes=1000) as world:
        assert len((await world.client.get("/")).content) == 10_000
        assert await world.provider.wait()
        assert recorded(world)["body"] == ""


# --- requests that wait ---------------------------------------------------------------------------


def plain(environ: Environ, start: Start) -> Any:
    try:
        step.run("before", log.append, "before")
        step.sleep("nap", NAP)
    finally:
        log.append("finally")
    start("201 Created", TEXT)
    return [b"done"]


def as_a_generator(environ: Environ, start: Start) -> Generator[bytes]:
    try:
        step.run("before", log.append, "before")
        step.sleep("nap", NAP)
    finally:
        log.append("finally")
    start("201 Created", TEXT)
    yield b"done"


def swallows(environ: Environ, start: Start) -> Any:
    step.run("before", log.append, "before")
    try:
        step.sleep("nap", NAP)
    except BaseException:
        with suppress(BaseException):
            step.run("after", log.append, "must not run")
        log.append("finally")
        start("418 No", TEXT)(b"written")
        return [b"of a handler that was overtaken"]
    log.append("finally")
    start("201 Created", TEXT)
    return [b"done"]


def swallows_while_streaming(environ: Environ, start: Start) -> Generator[bytes]:
    step.run("before", log.append, "before")
    try:
        step.sleep("nap", NAP)
    except BaseException:
        log.append("finally")
        start("418 No", TEXT)
        yield b"of a handler that was overtaken"
        log.append("must not run")
    else:
        log.append("finally")
        start("201 Created", TEXT)
        yield b"done"


def raises_something_else(environ: Environ, start: Start) -> Any:
    step.run("before", log.append, "before")
    try:
        step.sleep("nap", NAP)
    except BaseException:
        log.append("finally")
        raise LookupError("of a handler that was overtaken") from None
    log.append("finally")
    start("201 Created", TEXT)
    return [b"done"]


def with_an_async_view(environ: Environ, start: Start) -> Any:
    """As Flask and Django run `async def` views under WSGI: on an event loop of their own."""

    async def slow() -> None:
        await asyncio.to_thread(log.append, "before")

    async def view() -> str:
        try:
            await asyncio.gather(
                async_step.sleep("nap", NAP), async_step.run("before", slow),
            )  # fmt: skip
        finally:
            log.append("finally")
        return "done"

    body = asyncio.run(view())
    start("201 Created", TEXT)
    return [body.encode()]


def in_parallel(environ: Environ, start: Start) -> Any:
    try:
        step.parallel(
            (
                lambda: step.sleep("nap", NAP),
                lambda: step.run("before", log.append, "before"),
                lambda: step.sleep("another", NAP),
            )
        )
    finally:
        log.append("finally")
    start("201 Created", TEXT)
    return [b"done"]


def catches_everything(app: App) -> App:
    def outer(environ: Environ, start: Start) -> Any:
        try:
            return app(environ, start)
        except BaseException as error:
            log.append(type(error).__name__)
            start("500 No", TEXT)
            return [b"caught"]

    return outer


@pytest.mark.parametrize(
    "app",
    [
        plain,
        as_a_generator,
        swallows,
        swallows_while_streaming,
        raises_something_else,
        with_an_async_view,
        in_parallel,
        catches_everything(plain),
    ],
    ids=lambda app: app.__qualname__,
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_whatever_the_handler_does_the_runs_state_decides(app: App) -> None:
    async with durable(lambda provider: provider.wsgi(app), wsgi=True) as world:
        first = await world.client.get("/")
        assert first.status_code == 303
        assert first.headers["x-run-id"] in first.headers["location"]
        assert log[:2] == ["before", "finally"]
        last = await world.follow(first)
        assert (last.status_code, last.content) == (201, b"done")
    assert log.count("before") == 1
    assert log.count("finally") == len(world.reentries) + 1
    assert "must not run" not in log


async def test_what_an_async_view_leaves_to_be_sent_outlives_its_loop() -> None:
    """A step's result is on its way when the loop of the view ends."""
    over = threading.Event()
    ran: list[str] = []

    async def view() -> None:
        await async_step.sleep("nap", NAP)
        await async_step.run("a", ran.append, "a")
        await async_step.sleep("another", NAP)

    def app(environ: Environ, start: Start) -> Any:
        try:
            asyncio.run(view())
        finally:
            over.set()
        start("200 OK", TEXT)
        return [b"done"]

    async with durable(wrapped(app), wsgi=True) as world:
        first = await world.client.get("/")
        over.clear()
        through = world.to_engine.handle_async_request

        async def late(request: httpx2.Request) -> httpx2.Response:
            if request.url.path.endswith("/steps"):
                await asyncio.to_thread(over.wait)
            return await through(request)

        world.to_engine.handle_async_request = late  # type: ignore[method-assign]
        assert (await world.follow(first)).content == b"done"
        assert (await world.steps(first))["a"]["status"] == "Completed"
    assert ran == ["a"]


async def test_ordinary_errors_stay_errors() -> None:
    def app(environ: Environ, start: Start) -> Any:
        step.run("a", int)
        raise LookupError("an ordinary bug")

    async with durable(wrapped(app), wsgi=True) as world:
        assert (await world.client.get("/")).status_code == 500
        assert await world.provider.wait()
        assert "an ordinary bug" in recorded(world)["error"]
    assert world.reentries == []


async def test_an_error_after_the_wait_is_the_result() -> None:
    def app(environ: Environ, start: Start) -> Any:
        step.sleep("nap", NAP)
        raise LookupError("an ordinary bug")

    async with durable(wrapped(app), wsgi=True) as world:
        last = await world.follow(await world.client.get("/"))
        assert (last.status_code, last.text) == (500, "Internal Server Error")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_it_is_too_late_to_wait_once_the_response_has_begun(method: str) -> None:
    seen: list[str] = []

    def app(environ: Environ, start: Start) -> Any:
        if method == "GET":
            start("200 OK", TEXT)
        assert step.run("inline", int) == 0
        try:
            step.sleep("nap", NAP)
        except stephttp.CannotWaitError as error:
            seen.append(str(error))
        if method == "HEAD":
            start("200 OK", TEXT)
        yield b"x" if method == "GET" else b""

    async with durable(wrapped(app), wsgi=True) as world:
        assert (await world.client.request(method, "/")).status_code == 200
    assert "has to wait, but the" in seen[0]


async def test_failed_steps_are_retried() -> None:
    def flaky() -> str:
        log.append("try")
        if log.count("try") < 3:
            raise LookupError("not yet")
        return "at last"

    def app(environ: Environ, start: Start) -> Any:
        stephttp.configure(retries=3)
        text = step.run("flaky", flaky)
        start("200 OK", TEXT)
        return [text.encode()]

    async with durable(wrapped(app), wsgi=True) as world:
        last = await world.follow(await world.client.get("/"))
        assert (last.status_code, last.content, log.count("try")) == (200, b"at last", 3)


async def test_events_and_tools_that_talk_to_the_server() -> None:
    def app(environ: Environ, start: Start) -> Any:
        ids = step.send_event("tell", stephttp.Event(name="order/placed", data={"id": 1}))
        packed = step.wait_for_event("packed", event="order/packed", timeout=NAP)
        start("200 OK", TEXT)
        return [json.dumps([len(ids), packed.data if packed else None]).encode()]

    async with durable(wrapped(app), wsgi=True) as world:
        first = await world.client.get("/")
        await world.api.post("/e/key", json={"name": "order/packed", "data": {"id": 7}})
        assert (await world.follow(first)).json() == [1, {"id": 7}]


# --- what a re-entry gets back --------------------------------------------------------------------


def tells(environ: Environ, start: Start) -> Any:
    step.sleep("nap", NAP)
    keys = ("HTTP_AUTHORIZATION", "HTTP_COOKIE", "HTTP_HOST", "REMOTE_ADDR", "CONTENT_TYPE",
            "wsgi.url_scheme", "QUERY_STRING", "PATH_INFO", "REQUEST_METHOD", "CONTENT_LENGTH",
            "HTTP_X_RUN_ID", "HTTP_X_INNGEST_SIGNATURE")  # fmt: skip
    start("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({key: environ.get(key) for key in keys}).encode()]


async def test_a_resumed_handler_sees_the_original_request() -> None:
    async with durable(wrapped(tells), wsgi=True, key="ab" * 16) as world:
        headers = [("authorization", "Bearer me"), ("cookie", "a=1"), ("cookie", "b=2"),
                   ("content-type", "text/csv")]  # fmt: skip
        first = await world.client.put("/a%20b/ü?q=%20x", content=b"1,2", headers=headers)
        assert (await world.follow(first)).json() == {
            "HTTP_AUTHORIZATION": "Bearer me",
            "HTTP_COOKIE": "a=1; b=2",
            "HTTP_HOST": "app.test",
            "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_TYPE": "text/csv",
            "wsgi.url_scheme": "http",
            "QUERY_STRING": "q=%20x",
            "PATH_INFO": "/a b/ü".encode().decode("latin-1"),
            "REQUEST_METHOD": "PUT",
            "CONTENT_LENGTH": "3",
            "HTTP_X_RUN_ID": None,
            "HTTP_X_INNGEST_SIGNATURE": None,
        }
    assert world.reentries[0].url.raw_path == b"/a%20b/%C3%BC?q=%20x"


def reads(how: str) -> App:
    def app(environ: Environ, start: Start) -> Any:
        source, read = environ["wsgi.input"], b""
        if how == "some":
            read = source.read(10)
        elif how == "lines":
            read = source.readline(-1) + b"".join(source.readlines(5))
        elif how == "all":
            read = b"".join(source)
        step.sleep("nap", NAP)
        start("200 OK", TEXT)
        return [read, source.read(-1)]

    return app


@pytest.mark.parametrize("how", ["nothing", "some", "lines", "all"])
async def test_bodies_are_replayed_exactly_however_much_of_them_was_read(how: str) -> None:
    body = bytes(range(256)) * 4000
    async with durable(wrapped(reads(how)), wsgi=True) as world:
        last = await world.follow(await world.client.post("/", content=body))
        assert last.content == body


@pytest.mark.parametrize("terminated", [True, False])
def test_a_body_without_a_length_is_read_only_where_the_server_ends_it(terminated: bool) -> None:
    _, ours = alone(reads("nothing"))
    without = environ("POST", body=b"abc", more={"wsgi.input_terminated": terminated})
    del without["CONTENT_LENGTH"]
    source = without["wsgi.input"]
    reachable.set()
    call(ours, without)
    assert source.tell() == (3 if terminated else 0)


async def test_a_body_that_is_too_large_is_a_413() -> None:
    async with durable(wrapped(reads("some")), wsgi=True, max_body_bytes=100) as world:
        assert (await world.client.post("/", content=b"x" * 100)).status_code == 303
        refused = await world.client.post("/", content=b"x" * 101)
        assert refused.status_code == 413
        assert "101 bytes" in refused.json()["error"]
        chunked = environ("POST", body=b"x" * 500, more={"wsgi.input_terminated": True})
        del chunked["CONTENT_LENGTH"]
        assert (await asyncio.to_thread(call, world.to_app.app, chunked)).status == 413


def test_a_caller_that_leaves_while_sending_leaves_no_run() -> None:
    provider, ours = alone(reads("some"))
    half = environ("POST", body=b"half", more={"CONTENT_LENGTH": "1000"})
    assert call(ours, half).status == 400
    assert provider.runtime.outbox.depth == 0


# --- calls of the server --------------------------------------------------------------------------


async def enter(world: Durable, run_id: str, **more: str) -> httpx2.Response:
    headers = {"x-run-id": run_id, "x-inngest-req-version": "2", "x-inngest-generation-id": "1"}
    return await world.client.get("/", headers=headers | more)


async def test_calls_of_the_server_are_verified_or_refused_and_never_a_new_run() -> None:
    async with durable(wrapped(plain), wsgi=True, key="ab" * 16) as world:
        first = await world.client.get("/")
        run_id = first.headers["x-run-id"]
        posted = len(world.to_engine.requests)
        unsigned = await enter(world, run_id)
        assert (unsigned.status_code, unsigned.headers["x-inngest-req-version"]) == (401, "1")
        forged = await enter(world, run_id, **{"x-inngest-signature": "t=1&s=ab"})
        assert forged.status_code == 401
        assert len(world.to_engine.requests) == posted
        log.clear()
        assert (await world.follow(first)).status_code == 201
    async with durable(wrapped(plain), wsgi=True) as world:
        log.clear()
        assert (await enter(world, "01M81NT13NCCP5V7EQ9MPKSWMT")).status_code == 404
        assert (await enter(world, "nonsense")).status_code == 400
        first = await world.client.get("/")
        log.clear()
        world.to_engine.down = True
        assert (await enter(world, first.headers["x-run-id"])).status_code == 503
        assert log == []
        assert (await world.client.get("/", headers={"x-run-id": "of another"})).status_code == 503
        assert log == ["before", "finally"], "it is a request like any other"


async def test_two_calls_for_one_run_take_turns() -> None:
    reached, gate = threading.Event(), threading.Event()

    def app(environ: Environ, start: Start) -> Any:
        step.sleep("nap", NAP)
        log.append("call")
        reached.set()
        assert gate.wait(60)
        step.run("after", log.append, "after")
        start("200 OK", TEXT)
        return [b"done"]

    async with durable(wrapped(app), wsgi=True) as world:
        first = await world.client.get("/")
        world.to_app.down = True
        await world.turn()
        both = [asyncio.ensure_future(enter(world, first.headers["x-run-id"])) for _ in "ab"]
        await asyncio.to_thread(reached.wait, 60)
        keyed_lock, run_id = world.provider.runtime.keyed_lock, first.headers["x-run-id"]
        while not keyed_lock.contended(run_id):  # noqa: ASYNC110 - threads
            await asyncio.sleep(0)
        assert log == ["call"]
        gate.set()
        answers = await asyncio.gather(*both)
        assert [answer.status_code for answer in answers] == [206, 206]
    assert log.count("after") == 1, "the second found the step remembered"


def test_wrapping_twice_is_an_error_that_says_so() -> None:
    provider, ours = alone(listed)
    with pytest.raises(stephttp.ConfigurationError, match="twice"):
        call(provider.wsgi(ours), environ())


async def test_a_part_of_an_asgi_application_is_not_wrapped_again() -> None:
    provider, inner = alone(listed)

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.to_thread(call, inner, environ("GET", "/b"))
        except stephttp.ConfigurationError as error:
            log.append(str(error))
        await asyncio.to_thread(call, inner, environ("GET", "/another"))  # a request of its own
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    transport = httpx2.ASGITransport(app=provider.asgi(outer))
    async with httpx2.AsyncClient(transport=transport, base_url="http://app.test") as client:
        assert (await client.get("/a/b")).status_code == 200
    assert len(log) == 1
    assert "wrap the outermost application only" in log[0]
    reachable.set()
    assert await provider.aclose()


def test_the_same_environ_may_pass_again_when_the_first_pass_is_over() -> None:
    """As with a cascade that tries one application after the other."""
    _, ours = alone(late)
    again = environ()
    for _ in range(2):
        chunks = ours(again, lambda *_: None)
        assert list(chunks) == [b"late"]
        chunks.close()


# --- the outbox, in threads -----------------------------------------------------------------------


def test_what_is_left_is_delivered_by_threads_and_waited_for() -> None:
    arrived: list[bytes] = []

    def take(request: httpx2.Request) -> httpx2.Response:
        arrived.append(request.content)
        return httpx2.Response(200)

    settings = resolve("http://app.test", environ={"INNGEST_DEV": "1"})
    provider = Provider(settings, sync_transport=httpx2.MockTransport(take))
    ours = provider.wsgi(sends([b"x"]))
    threads = [
        threading.Thread(target=lambda: [call(ours, environ()) for _ in range(50)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert provider.wait_sync(60)
    assert len(arrived) == 200
    assert len({json.loads(body)["run_id"] for body in arrived}) == 200
    assert provider.runtime.outbox.depth == 0
    assert provider.close()


async def test_results_are_served_on_the_applications_own_origin() -> None:
    async with durable(wrapped(plain), wsgi=True, result_path="/result") as world:
        first = await world.client.get("/")
        assert first.headers["location"].startswith("/result?run_id=")
        waiting = asyncio.ensure_future(
            world.client.get(first.headers["location"], follow_redirects=True)
        )
        assert (await world.client.options("/result")).status_code == 204
        assert (await world.client.put("/result")).status_code == 405
        bounded = {"prefer": "wait=1"}
        for _ in range(3):
            await world.engine.idle()
            await world.turn()
            if await world.status(first) == "Completed":
                break
        last = await waiting
        assert (last.status_code, last.content) == (201, b"done")
        again = await world.client.get(first.headers["location"], headers=bounded)
        assert again.content == b"done"
        head = await world.client.head(first.headers["location"])
        assert (head.status_code, head.content) == (201, b"")
        world.to_engine.down = True
        away = await world.client.get(first.headers["location"], headers={"prefer": "wait=0"})
        assert away.status_code == 202


def test_the_validators_of_these_tests_do_complain() -> None:
    def bad(environ: Environ, start: Start) -> Any:
        start("200 OK", TEXT)
        return "text"

    for app in (bad, alone(bad)[1], alone(validator(bad))[1]):
        with pytest.raises(AssertionError):
            call(app, environ())


# --- middleware -----------------------------------------------------------------------------------


class Telling(stephttp.Middleware):
    """Notes when it is called, by plain and async methods, and changes what it may."""

    def before_call(self) -> None:
        log.append(f"call {self.ctx.resumed}")

    async def before_execution(self) -> None:
        log.append("execution")

    def transform_output(self, result: Any) -> None:
        result.output = f"{result.output}!" if isinstance(result.output, str) else result.output

    async def before_response(self, response: stephttp.Response) -> None:
        log.append(f"response {response.status}")
        if response.status == 201:
            response.status = 202
            response.headers.append((b"x-told", b"1"))

    def after_call(self, end: Any) -> None:
        log.append(f"over {end.run_ended}")


async def test_middleware_is_called_as_under_asgi() -> None:
    def app(environ: Environ, start: Start) -> Any:
        text = step.run("a", str, "text")
        if environ["PATH_INFO"] == "/waits":
            step.sleep("nap", NAP)
        start("201 Created", TEXT)
        return [text.encode()]

    async with durable(wrapped(app), wsgi=True, middleware=[Telling]) as world:
        answer = await world.client.get("/")
        assert (answer.status_code, answer.text, answer.headers["x-told"]) == (202, "text", "1")
        assert log == ["call False", "execution", "response 201", "over True"]
        log.clear()
        first = await world.client.get("/waits")
        last = await world.follow(first)
        assert (last.status_code, last.text, last.headers["x-told"]) == (202, "text!", "1")
    assert log == [
        "call False", "execution", "response 303", "over False",
        "call True", "execution", "response 201", "over True",
    ]  # fmt: skip
