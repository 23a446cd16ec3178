"""Apps are asked for their functions: what their answers mean, how often, and who is found."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from stephttp._wire.signatures import sign
from stephttp.engine.functions.syncing import Syncing, app_urls
from stephttp.errors import ConfigurationError
from tests.engine.functions.support import config
from tests.engine.support import KEY, World, world

Asked = tuple[str, str, dict[str, str], bytes]
"""Method, target, headers and body of a request."""
IN_BAND = {"x-inngest-sdk": "test:v1", "x-inngest-sync-kind": "in_band"}
OUT_OF_BAND = {"x-inngest-sdk": "test:v1", "x-inngest-sync-kind": "out_of_band"}


class Answering:
    """An app on a loopback port that answers as it is set to: status, headers and JSON."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.asked: list[Asked] = []
        self.answer: tuple[int, dict[str, str], Any] = (404, {}, {})

    async def __aenter__(self) -> Answering:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/api/inngest"
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.read(64 * 1024)).decode()
        if head:  # a look at the port sends nothing
            lines, _, body = head.partition("\r\n\r\n")
            first, *more = lines.split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in more)
            left = int(headers.get("content-length", 0)) - len(body)
            if left > 0:
                body += (await reader.readexactly(left)).decode()
            method, target, _ = first.split(" ")
            self.asked.append((method, target, headers, body.encode()))
            status, answered, content = self.answer
            said = json.dumps(content).encode()
            if answered.get("content-encoding") == "gzip":
                assert headers["accept-encoding"] == "gzip"
                said = gzip.compress(said)
            named = answered | {"content-length": str(len(said)), "connection": "close"}
            fields = "".join(f"{name}: {value}\r\n" for name, value in named.items())
            writer.write(f"HTTP/1.1 {status} X\r\n{fields}\r\n".encode() + said)
        writer.close()

    def functions(self, *ids: str) -> dict[str, Any]:
        """What an app says of itself."""
        some = [config(id_, "go") for id_ in ids]
        return {"app_id": "shop", "url": self.url, "functions": some, "sdk": "js:v1"}


class Heard(Syncing):
    """Keeps what is said to people."""

    lines: list[str]


@asynccontextmanager
async def syncing(w: World, *urls: str, ports: tuple[int, ...] = ()) -> AsyncGenerator[Heard]:
    lines: list[str] = []
    made = Heard(w.engine.functions, w.clock, w.engine.settings, urls, ports, lines.append)
    made.lines = lines
    try:
        yield made
    finally:
        await made.stop()


async def known(w: World) -> list[str]:
    response = await w.http.get("/v1/apps/shop/functions")
    return [one["slug"] for one in response.json()] if response.status_code == 200 else []


async def test_an_app_answers_with_its_functions() -> None:
    keys: dict[str, Any] = {"signing_keys": (KEY,), "event_keys": ("key",)}
    async with Answering() as app, world(**keys) as w, syncing(w) as asking:
        w.http.headers["authorization"] = f"Bearer {KEY}"
        content = app.functions("shop-a", "shop-b")
        signature = sign(KEY, json.dumps(content).encode(), int(w.clock.now()))
        app.answer = (200, IN_BAND | {"x-inngest-signature": signature}, content)
        assert await asking.sync(app.url) is None
        assert await known(w) == ["shop-a", "shop-b"]
        ((method, target, headers, body),) = app.asked
        assert (method, target, json.loads(body)) == ("PUT", "/api/inngest", {"url": app.url})
        assert headers["x-inngest-sync-kind"] == "in_band"
        assert headers["x-inngest-server-kind"] == "cloud"
        assert headers["x-inngest-signature"] == sign(KEY, body, int(w.clock.now()))


@pytest.mark.parametrize("key", [None, "signkey-test-ff"])
async def test_an_answer_that_is_not_signed_registers_nothing(key: str | None) -> None:
    keys: dict[str, Any] = {"signing_keys": (KEY,), "event_keys": ("key",)}
    async with Answering() as app, world(**keys) as w, syncing(w) as asking:
        w.http.headers["authorization"] = f"Bearer {KEY}"
        content = app.functions("shop-a")
        headers = dict(IN_BAND)
        if key is not None:
            body = json.dumps(content).encode()
            headers["x-inngest-signature"] = sign(key, body, int(w.clock.now()))
        app.answer = (200, headers, content)
        problem = "its answer is not signed with a signing key of this engine"
        assert await asking.sync(app.url) == problem
        assert await known(w) == []


@pytest.mark.parametrize(
    ("status", "headers", "content", "problem"),
    [
        (200, OUT_OF_BAND, {"message": "Successfully registered"}, None),
        (200, {}, {"hello": "I am another service"}, "no SDK has answered"),
        (404, {}, {}, "it answered 404"),
        (401, {}, {"message": "Unauthorized"}, "it answered 401: Unauthorized"),
        (500, OUT_OF_BAND, {"error": "no server"}, "it answered 500: no server"),
        (200, IN_BAND, {"app_id": "shop"}, "body: "),
        (200, IN_BAND, [], "body: "),
    ],
)
async def test_other_answers(
    status: int, headers: dict[str, str], content: Any, problem: str | None
) -> None:
    async with Answering() as app, world() as w, syncing(w) as asking:
        app.answer = (status, headers, content)
        found = await asking.sync(app.url)
        assert found == problem if problem is None else (found or "").startswith(problem)
        assert await known(w) == []


@pytest.mark.parametrize("url", ["x", "ftp://x/y", "http://x:99999/y", "http://user@x/y", ""])
def test_what_is_not_a_url_is_refused_at_once(url: str) -> None:
    assert app_urls(None) == ()
    with pytest.raises(ConfigurationError, match=r"--app: .* is not a URL such as"):
        app_urls(["http://127.0.0.1/api/inngest", url])


async def test_an_answer_may_be_compressed() -> None:
    async with Answering() as app, world() as w, syncing(w) as asking:
        app.answer = (200, IN_BAND | {"content-encoding": "gzip"}, app.functions("shop-a"))
        assert await asking.sync(app.url) is None
        assert await known(w) == ["shop-a"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/x", "http://no-such-host.invalid/x"])
async def test_apps_that_cannot_be_asked(url: str) -> None:
    async with world() as w, syncing(w) as asking:
        assert (await asking.sync(url) or "").startswith("no connection (")


async def test_an_app_that_may_not_be_called_is_not_asked() -> None:
    async with (
        Answering() as app,
        world(allow_hosts=("other.test",), private_hosts=False) as w,
        syncing(w) as asking,
    ):
        assert "--allow-host" in (await asking.sync(app.url) or "")
        assert app.asked == []


async def test_an_app_is_asked_again_and_what_is_new_is_said_once() -> None:
    async with Answering() as app, world() as w, syncing(w, app.url, app.url) as asking:
        assert await asking.ask_all() == 1.0
        assert await asking.ask_all() == 1.0
        app.answer = (200, IN_BAND, app.functions("shop-a"))
        assert await asking.ask_all() == 5.0
        app.answer = (200, IN_BAND, app.functions("shop-b"))
        assert await asking.ask_all() == 5.0
        assert await known(w) == ["shop-b"]
        assert len(app.asked) == 4
        answers = ("it answered 404; asking again", "registered")
        assert asking.lines == [f"functions at {app.url}: {answer}" for answer in answers]


async def test_it_asks_as_time_passes_until_it_is_stopped() -> None:
    async with Answering() as app, world() as w, syncing(w, app.url) as asking:
        asking.start()
        while len(app.asked) < 3:
            await asyncio.sleep(0)
            w.clock.advance(1)
        await asking.stop()
        assert asking.lines == [f"functions at {app.url}: it answered 404; asking again"]


async def test_nothing_is_started_without_apps_and_ports() -> None:
    async with world() as w, syncing(w) as asking:
        before = len(asyncio.all_tasks())
        asking.start()
        assert len(asyncio.all_tasks()) == before


async def test_apps_on_this_machine_are_found() -> None:
    async with Answering() as app, world() as w:
        app.answer = (200, OUT_OF_BAND, {"function_count": 1, "mode": "dev"})
        async with syncing(w, ports=(app.port, 1)) as asking:
            for _ in range(2):
                await asking.ask_all()
        methods = [one[0] for one in app.asked]
        # All paths may serve functions; what was found is not looked for again.
        assert methods == ["GET"] * 4 + ["PUT"] * 8
        assert app.asked[0][1] == "/api/inngest"
        assert {one[2]["x-inngest-server-kind"] for one in app.asked} == {"dev"}


async def test_an_app_that_is_named_is_not_looked_for() -> None:
    async with Answering() as app, world() as w, syncing(w, app.url, ports=(app.port,)) as asking:
        app.answer = (200, OUT_OF_BAND, {"function_count": 1})
        await asking.ask_all()
        assert [one[0] for one in app.asked] == ["PUT"]


async def test_other_services_are_looked_at_now_and_then() -> None:
    async with Answering() as app, world() as w, syncing(w, ports=(app.port,)) as asking:
        app.answer = (200, {}, {"hello": "I am another service"})
        for _ in range(60):
            assert await asking.ask_all() == 5.0
        assert [one[0] for one in app.asked] == ["GET"] * 4
        await asking.ask_all()
        assert len(app.asked) == 8
        assert asking.lines == []


async def test_a_port_that_was_closed_is_looked_at_as_soon_as_it_is_open() -> None:
    async with Answering() as app:
        port = app.port
    async with world() as w, syncing(w, ports=(port,)) as asking:
        await asking.ask_all()
        async with Answering(port) as app:
            await asking.ask_all()
            assert len(app.asked) == 4
        await asking.ask_all()
        async with Answering(port) as app:
            await asking.ask_all()
            assert len(app.asked) == 4


async def test_what_an_app_says_gives_a_terminal_no_commands() -> None:
    async with Answering() as app, world() as w, syncing(w, f"{app.url}?bypass=1") as asking:
        app.answer = (500, OUT_OF_BAND, {"error": "no\x1b[2J\r\nserver"})
        await asking.ask_all()
        said = "it answered 500: no [2J  server; asking again"
        assert asking.lines == [f"functions at {app.url}: {said}"]
