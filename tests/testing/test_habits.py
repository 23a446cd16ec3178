"""Clients with what applications do beside plain handlers: redirects, cookies, tokens, streams,
several providers, webhooks, options of the SDK."""

from __future__ import annotations

import gc
import threading
import warnings
from datetime import timedelta
from typing import Any

import pytest
from fastapi import BackgroundTasks, FastAPI, Request, Response, UploadFile
from fastapi.responses import RedirectResponse
from flask import Flask
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Mount

import stephttp
from stephttp import Checkpointing, Middleware, step, stream
from stephttp.errors import UsageError
from stephttp.sync import step as blocking
from stephttp.testing import AsyncDurableClient, DurableClient, Stuck
from stephttp.testing.loop_thread import LoopThread

HOUR = timedelta(hours=1)


def _app(**options: Any) -> tuple[FastAPI, stephttp.Provider]:
    provider = stephttp.setup("https://shop.example.com", **options)
    app = FastAPI()
    app.add_middleware(stephttp.ASGIMiddleware, provider=provider)

    @app.post("/nap")
    async def nap(request: Request) -> str:
        await step.run("first", lambda: 1)
        await step.sleep("nap", HOUR)
        return f"slept {request.headers.get('authorization', '')}"

    return app, provider


def test_cookies_are_kept_and_redirects_of_the_application_followed() -> None:
    app, _ = _app()

    @app.post("/login")
    async def login() -> Response:
        answer = RedirectResponse("/me", 303)
        answer.set_cookie("session", "ann")
        return answer

    @app.get("/me")
    async def me(request: Request) -> str:
        return request.cookies.get("session", "nobody")

    with DurableClient(app) as client:
        assert client.get("/me").json() == "nobody"
        assert client.post("/login", follow_redirects=False).headers["location"] == "/me"
        assert client.post("/login").json() == "ann"
        assert client.cookies["session"] == "ann"
        assert client.get("/me").json() == "ann"
    with DurableClient(app, cookies={"session": "bob"}, follow_redirects=False) as client:
        assert client.get("/me").json() == "bob"
        assert client.post("/nap").status_code == 303


@pytest.mark.parametrize(
    "answer", [stephttp.AsyncResponseToken(), stephttp.AsyncResponseCustom(
        lambda request: stephttp.Response(202, [(b"x-own", b"yes")], b'{"accepted": true}')
    )], ids=["token", "custom"],
)  # fmt: skip
def test_callers_of_other_answers_get_those(answer: Any) -> None:
    app, _ = _app(default_async_response=answer)
    with DurableClient(app) as client:
        call = client.post("/nap")
        assert not call.run.ended
        assert "token" in call.json() or call.json() == {"accepted": True}
        assert not call.run.ended
        assert call.result.json() == "slept "
        assert call.run.completed


def test_results_on_the_own_origin() -> None:
    app, _ = _app(result_path="/_result")
    with DurableClient(app, base_url="https://shop.test") as client:
        call = client.post("/nap")
        assert call.accepted.headers["location"].startswith("/_result?")
        assert call.json() == "slept "
        assert str(call.url).startswith("https://shop.test/_result")


def test_idempotency_keys() -> None:
    app, _ = _app(idempotency_header="idempotency-key")
    with DurableClient(app) as client:
        key = {"idempotency-key": "k1"}
        first, second = client.post("/nap", headers=key), client.post("/nap", headers=key)
        assert (first.json(), second.json()) == ("slept ", "slept ")
        assert len(client.runs) == 1


@pytest.mark.parametrize("mode", [Checkpointing.safe, Checkpointing.blended])
def test_runs_that_are_saved_at_once(mode: Checkpointing) -> None:
    app, _ = _app(checkpointing=mode)
    with DurableClient(app) as client:
        call = client.post("/nap")
        assert call.json() == "slept "
        assert call.run.step("first").attempts == 1


def test_middleware_of_users_and_stubs() -> None:
    seen: list[str] = []

    class Audit(Middleware):
        def before_step(self, info: Any) -> None:
            seen.append(info.id)

    app, _ = _app(middleware=[Audit])

    @app.post("/total")
    async def total() -> int:
        return await step.invoke("total", function="total", output_type=int)

    with DurableClient(app) as client:
        stub = client.stub("first", 2)
        assert client.post("/nap").json() == "slept "
        assert (stub.call_count, seen) == (1, ["first", "nap"])
        client.stub("total", sequence=[7])
        assert client.post("/total").json() == 7


def test_several_providers_in_one_application() -> None:
    shop, first = _app()
    admin, second = _app(signing_key="cd" * 16)
    whole = Starlette(routes=[Mount("/admin", app=admin), Mount("/shop", app=shop)])
    with DurableClient(whole) as client:
        assert client.post("/admin/nap").json() == "slept "
        assert client.post("/shop/nap").json() == "slept "
        assert len(client.runs) == 2
        assert first.settings.base_url == second.settings.base_url
    assert first.settings.base_url != "http://engine.stephttp.test"


def test_an_application_that_hides_its_middleware() -> None:
    app, provider = _app()

    class Hidden:
        __slots__ = ()

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await _hidden["app"](scope, receive, send)

    _hidden["app"] = app
    with pytest.raises(stephttp.ConfigurationError, match="name its provider"):
        DurableClient(Hidden())
    with DurableClient(Hidden(), provider=provider) as client:
        assert client.post("/nap").json() == "slept "


_hidden: dict[str, Any] = {}


def test_wrappers_are_seen_through() -> None:
    app, _ = _app()

    def outer(inner: Any) -> Any:
        async def wrapped(scope: Any, receive: Any, send: Any) -> None:
            await inner(scope, receive, send)

        return wrapped

    async def header(request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["x-wrapped"] = "yes"
        return response

    app.add_middleware(BaseHTTPMiddleware, dispatch=header)
    with DurableClient(outer(app)) as client:
        call = client.post("/nap", headers={"authorization": "ann"})
        assert call.accepted.headers["x-wrapped"] == "yes"
        assert call.json() == "slept ann"


def test_a_webhook_sends_events_and_asks_for_results() -> None:
    app, provider = _app()

    @app.post("/waits")
    async def waits() -> str:
        event = await step.wait_for_event("e", event="paid", timeout=timedelta(days=3))
        return "timeout" if event is None else str(event.data["by"])

    @app.post("/webhook")
    async def webhook(by: str, background: BackgroundTasks) -> None:
        background.add_task(provider.send_event, "paid", {"by": by})

    @app.get("/result/{run_id}")
    async def result(run_id: str) -> str:
        return str((await provider.result(run_id)).json())

    with DurableClient(app) as client:
        call = client.post("/waits")
        call.until_waiting()
        client.post("/webhook", params={"by": "ann"})
        assert call.run.completed
        assert [event.data for event in client.events] == [{"by": "ann"}]
        # A request that waits for another run: its time passes meanwhile.
        other = client.post("/waits")
        assert client.get(f"/result/{other.run.id}").json() == "timeout"


def test_a_script_asks_for_the_result() -> None:
    app, provider = _app()

    @app.post("/chain")
    async def chain(after: str) -> str:
        await step.sleep("nap", HOUR)
        # In a call of the engine, for a run whose handler the engine has to call meanwhile.
        return str((await provider.result(after)).json())

    with DurableClient(app) as client:
        first = client.post("/nap")
        assert client.post("/chain", params={"after": first.run.id}).json() == "slept "
        call = client.post("/nap")
        with pytest.raises(stephttp.ResultTimeoutError):
            provider.result_sync(call.run.id, timeout=timedelta(seconds=20))
        assert not call.run.ended
        assert provider.result_sync(call.run.id).json() == "slept "
        assert provider.get_run_sync(call.run.id).status == "completed"


def test_who_follows_gets_what_is_pushed() -> None:
    app, _ = _app()

    @app.post("/words")
    async def words() -> str:
        await step.run("say", say)
        await step.sleep("nap", HOUR)
        return "end"

    async def say() -> None:
        stream.push("hello")

    with DurableClient(app) as client:
        call = client.post("/words", headers={"accept": "text/event-stream"})
        assert not call.run.ended
        assert "hello" in call.text
        assert call.run.completed


def test_files_are_uploaded() -> None:
    app, _ = _app()

    @app.post("/files")
    async def files(file: UploadFile) -> str:
        content = (await file.read()).decode()
        await step.sleep("nap", HOUR)
        return content

    with DurableClient(app) as client:
        assert client.post("/files", files={"file": ("a.txt", b"hello")}).json() == "hello"


def test_exceptions_and_statuses() -> None:
    app, _ = _app()

    @app.get("/late-bug")
    async def late_bug() -> None:
        await step.sleep("nap", HOUR)
        raise ZeroDivisionError("a bug")

    @app.get("/bug")
    async def bug() -> None:
        raise ZeroDivisionError("a bug")

    with DurableClient(app, raise_server_exceptions=False) as client:
        assert client.get("/bug").status_code == 500
        call = client.get("/late-bug")
        assert (call.status_code, call.is_success) == (500, False)
        assert str(call.run.error) == "ZeroDivisionError: a bug"
        with pytest.raises(Exception, match="500"):
            call.raise_for_status()
        cancelled = client.post("/nap")
        cancelled.cancel()
        assert cancelled.response.status_code >= 400


def test_a_run_that_never_ends_is_named() -> None:
    app, _ = _app()

    @app.get("/ticks")
    async def ticks() -> None:
        for _ in range(5):
            await step.sleep("tick", HOUR)

    with DurableClient(app) as client:
        call = client.get("/ticks")
        run = call.until_step("tick")
        assert run.step("tick").state == "waiting"
        with pytest.raises(Stuck, match="the run ended before it waited in step 'tock'"):
            call.until_waiting("tock")
        assert len(call.run.steps) == 5
        assert call.run.step("tick", 4).index == 4
        with pytest.raises(ValueError, match="time runs forward"):
            client.advance(-HOUR)


def test_a_handler_that_waits_for_the_test_is_named() -> None:
    app, _ = _app()
    free = threading.Event()

    @app.get("/blocks")
    def blocks() -> None:
        free.wait(30)

    with DurableClient(app, patience=0.2) as client:
        with pytest.raises(stephttp.UsageError, match=r"has been at work for 0\.2 s"):
            client.get("/blocks")
        free.set()


async def test_many_requests_at_once() -> None:
    import asyncio

    app, _ = _app()
    async with AsyncDurableClient(app) as client:
        answers = await asyncio.gather(*(client.post("/nap") for _ in range(5)))
        assert [answer.json() for answer in answers] == ["slept "] * 5
        assert len(await client.runs()) == 5


def test_threads_of_parallel_branches_under_wsgi() -> None:
    provider = stephttp.setup("https://shop.example.com", checkpointing=Checkpointing.safe)
    app = Flask("shop")

    @app.get("/")
    def both() -> list[Any]:
        return list(
            blocking.parallel(
                (lambda: blocking.run("a", lambda: 1), lambda: blocking.sleep("nap", HOUR))
            )
        )

    before = set(threading.enumerate())
    with DurableClient(provider.wsgi(app)) as client:
        assert client.get("/").json() == [1, None]
    left = set(threading.enumerate()) - before
    assert not {thread.name for thread in left if "branch" not in thread.name}


def test_nothing_is_left_to_the_garbage_collector() -> None:
    app, _ = _app()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            with DurableClient(app) as client:
                client.post("/nap")  # still waits at the end
        gc.collect()


def test_patience_is_for_a_whole_call_and_not_for_each_of_its_parts() -> None:
    async def many() -> None:
        for _ in range(20_000):
            await loop.in_test(lambda: None)

    loop = LoopThread(0.05)
    try:
        with pytest.raises(UsageError, match="has been at work for"):
            loop.call(many())
    finally:
        loop.close()
