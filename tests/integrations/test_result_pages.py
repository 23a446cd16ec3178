"""`result_path` for browsers and those who follow: the page until a run has ended, and events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import flask
import httpx2
import pytest
from fastapi import FastAPI, Response

import stephttp
from stephttp import WaitingRun, step
from stephttp.provider import Provider
from stephttp.sync import step as sync_step
from tests.durable import APP, Durable, durable
from tests.engine.support import until

RESULT = "/_result"
NAVIGATION = {"accept": "text/html,*/*;q=0.8", "sec-fetch-mode": "navigate"}
EVENTS = {"accept": "text/event-stream"}


def on_loop(provider: Provider) -> Any:
    app = FastAPI()

    @app.post("/orders")
    async def orders() -> str:
        await step.run("charge", lambda: 1)
        await step.sleep("pack", timedelta(hours=1))
        return "shipped"

    return provider.asgi(app)


def in_threads(provider: Provider) -> Any:
    app = flask.Flask(__name__)

    @app.post("/orders")
    def orders() -> Any:
        sync_step.run("charge", lambda: 1)
        sync_step.sleep("pack", timedelta(hours=1))
        return flask.jsonify("shipped")

    app.wsgi_app = provider.wsgi(app.wsgi_app)  # type: ignore[method-assign]
    return app


KINDS = [(on_loop, False), (in_threads, True)]


async def held(world: Durable, location: str, seconds: float, **headers: str) -> httpx2.Response:
    """Ask, and be held for so many seconds."""
    asked = asyncio.create_task(world.client.get(location, headers=headers))
    await until(lambda: len(world.engine.waiters) == 1)
    world.clock.advance(seconds)
    return await asked


@pytest.mark.parametrize(("build", "wsgi"), KINDS)
async def test_a_browser_is_shown_a_page_until_the_answer_is_there(
    build: Callable[[Provider], Any], wsgi: bool
) -> None:
    async with durable(build, wsgi=wsgi, result_path=RESULT) as world:
        location = (await world.client.post("/orders")).headers["location"]
        page = await held(world, location, 1, **NAVIGATION)
        assert page.status_code == 202
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["content-security-policy"].startswith("default-src 'none'; style-src")
        assert page.headers["cache-control"] == "no-store"
        assert "<h1>POST /orders</h1>" in page.text
        assert 'class="completed">charge</li>' in page.text
        assert "Waiting for <span>pack</span>" in page.text
        assert "_result?run_id=" in page.text
        world.to_engine.down = True
        world.provider.runtime.monotonic_ns = iter(range(0, 10**12, 10**9)).__next__
        away = await world.client.get(location, headers=NAVIGATION)
        assert (away.status_code, "<h1>Your request</h1>" in away.text) == (202, True)
        world.to_engine.down = False
        await world.turn()
        final = await world.client.get(location, headers=NAVIGATION)
        assert (final.status_code, final.json()) == (200, "shipped")


@pytest.mark.parametrize(("build", "wsgi"), KINDS)
async def test_an_application_may_have_a_page_of_its_own(
    build: Callable[[Provider], Any], wsgi: bool
) -> None:
    shown: list[WaitingRun] = []

    def page(run: WaitingRun) -> str | stephttp.Response:
        shown.append(run)
        if len(shown) == 2:
            return stephttp.Response.of(299, "wait", {"content-type": "text/plain"})
        if len(shown) == 3:
            raise ZeroDivisionError
        return f"<p>{run.endpoint}: {run.steps[0].id}, {run.waiting}</p>"

    async with durable(build, wsgi=wsgi, result_path=RESULT, waiting_page=page) as world:
        first = await world.client.post("/orders")
        location = first.headers["location"]
        own = await held(world, location, 1, **NAVIGATION)
        assert (own.status_code, own.text) == (202, "<p>POST /orders: charge, ['pack']</p>")
        assert own.headers["content-type"] == "text/html; charset=utf-8"
        assert "content-security-policy" not in own.headers
        assert shown[0].run_id == first.headers["x-run-id"]
        assert shown[0].result_url.endswith("&turn=1")
        whole = await held(world, location, 1, **NAVIGATION)
        assert (whole.status_code, whole.text) == (299, "wait")
        assert whole.headers.get_list("content-type") == ["text/plain"]
        failed = await held(world, location, 1, **NAVIGATION)
        assert "<h1>POST /orders</h1>" in failed.text, "ours, where the other one fails"
        await world.turn()


def test_a_page_of_ones_own_needs_a_place() -> None:
    def page(run: WaitingRun) -> str:
        return ""

    async def later(run: WaitingRun) -> str:
        return ""

    with pytest.raises(stephttp.ConfigurationError, match="waiting_page needs result_path"):
        stephttp.setup("https://a.test", waiting_page=page)
    with pytest.raises(stephttp.ConfigurationError, match=r"waiting_page: .* plain function"):
        stephttp.setup("https://a.test", result_path=RESULT, waiting_page=later)  # type: ignore[arg-type]


def events(text: str) -> list[tuple[str, Any]]:
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
        if "event" in fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


@pytest.mark.parametrize(("build", "wsgi"), KINDS)
async def test_those_who_follow_get_events_of_the_engine(
    build: Callable[[Provider], Any], wsgi: bool
) -> None:
    async with durable(build, wsgi=wsgi, result_path=RESULT) as world:
        location = (await world.client.post("/orders")).headers["location"]
        await world.turn()
        response = await world.client.get(location, headers=EVENTS)
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-accel-buffering"] == "no"
        found = events(response.text)
        assert [(name, data["id"]) for name, data in found[:-1]] == [
            ("step", "charge"),
            ("step", "pack"),
        ]
        name, data = found[-1]
        assert (name, data["response"]["statusCode"]) == ("response", 200)
        assert data["response"]["body"].strip() == '"shipped"'
        world.to_engine.down = True
        world.provider.runtime.monotonic_ns = iter(range(0, 10**13, 10**10)).__next__
        away = await world.client.get(location, headers=EVENTS)
        assert (away.status_code, away.text) == (200, "retry: 1000\n\n"), "it comes again"


@pytest.mark.parametrize(("build", "wsgi"), KINDS)
async def test_a_server_without_events_gives_one(
    build: Callable[[Provider], Any], wsgi: bool
) -> None:
    async with durable(build, wsgi=wsgi, result_path=RESULT) as world:
        location = (await world.client.post("/orders")).headers["location"]

        async def plain(request: httpx2.Request) -> httpx2.Response:
            return httpx2.Response(
                201,
                headers={"x-inngest-server-kind": "dev", "content-type": "text/html"},
                stream=httpx2.ByteStream(b"<p>done</p>"),
            )

        await world.restart_app()
        world.to_engine.handle_async_request = plain  # type: ignore[method-assign]
        ((name, data),) = events((await world.client.get(location, headers=EVENTS)).text)
        assert (name, data["response"]["statusCode"]) == ("response", 201)
        assert data["response"]["body"] == "<p>done</p>"


FOREIGN = {**NAVIGATION, "sec-fetch-site": "cross-site"}


def logging_in(provider: Provider) -> Any:
    app = FastAPI()

    @app.post("/login")
    async def login(response: Response) -> str:
        await step.sleep("second factor", timedelta(hours=1))
        response.set_cookie("session", "secret")
        return "welcome"

    return provider.asgi(app)


def logging_in_with_threads(provider: Provider) -> Any:
    app = flask.Flask(__name__)

    @app.post("/login")
    def login() -> Any:
        sync_step.sleep("second factor", timedelta(hours=1))
        response = flask.jsonify("welcome")
        response.set_cookie("session", "secret")
        return response

    app.wsgi_app = provider.wsgi(app.wsgi_app)  # type: ignore[method-assign]
    return app


@pytest.mark.parametrize(("build", "wsgi"), [(logging_in, False), (logging_in_with_threads, True)])
async def test_a_link_on_a_page_of_another_site_logs_no_one_in(build: Any, wsgi: bool) -> None:
    async with durable(build, wsgi=wsgi, result_path=RESULT) as world:
        own = httpx2.AsyncClient(transport=world.to_app.inner(), base_url=APP)
        link = (
            await own.post("/login", headers={**NAVIGATION, "sec-fetch-site": "same-origin"})
        ).headers
        assert "set-cookie" not in link
        location = link["location"]

        # Someone who waits on the page is sent on by it, which is no request of the other site.
        sent_on = await world.client.get(location, headers=FOREIGN)
        assert (sent_on.status_code, sent_on.content) == (303, b"")
        marked = str(sent_on.url.join(sent_on.headers["location"]))
        page = await held(world, marked, 1, **FOREIGN)
        assert page.status_code == 202
        assert "cookies=no" in page.text, "the page comes again as it was opened"
        await world.turn()
        for headers in (FOREIGN, {**NAVIGATION, "sec-fetch-site": "same-origin"}):
            answer = await world.client.get(marked, headers=headers)
            assert (answer.status_code, answer.json()) == (200, "welcome")
            assert "set-cookie" not in answer.headers

        # The caller itself, one who has typed the address, scripts and other clients.
        for site in ("same-origin", "same-site", "none"):
            answer = await world.client.get(
                location, headers={**NAVIGATION, "sec-fetch-site": site}
            )
            assert "session=secret" in answer.headers["set-cookie"], site
        script = {"sec-fetch-mode": "cors", "sec-fetch-site": "cross-site"}
        for headers in (script, {}):
            answer = await world.client.get(location, headers=headers)
            assert "session=secret" in answer.headers["set-cookie"]
        await own.aclose()


@pytest.mark.parametrize(("build", "wsgi"), [(logging_in, False), (logging_in_with_threads, True)])
async def test_a_browser_that_an_identity_provider_sends_here_is_logged_in(
    build: Any, wsgi: bool
) -> None:
    async with durable(build, wsgi=wsgi, result_path=RESULT) as world:
        first = await world.client.post("/login", headers=FOREIGN)
        assert f"Path={RESULT}; Max-Age=3600; HttpOnly; SameSite=Lax" in first.headers["set-cookie"]
        await world.turn()
        location = first.headers["location"]
        answer = await world.client.get(location, headers=FOREIGN)
        assert "session=secret" in answer.headers["set-cookie"]
        # In another browser, the same link does nothing.
        world.client.cookies.clear()
        assert (await world.client.get(location, headers=FOREIGN)).status_code == 303
