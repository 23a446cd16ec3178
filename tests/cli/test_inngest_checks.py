"""`stephttp doctor --inngest`, against the double of that server and against our own engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from stephttp import Provider, step
from stephttp.cli import inngest_checks
from stephttp.cli.doctor_checks import Check
from stephttp.cli.inngest_checks import check_inngest
from stephttp.cli.remote import Remote
from stephttp.cli.target import Target
from stephttp.options import resolve
from tests.durable import APP, Durable
from tests.realserver import RealServer
from tests.realserver.server import SERVER
from tests.wsgi import Blocking

KEY, OTHER = "ab" * 16, "cd" * 16
EVENTS = "an-event-key"


def application() -> FastAPI:
    app = FastAPI()

    @app.get("/")
    async def hello() -> str:
        return await step.run("hello", lambda: "hello")

    return app


LOOPS: list[asyncio.AbstractEventLoop] = []
"""The event loop that an engine of a test lives on."""


def blocking(transport: httpx2.AsyncBaseTransport) -> Blocking:
    found = Blocking(transport)
    found.loop = LOOPS[-1] if LOOPS else None
    return found


@pytest.fixture
async def world() -> AsyncGenerator[Durable]:
    """An application on our own engine."""
    world = Durable(lambda provider: provider.asgi(application()), key=KEY)
    await world.engine.start()
    LOOPS.append(asyncio.get_running_loop())
    yield world
    LOOPS.clear()
    await world.engine.stop()
    await world.client.aclose()
    await world.api.aclose()
    await world.provider.aclose()


def checks(
    transport: httpx2.AsyncBaseTransport,
    *,
    url: str = SERVER,
    keys: tuple[str, ...] = (KEY,),
    apps: tuple[str, ...] = (),
) -> dict[str, Check]:
    """What doctor finds, by the names of the checks."""
    with Remote(Target(url, "--inngest", keys, (EVENTS,))) as server:
        server.http.close()
        server.http = httpx2.Client(transport=blocking(transport), base_url=url)
        return {check.name: check for check in check_inngest(server, apps)}


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Lets doctor reach an application at `APP`."""

    def at_app(app: Any) -> None:
        transport = blocking(httpx2.ASGITransport(app, raise_app_exceptions=False))

        def client(ca_file: str, **options: Any) -> httpx2.Client:
            return httpx2.Client(transport=transport)

        monkeypatch.setattr(inngest_checks, "direct_client", client)

    return at_app


def durable_app(server: RealServer, key: str = KEY) -> Any:
    """An application whose server that is."""
    settings = resolve(APP, base_url=SERVER, environ={"INNGEST_SIGNING_KEY": key})
    return Provider(settings, transport=server, sync_transport=server.blocking).asgi(application())


def test_a_server_to_which_endpoints_can_move(serve: Callable[[Any], None]) -> None:
    server = RealServer(key=KEY)
    serve(durable_app(server))
    found = checks(server, url=SERVER.replace("http:", "https:"), apps=(APP,))
    assert {name: check.status for name, check in found.items()} == {
        "server": "ok",
        "address": "ok",
        "clock": "skipped",
        "signing key": "ok",
        "event key": "ok",
        "results": "ok",
        "large requests": "ok",
        f"application {APP}": "ok",
        "durability": "skipped",
    }
    assert not server.runs, "nothing is stored"


def test_a_server_for_development_is_named() -> None:
    found = checks(RealServer())
    assert (found["server"].status, found["signing key"].status) == ("warning", "ok")
    assert "forgets its runs" in found["server"].detail
    assert "--redis-uri" in (found["server"].fix or "")
    assert found["large requests"].status == "ok"


def test_plain_http_is_named_but_on_loopback() -> None:
    assert checks(RealServer(key=KEY))["address"].status == "warning"
    for host in ("127.0.0.1", "127.9.9.9", "localhost", "[::1]"):
        found = checks(RealServer(key=KEY), url=f"http://{host}:8288")
        assert found["address"].status == "ok"
    for host in ("localhost.evil.example", "127.evil.example", "mylocalhost", "[::11]"):
        found = checks(RealServer(key=KEY), url=f"http://{host}:8288")
        assert found["address"].status == "warning", host


def test_wrong_keys_are_named() -> None:
    found = checks(RealServer(key=KEY), keys=(OTHER,))
    assert (found["signing key"].status, found["large requests"].status) == ("error", "skipped")
    found = checks(RealServer(key=KEY), keys=(OTHER, KEY))
    assert (found["signing key"].status, found["signing key 2"].status) == ("warning", "ok")
    assert found["large requests"].status == "ok"
    assert checks(RealServer(key=KEY), keys=())["signing key"].status == "error"


def test_a_server_that_looks_at_no_key_is_an_error() -> None:
    class Open(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            headers = {"x-inngest-server-kind": "cloud"}
            return httpx2.Response(200, json={"ids": []}, headers=headers, request=request)

    found = checks(Open())
    assert (found["keys"].status, found["results"].status) == ("error", "warning")


def test_a_server_without_its_user_interface_gives_no_results() -> None:
    server = RealServer(key=KEY)
    server.settings.no_ui = True
    found = checks(server)["results"]
    assert (found.status, found.fix is not None and "--no-ui" in found.fix) == ("error", True)


class Between(httpx2.AsyncBaseTransport):
    """Answers requests for the states of runs in place of a server that works, or does not."""

    def __init__(self, *answers: int | Exception) -> None:
        self.inner = RealServer(key=KEY)
        self.answers = list(answers)
        self.asked = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if not request.url.path.endswith("/actions"):
            return await self.inner.handle_async_request(request)
        self.asked += 1
        if not self.answers:
            return await self.inner.handle_async_request(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return httpx2.Response(answer, text="no", request=request)


@pytest.mark.parametrize("status", [200, 302, 403, 404, 429, 500, 502, 503])
def test_answers_of_others_do_not_accept_a_key(status: int) -> None:
    found = checks(Between(401, status))
    assert (found["signing key"].status, found["large requests"].status) == ("error", "skipped")
    assert str(status) in found["signing key"].detail


def test_a_proxy_that_answers_those_without_a_key_is_named() -> None:
    found = checks(Between(502))
    assert (found["keys"].status, "502" in found["keys"].detail) == ("error", True)
    assert found["signing key"].status == "ok"


def test_each_key_is_asked_for_once() -> None:
    server = Between()
    assert checks(server, keys=(OTHER, KEY), apps=())["signing key 2"].status == "ok"
    assert server.asked == 3, "once without a key, and once with each"


@pytest.mark.parametrize("before", [0, 1, 2])
def test_a_connection_that_breaks_is_no_traceback(before: int) -> None:
    answers: list[int | Exception] = [401, 410, 410]
    answers[before] = httpx2.ReadError("reset")
    found = checks(Between(*answers), keys=(KEY, OTHER))
    assert (found["server"].status, "reset" in found["server"].detail) == ("error", True)


class Proxy(httpx2.AsyncBaseTransport):
    """Refuses bodies of more than a megabyte, as nginx does unless it is configured."""

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self.inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if len(await request.aread()) > 1024 * 1024:
            return httpx2.Response(413, text="too large", request=request)
        return await self.inner.handle_async_request(request)


def test_a_proxy_that_refuses_large_requests_is_named() -> None:
    found = checks(Proxy(RealServer(key=KEY)))["large requests"]
    assert (found.status, "client_max_body_size" in (found.fix or "")) == ("error", True)


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (httpx2.Response(502, text="bad gateway"), "answers 502"),
        (httpx2.Response(200, text="hello"), "answers 200"),
        (httpx2.ConnectError("refused"), "nothing answers"),
    ],
)
def test_something_else_at_the_address_ends_the_checks(
    answer: httpx2.Response | Exception, detail: str
) -> None:
    class Other(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            if isinstance(answer, Exception):
                raise answer
            return answer

    found = checks(Other())
    assert list(found) == ["server"]
    assert (found["server"].status, detail in found["server"].detail) == ("error", True)


async def test_our_own_engine_is_not_taken_for_one(world: Durable) -> None:
    found = await asyncio.to_thread(checks, world.to_engine, url="http://engine.test")
    assert list(found) == ["server"]
    assert "is a stephttp engine" in found["server"].detail
    assert found["server"].fix == "check it with `stephttp doctor --url http://engine.test`"


def test_an_application_with_another_key_or_no_way_to_the_server_is_named(
    serve: Callable[[Any], None],
) -> None:
    name, server = f"application {APP}", RealServer(key=KEY)
    serve(durable_app(server, OTHER))
    assert "signed with this key" in checks(server, apps=(APP,))[name].detail
    server.down = lambda request: "doctor" not in str(request.headers.get("user-agent"))
    away = RealServer(key=KEY)
    away.down = lambda request: True
    serve(durable_app(away))
    server.down = lambda request: False
    assert "cannot load runs" in checks(server, apps=(APP,))[name].detail
    serve(application())
    assert checks(server, apps=(APP,))[name].detail == "it answers without stephttp"


@pytest.mark.parametrize("known", [False, True], ids=["not asked yet", "asked before"])
async def test_an_application_that_still_asks_our_engine_is_named(
    world: Durable,
    serve: Callable[[Any], None],
    known: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = SimpleNamespace(time=lambda: world.clock.now_ms() / 1000)
    monkeypatch.setattr(inngest_checks, "time", now)
    serve(world.to_app.app)
    if known:
        await world.client.get("/")
        await world.provider.wait()
    found = await asyncio.to_thread(checks, RealServer(key=KEY), apps=(APP,))
    assert found[f"application {APP}"].status == "error"
    assert "stephttp engine" in found[f"application {APP}"].detail
    assert "INNGEST_BASE_URL" in (found[f"application {APP}"].fix or "")
