"""Failures that are final: the exception itself in that call, and no further call for it."""

import types
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import django
import django.urls
import falcon
import flask
import httpx2
import litestar
import pytest
import quart
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from fastapi import FastAPI, HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from werkzeug.exceptions import Conflict, ServiceUnavailable

import stephttp
from stephttp import NonRetriableError, StepError, step
from stephttp._run.final_failures import FinalFailures
from stephttp.provider import Provider
from stephttp.sync import step as blocking
from tests.durable import durable

FAILURE, OTHER = StepError("closed"), ValueError("other")
CIRCLE = ValueError("circle")
CIRCLE.__cause__ = ValueError("back")
CIRCLE.__cause__.__cause__ = CIRCLE
NAP = timedelta(minutes=1)
Build = Callable[[Provider], Any]


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def while_handling(error: Exception, handled: Exception) -> Exception:
    error.__context__ = handled
    return error


@pytest.mark.parametrize(
    ("error", "final"),
    [
        (FAILURE, True),
        (StepError("closed"), False),
        (OTHER, False),
        (caused(RuntimeError("a"), caused(RuntimeError("b"), FAILURE)), True),
        (while_handling(RuntimeError("a"), FAILURE), False),
        (ExceptionGroup("g", [OTHER, FAILURE]), True),
        (ExceptionGroup("g", [OTHER, ExceptionGroup("h", [FAILURE])]), True),
        (ExceptionGroup("g", [OTHER, caused(RuntimeError("a"), FAILURE)]), True),
        (caused(RuntimeError("a"), ExceptionGroup("g", [FAILURE])), True),
        (ExceptionGroup("g", [OTHER]), False),
        (CIRCLE, False),
    ],
)
def test_which_exceptions_come_of_a_final_failure(error: Exception, final: bool) -> None:
    failures = FinalFailures()
    failures.note(FAILURE)
    assert failures.explain(error) is final


def test_without_an_exception_the_last_step_counts() -> None:
    failures = FinalFailures()
    assert not failures.explain(None)
    try:
        raise StepError("closed")
    except StepError as error:
        failures.note(error)
    assert failures.explain(None)
    failures.last = False
    assert not failures.explain(None)


class CardDeclined(Exception):
    pass


class Shop:
    """The same endpoints under ASGI and WSGI; `calls` has what ran."""

    def __init__(self, *, propagates: bool = False) -> None:
        self.calls: list[str] = []
        self.propagates = propagates
        """Whether Flask raises what its handlers raise, instead of answering 500."""

    def note(self, name: str, error: Exception | None = None) -> None:
        self.calls.append(name)
        if error is not None:
            raise error

    def leave(self, how: str, error: StepError) -> None:
        if how == "as it is":
            raise error
        if how == "as a cause":
            raise RuntimeError("no order") from error
        raise ExceptionGroup("several", [ValueError("one"), ExceptionGroup("more", [error])])

    def asgi(self, provider: Provider) -> Any:
        app = FastAPI()

        @app.get("/pay")
        @provider.endpoint(retries=1)
        async def pay() -> None:
            self.note("handler")
            await step.run("pay", self.note, "pay", HTTPException(409, "no money"))

        @app.get("/kind")
        @provider.endpoint(retries=1)
        async def kind() -> str:
            try:
                await step.run("pay", self.note, "pay", CardDeclined("no funds"))
            except CardDeclined:
                return "declined"
            return "paid"

        @app.get("/leaves")
        @provider.endpoint(retries=3)
        async def leaves(how: str) -> None:
            self.note("handler")
            try:
                await step.run("pay", self.note, "pay", NonRetriableError("closed"))
            except NonRetriableError:
                await step.sleep("nap", NAP)
            except StepError as error:
                self.leave(how, error)

        @app.get("/refuses")
        @provider.endpoint(retries=3)
        async def refuses() -> None:
            self.note("handler")
            await step.sleep("nap", NAP)
            await step.options(retries=0).run("pay", self.note, "pay", HTTPException(503, "full"))

        @app.get("/cleans")
        @provider.endpoint(retries=3)
        async def cleans() -> None:
            self.note("handler")
            try:
                await step.run("pay", self.note, "pay", NonRetriableError("closed"))
            finally:
                await step.sleep("nap", NAP)

        @app.get("/recovers")
        @provider.endpoint(retries=3)
        async def recovers() -> None:
            try:
                await step.run("pay", self.note, "pay", NonRetriableError("closed"))
            except (NonRetriableError, StepError):
                await step.sleep("nap", NAP)
            self.note("handler", OSError("the disk is full"))

        return provider.asgi(app)

    def wsgi(self, provider: Provider) -> Any:
        app = flask.Flask("shop")

        @app.get("/pay")
        @provider.endpoint(retries=1)
        def pay() -> str:
            self.note("handler")
            blocking.run("pay", self.note, "pay", Conflict("no money"))
            return ""

        @app.get("/kind")
        @provider.endpoint(retries=1)
        def kind() -> str:
            try:
                blocking.run("pay", self.note, "pay", CardDeclined("no funds"))
            except CardDeclined:
                return "declined"
            return "paid"

        @app.get("/leaves")
        @provider.endpoint(retries=3)
        def leaves() -> str:
            self.note("handler")
            try:
                blocking.run("pay", self.note, "pay", NonRetriableError("closed"))
            except NonRetriableError:
                blocking.sleep("nap", NAP)
            except StepError as error:
                self.leave(flask.request.args["how"], error)
            return ""

        @app.get("/refuses")
        @provider.endpoint(retries=3)
        def refuses() -> str:
            self.note("handler")
            blocking.sleep("nap", NAP)
            blocking.options(retries=0).run("pay", self.note, "pay", ServiceUnavailable("full"))
            return ""

        @app.get("/cleans")
        @provider.endpoint(retries=3)
        def cleans() -> str:
            self.note("handler")
            try:
                blocking.run("pay", self.note, "pay", NonRetriableError("closed"))
            finally:
                blocking.sleep("nap", NAP)
            return ""

        @app.get("/recovers")
        @provider.endpoint(retries=3)
        def recovers() -> str:
            try:
                blocking.run("pay", self.note, "pay", NonRetriableError("closed"))
            except (NonRetriableError, StepError):
                blocking.sleep("nap", NAP)
            self.note("handler", OSError("the disk is full"))
            return ""

        app.config["PROPAGATE_EXCEPTIONS"] = self.propagates
        return provider.wsgi(app)


async def answer_to(shop: Shop, wsgi: bool, path: str) -> tuple[httpx2.Response, str]:
    """What the caller of an endpoint gets in the end, and how the run ended."""
    async with durable(shop.wsgi if wsgi else shop.asgi, wsgi=wsgi) as world:
        first = await world.client.get(path)
        return await world.follow(first), await world.status(first)


@pytest.mark.parametrize("wsgi", [False, True], ids=["asgi", "wsgi"])
async def test_the_last_failure_of_a_step_with_retries_is_the_exception_itself(wsgi: bool) -> None:
    shop = Shop()
    answer, _ = await answer_to(shop, wsgi, "/pay")
    assert (answer.status_code, "no money" in answer.text) == (409, True)
    assert shop.calls == ["handler", "pay"] * 2


@pytest.mark.parametrize("wsgi", [False, True], ids=["asgi", "wsgi"])
async def test_the_handler_can_catch_the_last_failure_by_its_kind(wsgi: bool) -> None:
    answer, status = await answer_to(Shop(), wsgi, "/kind")
    assert (answer.text.strip('"'), status) == ("declined", "Completed")


@pytest.mark.parametrize("how", ["as it is", "as a cause", "in a group"])
@pytest.mark.parametrize("kind", ["asgi", "wsgi", "wsgi, raised"])
async def test_a_remembered_failure_that_leaves_the_handler_ends_the_run(
    kind: str, how: str
) -> None:
    shop = Shop(propagates=kind == "wsgi, raised")
    answer, status = await answer_to(shop, kind != "asgi", f"/leaves?how={how}")
    assert (answer.status_code, status) == (500, "Failed")
    assert shop.calls == ["handler", "pay", "handler"]


@pytest.mark.parametrize("wsgi", [False, True], ids=["asgi", "wsgi"])
async def test_a_last_failure_that_is_an_answer_is_the_runs(wsgi: bool) -> None:
    shop = Shop()
    answer, status = await answer_to(shop, wsgi, "/refuses")
    assert (answer.status_code, "full" in answer.text, status) == (503, True, "Failed")
    assert shop.calls == ["handler", "handler", "pay"]


@pytest.mark.parametrize("kind", ["asgi", "wsgi", "wsgi, raised"])
async def test_a_handler_that_fails_after_a_failure_that_it_handled_is_retried(kind: str) -> None:
    shop = Shop(propagates=kind == "wsgi, raised")
    _, status = await answer_to(shop, kind != "asgi", "/recovers")
    assert (status, shop.calls) == ("Failed", ["pay", *["handler"] * 4])


@pytest.mark.parametrize("kind", ["asgi", "wsgi", "wsgi, raised"])
async def test_a_failure_that_passes_a_finally_block_with_a_step_ends_the_run(kind: str) -> None:
    shop = Shop(propagates=kind == "wsgi, raised")
    answer, status = await answer_to(shop, kind != "asgi", "/cleans")
    assert (answer.status_code, status) == (500, "Failed")
    assert shop.calls == ["handler", "pay", "handler"]


WSGI = ("flask", "falcon", "django")


class Frameworks:
    """One handler that is not decorated, in frameworks that make an answer of every exception."""

    def __init__(self) -> None:
        self.calls = 0

    def refuse(self) -> None:
        raise NonRetriableError("closed")

    async def on_loop(self) -> str:
        self.calls += 1
        stephttp.configure(retries=3)
        try:
            await step.run("pay", self.refuse)
        finally:
            await step.sleep("nap", NAP)
        return ""

    def in_thread(self) -> str:
        self.calls += 1
        stephttp.configure(retries=3)
        try:
            blocking.run("pay", self.refuse)
        finally:
            blocking.sleep("nap", NAP)
        return ""

    def flask(self, provider: Provider) -> Any:
        app = flask.Flask("app")
        app.get("/")(self.in_thread)
        return provider.wsgi(app)

    def falcon(self, provider: Provider) -> Any:
        app, in_thread = falcon.App(), self.in_thread

        class Resource:
            def on_get(self, _: falcon.Request, response: falcon.Response) -> None:
                response.text = in_thread()

        app.add_route("/", Resource())
        return provider.wsgi(app)

    def quart(self, provider: Provider) -> Any:
        app = quart.Quart("app")
        app.get("/")(self.on_loop)
        return provider.asgi(app)

    def starlette(self, provider: Provider) -> Any:
        """The application makes an answer itself, of the exception by its type."""

        async def answer(request: Request, error: Exception) -> Response:
            return PlainTextResponse("sorry", 500)

        app = FastAPI(exception_handlers={StepError: answer})
        app.get("/")(self.on_loop)
        return provider.asgi(app)

    def middleware(self, provider: Provider) -> Any:
        """A middleware of the user's makes it."""

        async def dispatch(request: Request, call_next: RequestResponseEndpoint) -> Response:
            try:
                return await call_next(request)
            except StepError:
                return PlainTextResponse("sorry", 500)

        app = FastAPI(middleware=[Middleware(BaseHTTPMiddleware, dispatch=dispatch)])
        app.get("/")(self.on_loop)
        return provider.asgi(app)

    def litestar(self, provider: Provider) -> Any:
        on_loop = self.on_loop

        @litestar.get("/")
        async def handler() -> str:
            return await on_loop()

        return provider.asgi(litestar.Litestar([handler], logging_config=None))

    def django(self, provider: Provider) -> Any:
        self._configure_django()
        return provider.wsgi(get_wsgi_application())

    def django_asgi(self, provider: Provider) -> Any:
        self._configure_django()
        return provider.asgi(get_asgi_application())

    def _configure_django(self) -> None:
        in_thread = self.in_thread
        urls: Any = types.ModuleType("urls")
        urls.urlpatterns = [django.urls.path("", lambda _: HttpResponse(in_thread()))]
        if not settings.configured:
            settings.configure(SECRET_KEY="x", ALLOWED_HOSTS=["*"], ROOT_URLCONF=urls)
            django.setup(set_prefix=False)
        settings.ROOT_URLCONF = urls


# Django leaves the file of the request's body to the garbage collector, if its view was ended.
@pytest.mark.filterwarnings("ignore:.*SpooledTemporaryFile")
@pytest.mark.parametrize(
    "name",
    [
        *("flask", "falcon", "django", "django_asgi", "quart", "litestar"),
        *("starlette", "middleware"),
    ],
)
async def test_it_does_so_in_frameworks_that_hide_exceptions(name: str) -> None:
    frameworks = Frameworks()
    async with durable(getattr(frameworks, name), wsgi=name in WSGI) as world:
        first = await world.client.get("/")
        answer = await world.follow(first)
        assert (answer.status_code, await world.status(first)) == (500, "Failed")
        assert frameworks.calls == 2
