"""Runs that take longer than their callers are held: eight minutes for curl, twenty for a browser,
three days for those who open the link afterwards.

Engine and shops are real servers, on a thread of this process and on one clock, which is turned
whenever all callers are held. So the holds are those of the settings, and cost no time.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any, Literal

import httpx2
import pytest
import uvicorn

from stephttp import step
from stephttp.engine import Settings, VirtualClock, create_app
from stephttp.options import resolve
from stephttp.provider import Provider
from tests import needs
from tests.acceptance.processes import DEADLINE, Process, eventually

pytest.importorskip("playwright", reason="the browser tests need playwright")
from playwright.sync_api import expect

TICK = 10.0
"""Seconds by which the clock is turned; holds are multiples of it."""
PATIENCE = DEADLINE * 1000
FORM = b"""<!doctype html><title>Shop</title><link rel=icon href=data:,>
<form method=post><button>Order</button></form>"""
FETCH = """async () => {
  let answer = await fetch("", { method: "POST" });
  while (answer.status === 202) {
    const { result_url } = await answer.json();
    answer = await fetch(new URL(result_url, answer.url));
  }
  return [answer.status, answer.headers.get("x-receipt"), await answer.text()];
}"""


async def shop(scope: Any, receive: Any, send: Any) -> None:
    """Answer with a form; and to what it posts, after as many minutes as the query says."""
    status, kind, body = 200, b"text/html", FORM
    if scope["method"] == "POST":
        await step.run("charge-card", lambda: 7)
        await step.sleep("packed", timedelta(minutes=int(scope["query_string"])))
        status, kind, body = 201, b"text/plain", b"receipt"
    headers = [(b"content-type", kind), (b"x-receipt", b"7")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Clock(VirtualClock):
    """A clock that knows what waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: set[asyncio.Event] = set()

    async def wait_for(self, seconds: float, wake: asyncio.Event | None = None) -> None:
        wake = wake or asyncio.Event()
        self.waits.add(wake)
        try:
            await super().wait_for(seconds, wake)
        finally:
            self.waits.discard(wake)


class Rig:
    """An engine, and shops before it, by the place where their results are."""

    def __init__(self) -> None:
        self.clock = Clock()
        self._listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
        self.engine, *shops = (
            f"http://127.0.0.1:{one.getsockname()[1]}" for one in self._listeners
        )
        self.shops = dict(zip(("direct", "result_path"), shops, strict=True))
        app = create_app(Settings(), clock=self.clock)
        self._engine = app.state.engine
        self._apps: list[Any] = [app]
        self.providers: list[Provider] = []
        for place, origin in self.shops.items():
            path = "/_result" if place == "result_path" else None
            environ = {"INNGEST_DEV": self.engine}
            settings = resolve(origin, environ=environ, result_path=path)
            provider = Provider(settings, now_ns=lambda: self.clock.now_ms() * 1_000_000)
            self.providers.append(provider)
            self._apps.append(provider.asgi(shop))
        self._loop = asyncio.new_event_loop()
        self._servers: list[uvicorn.Server] = []
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._serve()])

    def __enter__(self) -> Rig:
        self._thread.start()
        eventually(lambda: len(self._servers) == 3 and all(one.started for one in self._servers))
        return self

    def __exit__(self, *error: object) -> None:
        for server in self._servers:
            server.should_exit = True
        self._thread.join(DEADLINE)
        self._loop.close()

    async def _serve(self) -> None:
        serving: list[Any] = []
        for app, listener in zip(self._apps, self._listeners, strict=True):
            lifespan: Literal["on", "off"] = "off" if serving else "on"
            config = uvicorn.Config(app, lifespan=lifespan, log_config=None)
            self._servers.append(uvicorn.Server(config))
            serving.append(self._servers[-1].serve(sockets=[listener]))
        await asyncio.gather(*serving)
        for provider in self.providers:
            await provider.aclose()

    def turn(self, minutes: float, held: Callable[[], bool] = lambda: True) -> None:
        """Turn the clock, each time that all callers are held."""
        for _ in range(int(minutes * 60 / TICK)):
            eventually(held)
            self._on_loop(lambda: self.clock.advance(TICK))

    @contextmanager
    def turning(self, held: Callable[[], bool]) -> Generator[None]:
        """Turn the clock meanwhile, each time that all callers are held.

        The browser says nothing of a page without scripts that is about to be replaced.
        """
        over = threading.Event()

        def turn() -> None:
            while not over.wait(0.01):
                if held():
                    self._on_loop(lambda: self.clock.advance(TICK))

        thread = threading.Thread(target=turn)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def jump(self, minutes: int) -> None:
        """Turn the clock once, and wait until all runs have ended."""
        self._on_loop(lambda: self.clock.advance(minutes * 60))
        eventually(lambda: not self._running())

    def _running(self) -> bool:
        runs = httpx2.get(f"{self.engine}/v1/runs", timeout=DEADLINE).json()["data"]
        return any(run["status"] == "Running" for run in runs)

    def held(self, count: int) -> Callable[[], bool]:
        """Whether so many callers are held at the engine, and the time of none is over."""

        def held() -> int:
            # A caller that the engine has still to look up is not held: its hold is over sooner.
            waiting = set().union(*self._engine.waiters._events.values()) & self.clock.waits
            return sum(not event.is_set() for event in waiting)

        return lambda: bool(self._on_loop(held) == count)

    def _on_loop(self, what: Callable[[], Any]) -> Any:
        async def call() -> Any:
            return what()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(DEADLINE)


@pytest.fixture(scope="module")
def rig() -> Generator[Rig]:
    with Rig() as made:
        yield made


def curl(url: str, *options: str) -> Process:
    """A caller that follows redirects, and says what it gets."""
    return Process([needs.command("curl"), "-sSL", "-v", *options, url])


def answers(process: Process) -> tuple[list[str], str, str]:
    """The statuses that curl was answered with, the header and the body of the last answer."""
    assert process.wait() == 0, process.said()
    heads = [line.removeprefix("< ") for line in process.err if line.startswith("< ")]
    statuses = [line.split()[1] for line in heads if line.startswith("HTTP/1.1 ")]
    [receipt] = [line.split()[1] for line in heads if line.startswith("x-receipt:")]
    return statuses, receipt, "".join(process.out)


class Page:
    """A page in the browser, and with what the address of the result has answered it."""

    def __init__(self, context: Any, shop: str, minutes: int) -> None:
        self.page = context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.page.goto(f"{shop}/?{minutes}")
        self.statuses: list[int] = []
        self.page.on("response", self._note)

    def _note(self, response: Any) -> None:
        if "token=" in response.url:
            self.statuses.append(response.status)
            self.receipt = response.headers.get("x-receipt")


def test_a_run_of_eight_minutes_gives_its_answer_to_curl(rig: Rig) -> None:
    with ExitStack() as stack:
        shops = rig.shops.values()
        curls = [stack.enter_context(curl(f"{shop}/?8", "-d", "")) for shop in shops]
        rig.turn(8, rig.held(len(curls)))
        for process in curls:
            statuses, receipt, body = answers(process)
            assert statuses == [*["303"] * (1 + 9), "201"], "nine whole holds of 50 s"
            assert (receipt, body) == ("7", "receipt")


def test_a_run_of_twenty_minutes_gives_its_answer_to_a_script(browser: Any, rig: Rig) -> None:
    context = browser.new_context()
    pages = [Page(context, shop, 20) for shop in rig.shops.values()]
    for one in pages:
        one.page.evaluate(f"() => {{ window.got = ({FETCH})(); }}")
    rig.turn(20 - 1 / 6, rig.held(len(pages)))
    rig.turn(1 / 6)
    for one in pages:
        assert one.page.evaluate("() => window.got") == [201, "7", "receipt"]
        # Twelve redirects at a time. The 24th hold ends with the run.
        assert one.statuses[:23] == [*[303] * 12, 202, *[303] * 10]
        assert one.statuses[23:] in ([201], [303, 201])
    context.close()


def test_a_run_of_twenty_minutes_gives_its_answer_to_a_page(browser: Any, rig: Rig) -> None:
    contexts = [browser.new_context(java_script_enabled=script) for script in (True, False)]
    pages = [Page(one, shop, 20) for one in contexts for shop in rig.shops.values()]
    for one in pages:
        one.page.get_by_role("button").click(no_wait_after=True)
    rig.turn(1 / 6, rig.held(len(pages)))
    with rig.turning(rig.held(2)):  # without scripts, pages come again
        for one in pages:
            waiting = one.page.locator("#waiting")
            expect(waiting).to_have_text("Waiting for packed", timeout=PATIENCE)
    for _ in range(4):
        eventually(rig.held(2))
        rig.turn(5)
    for one in pages:
        expect(one.page.locator("body")).to_have_text("receipt", timeout=PATIENCE)
        assert (one.statuses[-1], one.receipt) == (201, "7")
        assert {*one.statuses} <= {200, 201, 202}, "no redirects are used up"
    assert min(one.statuses.count(202) for one in pages[2:]) > 3
    for context in contexts:
        context.close()


def test_a_run_of_three_days_gives_its_answer_to_those_who_open_the_link_afterwards(
    browser: Any, rig: Rig
) -> None:
    minutes = 3 * 24 * 60
    links = []
    for shop in rig.shops.values():
        begun = httpx2.post(f"{shop}/?{minutes}", timeout=DEADLINE)
        links.append(str(begun.url.join(begun.headers["location"])))
    rig.jump(minutes)
    page = browser.new_page()
    for link in links:
        with curl(link) as process:
            assert answers(process) == (["201"], "7", "receipt")
        answer = page.goto(link)
        assert (answer.status, answer.headers["x-receipt"]) == (201, "7")
        expect(page.locator("body")).to_have_text("receipt")
    page.close()
