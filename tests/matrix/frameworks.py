"""The six frameworks of the matrix: applications with a program at each path."""

from __future__ import annotations

import inspect
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Annotated, Any

import flask
from asgiref.sync import markcoroutinefunction
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from stephttp.integrations._step_rows import run_async, run_blocking
from stephttp.provider import Provider
from tests.django_settings import configured
from tests.matrix.uses import (
    Counts,
    OfDjango,
    OfDjangoThreads,
    OfFastAPI,
    OfFastAPIThreads,
    OfFlask,
    OfStarlette,
    Program,
    Refused,
    form_of,
)

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"]


def refusals(get_response: Any) -> Any:
    """Middleware of Django that answers for `Refused`."""

    class Middleware:
        sync_capable = async_capable = True

        def __call__(self, request: HttpRequest) -> Any:
            return get_response(request)

        def process_exception(self, _: HttpRequest, error: Exception) -> HttpResponse | None:
            if not isinstance(error, Refused):
                return None
            status, text = error.args
            return JsonResponse({"detail": text}, status=status, headers={"x-own": "yes"})

    made = Middleware()
    if inspect.iscoroutinefunction(get_response):
        markcoroutinefunction(made)
    return made


async def body_of(request: Request) -> bytes:
    """The body of a request of FastAPI."""
    return await request.body()


Body = Annotated[bytes, Depends(body_of)]
Form = Annotated[Any, Depends(form_of)]


class Framework:
    """An application with a program at each path.

    Args:
        programs: by their paths.
    """

    wsgi = False
    on_loop = True
    """Whether its handlers are."""

    def __init__(self, programs: Mapping[str, Program]) -> None:
        self.counts = Counts()
        self.programs = programs

    @contextmanager
    def there(self) -> Generator[None]:
        """Have what the framework needs around it."""
        self.app = self.make()
        yield

    def make(self) -> Any:
        """Make the application, which is not durable yet."""
        raise NotImplementedError

    def wrapped(self, provider: Provider) -> Any:
        """Make it durable."""
        return provider.wsgi(self.app) if self.wsgi else provider.asgi(self.app)


class FastAPIAsync(Framework):
    """FastAPI with `async def` handlers."""

    def make(self) -> Any:
        app = FastAPI()
        for name, program in self.programs.items():
            app.add_api_route(f"/{name}", self.endpoint(program), methods=METHODS)
        return app

    def endpoint(self, program: Program) -> Any:
        async def endpoint(request: Request, body: Body, form: Form) -> Response:
            use = OfFastAPI(self.counts, request, body, form)
            answer: Response = await run_async(program(use))
            return answer

        return endpoint


class FastAPIThreads(FastAPIAsync):
    """FastAPI with `def` handlers."""

    on_loop = False

    def endpoint(self, program: Program) -> Any:
        def endpoint(request: Request, body: Body, form: Form) -> Response:
            use = OfFastAPIThreads(self.counts, request, body, form)
            answer: Response = run_blocking(program(use))
            return answer

        return endpoint


class OnStarlette(Framework):
    """Starlette."""

    def make(self) -> Any:
        def endpoint(program: Program) -> Any:
            async def endpoint(request: Request) -> Response:
                answer: Response = await run_async(program(OfStarlette(self.counts, request)))
                return answer

            return endpoint

        return Starlette(routes=[
            Route(f"/{name}", endpoint(program), methods=METHODS)
            for name, program in self.programs.items()
        ])  # fmt: skip


class OnFlask(Framework):
    """Flask."""

    wsgi, on_loop = True, False

    def make(self) -> Any:
        app = flask.Flask("app")
        for name, program in self.programs.items():
            run = partial(self.endpoint, program)
            app.add_url_rule(
                f"/{name}", name, run, methods=METHODS, provide_automatic_options=False
            )
        return app

    def endpoint(self, program: Program) -> Any:
        return run_blocking(program(OfFlask(self.counts, flask.request)))


class DjangoASGI(Framework):
    """Django under ASGI."""

    @contextmanager
    def there(self) -> Generator[None]:
        urls: Any = ModuleType("urls")
        urls.urlpatterns = [
            path(name, self.view(program)) for name, program in self.programs.items()
        ]
        with configured(
            SECRET_KEY="no secret",
            ALLOWED_HOSTS=["*"],
            ROOT_URLCONF=urls,
            INSTALLED_APPS=[],
            MIDDLEWARE=[f"{__name__}.refusals"],
        ):
            self.app = self.make()
            yield

    def make(self) -> Any:
        return get_asgi_application()

    def view(self, program: Program) -> Any:
        async def view(request: HttpRequest) -> Any:
            return await run_async(program(OfDjango(self.counts, request)))

        return view


class DjangoWSGI(DjangoASGI):
    """Django under WSGI."""

    wsgi, on_loop = True, False

    def make(self) -> Any:
        return get_wsgi_application()

    def view(self, program: Program) -> Any:
        def view(request: HttpRequest) -> Any:
            return run_blocking(program(OfDjangoThreads(self.counts, request)))

        return view


FRAMEWORKS: dict[str, type[Framework]] = {
    "fastapi": FastAPIAsync,
    "fastapi-def": FastAPIThreads,
    "starlette": OnStarlette,
    "flask": OnFlask,
    "django-wsgi": DjangoWSGI,
    "django-asgi": DjangoASGI,
}
