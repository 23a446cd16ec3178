"""Both drivers carry out the same flows in the same way."""

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from stephttp._client.blocking_driver import SyncDriver
from stephttp._client.drivers import AsyncDriver
from stephttp._client.flow import APICall, Flow, Invoke, Keys, send
from stephttp._client.outgoing_events import post, prepare
from stephttp._core.tool_types import Event
from stephttp.errors import APIConnectionError, APIStatusError, APITimeoutError

URL = "http://server.test"
Drive = Callable[[Callable[[httpx2.Request], httpx2.Response], Any], Any]


def drive_async(handler: Callable[[httpx2.Request], httpx2.Response], flow: Flow[Any]) -> Any:
    async def main() -> Any:
        async def pause(seconds: float) -> None:
            pauses.append(seconds)

        driver = AsyncDriver(
            URL, transport=httpx2.MockTransport(handler), pause=pause, headers={"x-all": "1"}
        )
        try:
            return await driver.run(flow)
        finally:
            await driver.aclose()

    return asyncio.run(main())


def drive_sync(handler: Callable[[httpx2.Request], httpx2.Response], flow: Flow[Any]) -> Any:
    driver = SyncDriver(
        URL, transport=httpx2.MockTransport(handler), pause=pauses.append, headers={"x-all": "1"}
    )
    try:
        return driver.run(flow)
    finally:
        driver.close()


pauses: list[float] = []
both = pytest.mark.parametrize("drive", [drive_async, drive_sync], ids=["async", "sync"])


@pytest.fixture(autouse=True)
def no_pauses() -> None:
    pauses.clear()


@both
def test_retries_fallback_key_and_headers(drive: Drive) -> None:
    keys = Keys("ab" * 16, "cd" * 16)
    seen: list[httpx2.Request] = []
    answers = iter([503, 401, 200])

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(next(answers), headers=[("a", "1"), ("a", "2")], content=b"body")

    answer = drive(handler, send(APICall("POST", "/p", b"x", {"h": "1"}), keys, random.Random(1)))
    assert (answer.status, answer.body) == (200, b"body")
    assert [pair for pair in answer.raw_headers if pair[0] == b"a"] == [(b"a", b"1"), (b"a", b"2")]
    assert len(pauses) == 1
    assert {(r.url.path, r.content, r.headers["x-all"], r.headers["h"]) for r in seen} == {
        ("/p", b"x", "1", "1")
    }
    assert len({r.headers["authorization"] for r in seen}) == 2


@both
def test_errors_of_the_network_and_of_the_server(drive: Drive) -> None:
    def away(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused", request=request)

    def late(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ReadTimeout("late", request=request)

    def flow() -> Flow[Any]:
        return send(APICall("GET", "/p?token=secret"), Keys(), random.Random(1))

    with pytest.raises(
        APIConnectionError, match=r"GET /p \(http://server\.test\): ConnectError"
    ) as caught:
        drive(away, flow())
    assert "secret" not in str(caught.value)
    assert not isinstance(caught.value, APITimeoutError)
    with pytest.raises(APITimeoutError):
        drive(late, flow())
    with pytest.raises(APIStatusError):
        drive(lambda request: httpx2.Response(404), flow())


@both
@pytest.mark.parametrize("asynchronous", [False, True])
def test_functions_of_the_users(drive: Drive, asynchronous: bool) -> None:
    async def later(argument: int) -> int:
        await asyncio.sleep(0)
        return argument + 1

    def flow() -> Flow[Any]:
        result = yield Invoke(later if asynchronous else lambda n: n + 1, 1)
        return result

    assert drive(lambda request: httpx2.Response(500), flow()) == 2


def chunks() -> Iterator[bytes]:
    yield b"one"
    yield b"two"


async def test_streams_come_as_they_are() -> None:
    def handler(request: httpx2.Request) -> httpx2.Response:
        assert request.extensions["timeout"]["read"] == 9
        return httpx2.Response(418, headers={"X-Own": "1"}, content=chunks())

    call = APICall("GET", "/p", timeout=9)
    blocking = SyncDriver(URL, transport=httpx2.MockTransport(handler))
    with blocking.stream(call) as streamed:
        assert (streamed.status, (b"x-own", b"1") in streamed.headers) == (418, True)
        assert list(streamed.chunks) == [b"one", b"two"]
    blocking.close()

    def away(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused", request=request)

    blocking = SyncDriver(URL, transport=httpx2.MockTransport(away))
    with pytest.raises(APIConnectionError), blocking.stream(call):
        raise AssertionError("there is no answer")
    blocking.close()


def test_keys_are_shared_by_all_who_have_the_same() -> None:
    first, second = Keys.shared("ab" * 16, "ef" * 16), Keys.shared("ab" * 16, "ef" * 16)
    before = first.bearer
    assert first.reject(before)
    assert second.bearer == first.bearer != before
    assert Keys.shared("ab" * 16).bearer == before
    first.features = frozenset({"batch"})
    assert second.features is None, "they may talk to different servers"


@both
def test_what_the_client_logs_has_no_keys(drive: Drive, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="httpx2")
    event = prepare("step", [Event(name="packed")], "01M81KWZDXV5KD3G3A1QN69DVY", "hash", 1)

    def handler(request: httpx2.Request) -> httpx2.Response:
        assert request.url.path == "/e/event-key"
        return httpx2.Response(200, json={"ids": ["1"], "status": 200})

    assert drive(handler, post(event, "", "event-key", Keys(), random.Random(1))) == ["1"]
    result = APICall("GET", "/output?token=secret")
    drive(lambda request: httpx2.Response(200), send(result, Keys(), random.Random(1)))
    assert "HTTP Request: POST /e/… " in caplog.text
    assert "HTTP Request: GET /output " in caplog.text
    assert "event-key" not in caplog.text
    assert "secret" not in caplog.text


@both
def test_no_cookies_are_kept(drive: Drive) -> None:
    """A result has those that the handler gave to its caller."""

    def handler(request: httpx2.Request) -> httpx2.Response:
        assert "cookie" not in request.headers
        return httpx2.Response(200, headers={"set-cookie": "session=alice; Path=/"})

    def twice() -> Flow[None]:
        for _ in range(2):
            yield from send(APICall("GET", "/"), Keys(), random.Random(1))

    drive(handler, twice())
