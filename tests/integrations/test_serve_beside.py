"""Functions of `serve` (PyPI `inngest`) beside durable endpoints, in one application.

Their server is an Inngest server. The endpoints have the stephttp engine, or the same server
(docs/other-sdks.md).
"""

from __future__ import annotations

import warnings
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, nullcontext
from datetime import timedelta
from types import ModuleType
from typing import Any

import httpx2
import pytest
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from fastapi import FastAPI
from flask import Flask
from ulid import ULID

from stephttp import Provider, step
from stephttp.sync import step as blocking
from tests.django_settings import configured
from tests.durable import APP, KEY, durable
from tests.realserver import RealServer
from tests.serve_calls import ACCOUNT, FunctionCaller

with warnings.catch_warnings():
    # It defines its models in a way that pydantic has deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    import inngest
    import inngest.django
    import inngest.fast_api
    import inngest.flask

NAP = timedelta(minutes=1)
FRAMEWORKS = ["fastapi", "flask", "django", "django-wsgi"]
IS_WSGI = {"flask", "django-wsgi"}
done: list[str] = []


def work(name: str) -> str:
    done.append(name)
    return name


def inngest_client(key: str) -> inngest.Inngest:
    return inngest.Inngest(
        app_id="shop", is_production=bool(key), signing_key=key or None, event_key="none"
    )


def functions(client: inngest.Inngest, *, on_loop: bool) -> list[inngest.Function[Any]]:
    """A function with steps and a wait, as its SDK wants it."""
    trigger = inngest.TriggerEvent(event="shop/packed")
    if on_loop:

        @client.create_function(fn_id="mail", trigger=trigger)
        async def mail(ctx: inngest.Context) -> str:
            to = str(ctx.event.data["to"])
            first = await ctx.step.run("first", lambda: _later(f"first {to}"))
            await ctx.step.sleep("nap", NAP)
            return first + await ctx.step.run("second", lambda: _later(f"second {to}"))

        return [mail]

    @client.create_function(fn_id="mail", trigger=trigger)
    def mail_now(ctx: inngest.ContextSync) -> str:
        to = str(ctx.event.data["to"])
        first = ctx.step.run("first", lambda: work(f"first {to}"))
        ctx.step.sleep("nap", NAP)
        return first + ctx.step.run("second", lambda: work(f"second {to}"))

    return [mail_now]


async def _later(name: str) -> str:
    return work(name)


async def hello() -> Any:
    greeting = await step.run("greet", lambda: work("greet"))
    await step.sleep("nap", NAP)
    return greeting + await step.run("again", lambda: work("again"))


def hello_now() -> Any:
    greeting = blocking.run("greet", lambda: work("greet"))
    blocking.sleep("nap", NAP)
    return greeting + blocking.run("again", lambda: work("again"))


def application(framework: str, key: str) -> Any:
    """The application, not yet durable: an endpoint at /hello, functions at /api/inngest."""
    client = inngest_client(key)
    if framework == "fastapi":
        app = FastAPI()
        app.get("/hello")(hello)
        app.post("/hello")(hello)
        inngest.fast_api.serve(app, client, functions(client, on_loop=True))
        return app
    if framework == "flask":
        flask = Flask("app")
        flask.config["PROPAGATE_EXCEPTIONS"] = True
        flask.route("/hello", methods=["GET", "POST"])(hello_now)
        inngest.flask.serve(flask, client, functions(client, on_loop=False))
        return flask
    on_loop = framework == "django"

    async def view(request: HttpRequest) -> JsonResponse:
        return JsonResponse(await hello(), safe=False)

    def view_now(request: HttpRequest) -> JsonResponse:
        return JsonResponse(hello_now(), safe=False)

    urls.urlpatterns = [
        path("hello", view if on_loop else view_now),
        inngest.django.serve(client, functions(client, on_loop=on_loop)),
    ]
    return get_asgi_application() if on_loop else get_wsgi_application()


urls: Any = ModuleType("urls")


class Side:
    """An application, who calls its functions, and what its endpoints have done."""

    def __init__(self, client: httpx2.AsyncClient, caller: FunctionCaller) -> None:
        self.client = client
        self.caller = caller
        self.finish: Any = None
        self.runs: Any = None


@asynccontextmanager
async def beside(framework: str, server: str, key: str) -> AsyncGenerator[Side]:
    """The application with its endpoints on the engine, or on the Inngest server."""
    done.clear()
    wsgi = framework in IS_WSGI
    django = configured(
        SECRET_KEY="no secret",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=urls,
        INSTALLED_APPS=[],
        MIDDLEWARE=[],
    )

    def build(provider: Provider) -> Any:
        app = application(framework, key)
        return provider.wsgi(app) if wsgi else provider.asgi(app)

    with django if framework.startswith("django") else nullcontext():
        if server == "inngest":
            real = RealServer(key=key, wsgi=wsgi)
            provider = real.provider()
            real.app = build(provider)
            side = Side(real.client(), FunctionCaller(real.to_app(), APP, key))
            side.finish, side.runs = real.finish, lambda: len(real.runs)
            yield side
            await provider.aclose()
        else:
            async with durable(build, key=key, wsgi=wsgi) as world:
                side = Side(world.client, FunctionCaller(world.to_app.inner(), APP, key))
                side.finish, side.runs = world.follow, lambda: len(world.to_engine.requests)
                yield side
        await side.caller.client.aclose()


@pytest.mark.parametrize(
    ("server", "key"),
    [("engine", ""), ("engine", KEY), ("inngest", KEY)],
    ids=["development", "engine", "inngest"],
)
@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_functions_and_endpoints_run_beside_each_other(
    framework: str, server: str, key: str
) -> None:
    async with beside(framework, server, key) as side:
        if key:  # in development the SDK registers itself, at its server's own address
            listed = await side.caller.sync()
            assert listed.status_code == 200, listed.text
            assert [one["id"] for one in listed.json()["functions"]] == ["shop-mail"]
            # The server reads the first of them.
            assert listed.headers.get_list("x-inngest-sdk")[0].startswith("inngest-py:")

        first = await side.client.get("/hello")
        assert first.status_code == 303
        known = side.runs()
        assert await side.caller.run("shop-mail", {"to": "Ada"}) == "first Adasecond Ada"
        assert side.runs() == known, "no run of an endpoint"
        final = await side.finish(first)
        assert (final.status_code, final.text.strip('"')) == (200, "greetagain")
        assert done == ["greet", "first Ada", "second Ada", "again"]


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_the_answer_of_a_function_is_the_other_sdks_alone(framework: str) -> None:
    async with beside(framework, "engine", "") as side:
        answer = await side.caller.call("shop-mail", str(ULID()), {"to": "Ada"}, {})
    assert answer.status_code == 206
    (sdk,) = answer.headers.get_list("x-inngest-sdk")
    assert sdk.startswith("inngest-py:")
    assert "x-run-id" not in answer.headers
    (op,) = answer.json()
    assert (op["op"], op["data"]) == ("StepRun", "first Ada")


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_a_forged_mixture_starts_no_run_and_needs_a_signature_to_continue_one(
    framework: str,
) -> None:
    """An outsider knows a run that waits, and calls its endpoint with headers of both kinds."""
    async with beside(framework, "engine", KEY) as side:
        first = await side.client.get("/hello")
        known, run_id = side.runs(), first.headers["x-run-id"]
        re_entry = {
            "x-run-id": run_id,
            "x-inngest-signature": "t=1&s=00",
            "x-inngest-generation-id": "1",
            "x-inngest-job-id": "job",
            "x-inngest-req-version": "2",
        }
        of_a_function = {"account-id": ACCOUNT, "x-inngest-step-id": "step"}
        for extra in (
            {},
            {"account-id": ACCOUNT},
            {"x-inngest-step-id": "step"},
            {"account-id": "", "x-inngest-step-id": "step"},
        ):
            url = "/hello?fnId=shop-mail&stepId=step"
            refused = await side.client.get(url, headers=re_entry | extra)
            assert refused.status_code == 401, (extra, refused.text)
        for extra in (of_a_function, {"x-inngest-server-kind": "cloud"}):
            answer = await side.caller.client.get("/hello", headers=re_entry | extra)
            assert answer.status_code == 500, "no step without a run"
            if framework == "flask":
                assert "OutsideRunError" in answer.text
                assert "`ctx.step`" in answer.text
        assert side.runs() == known
        assert done == ["greet"]
        assert (await side.finish(first)).text.strip('"') == "greetagain"
        assert done == ["greet", "again"]


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_query_method_and_body_of_a_caller_make_no_call_of_a_function(
    framework: str,
) -> None:
    """A re-entry has them from the original request: it must continue the run."""
    async with beside(framework, "inngest", KEY) as side:
        first = await side.client.post(
            "/hello?fnId=shop-mail&stepId=step",
            json={"ctx": {"run_id": str(ULID())}, "event": {}, "steps": {}},
            headers={"account-id": ACCOUNT, "x-inngest-step-id": "step"},
        )
        assert first.status_code == 303, first.text
        assert (await side.finish(first)).text.strip('"') == "greetagain"
        assert (done, side.runs()) == (["greet", "again"], 1)


async def test_a_step_in_the_body_of_a_forged_call_does_not_run_either() -> None:
    """Under WSGI a body is made after the application has returned."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("content-type", "text/plain")])
        yield b"begun "
        yield blocking.run("greet", lambda: work("greet")).encode()

    done.clear()
    async with durable(lambda provider: provider.wsgi(app), wsgi=True, key=KEY) as world:
        caller = FunctionCaller(world.to_app.inner(), APP, KEY)
        answer = await caller.call("shop-mail", str(ULID()), {}, {}, path="/")
        assert (answer.status_code, done) == (500, [])
        assert "OutsideRunError" in answer.text
        assert (await world.client.get("/")).text == "begun greet"
        await caller.client.aclose()
