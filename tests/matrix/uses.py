"""What a program of the matrix uses: how each framework takes requests, and makes answers.

A program is a generator. It yields what is awaited on a loop, and what is there at once in a
thread, so that each framework runs the same one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping
from functools import partial
from typing import Any, ClassVar

import flask
import werkzeug.exceptions
from django.http import Http404, HttpResponse, StreamingHttpResponse
from starlette.background import BackgroundTask
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

import stephttp
from stephttp import stream
from stephttp.integrations._step_rows import run_async, run_blocking
from stephttp.sync import step as blocking
from stephttp.sync import stream as blocking_stream

Program = Callable[["Use"], Generator[Any, Any, Any]]


class Counts:
    """What the bodies of steps did, in all processes of an application."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        """How often each still fails."""

    def body(self, name: str) -> str:
        """Be the body of a step."""
        self.done[name] += 1
        if self.failures[name]:
            self.failures[name] -= 1
            raise ConnectionError(name)
        return name


class Use:
    """What a program uses: the tools, the request, and answers in the manner of its framework."""

    on_loop: ClassVar[bool]

    def __init__(self, counts: Counts, request: Any) -> None:
        self.counts = counts
        self.request = request

    @property
    def step(self) -> Any:
        """The step tools for this kind of handler."""
        return stephttp.step if self.on_loop else blocking

    @property
    def stream(self) -> Any:
        """The tools of streams, likewise."""
        return stream if self.on_loop else blocking_stream

    def do(self, name: str, **options: Any) -> Any:
        """Run a step that is counted."""
        return self.step.options(**options).run(name, self.counts.body, name)

    def branch(self, flow: Generator[Any, Any, Any]) -> Callable[[], Any]:
        """A branch for `parallel`, `race` and `first`."""
        return partial(run_async if self.on_loop else run_blocking, flow)

    # --- the request: some of these are awaited -----------------------------------------------

    def body(self) -> Any:
        raise NotImplementedError

    def form(self) -> Any:
        """Fields, and names and contents of files."""
        raise NotImplementedError

    def query(self) -> dict[str, list[str]]:
        raise NotImplementedError

    def header(self, name: str) -> str | None:
        value: str | None = self.request.headers.get(name)
        return value

    def cookie(self, name: str) -> str | None:
        value: str | None = self.request.cookies.get(name)
        return value

    # --- answers ------------------------------------------------------------------------------

    def json(self, value: Any, status: int = 200, **headers: str) -> Any:
        raw = json.dumps(value).encode()
        return self.raw(raw, status, {"content-type": "application/json"} | named(headers))

    def raw(self, body: bytes, status: int, headers: Mapping[str, str]) -> Any:
        raise NotImplementedError

    def chunks(self, chunks: Iterable[bytes]) -> Any:
        raise NotImplementedError

    def redirect(self, url: str) -> Any:
        raise NotImplementedError

    def abort(self, status: int, text: str) -> Exception:
        """What a handler of this framework raises to answer so."""
        raise NotImplementedError

    def after(self, answer: Any, call: Callable[[], Any]) -> Any:
        """The answer, with a task that is done when it is sent."""
        raise NotImplementedError


def named(headers: Mapping[str, str]) -> dict[str, str]:
    """Names of headers, written as keyword arguments."""
    return {name.replace("_", "-"): value for name, value in headers.items()}


class OfStarlette(Use):
    """Starlette, where body and form are awaited."""

    on_loop = True

    def body(self) -> Any:
        return self.request.body()

    def form(self) -> Any:
        return form_of(self.request)

    def query(self) -> dict[str, list[str]]:
        given = self.request.query_params
        return {name: given.getlist(name) for name in given}

    def raw(self, body: bytes, status: int, headers: Mapping[str, str]) -> Any:
        return Response(body, status, headers)

    def chunks(self, chunks: Iterable[bytes]) -> Any:
        return StreamingResponse(iter(chunks), media_type="text/plain")

    def redirect(self, url: str) -> Any:
        return RedirectResponse(url)

    def abort(self, status: int, text: str) -> Exception:
        return HTTPException(status, text, {"x-own": "yes"})

    def after(self, answer: Any, call: Callable[[], Any]) -> Any:
        answer.background = BackgroundTask(call)
        return answer


class OfFastAPI(OfStarlette):
    """FastAPI, where a dependency reads the body."""

    def __init__(self, counts: Counts, request: Any, body: bytes, form: Any) -> None:
        super().__init__(counts, request)
        self._body, self._form = body, form

    def body(self) -> Any:
        return self._body

    def form(self) -> Any:
        return self._form


class OfFastAPIThreads(OfFastAPI):
    """FastAPI with `def` handlers."""

    on_loop = False


class OfFlask(Use):
    """Flask."""

    on_loop = False

    def body(self) -> Any:
        return self.request.get_data()

    def form(self) -> Any:
        files = {n: [f.filename, f.read().decode()] for n, f in self.request.files.items()}
        return self.request.form.to_dict() | files

    def query(self) -> dict[str, list[str]]:
        return dict(self.request.args.lists())

    def raw(self, body: bytes, status: int, headers: Mapping[str, str]) -> Any:
        answer = flask.Response(body, status, headers)
        if status == 204:
            del answer.headers["content-type"]  # a strict server refuses it
        return answer

    def chunks(self, chunks: Iterable[bytes]) -> Any:
        return flask.Response(iter(chunks), mimetype="text/plain")

    def redirect(self, url: str) -> Any:
        return flask.redirect(url, 307)

    def abort(self, status: int, text: str) -> Exception:
        return werkzeug.exceptions.HTTPException(response=flask.Response(
            text, status, {"x-own": "yes"}
        ))  # fmt: skip

    def after(self, answer: Any, call: Callable[[], Any]) -> Any:
        answer.call_on_close(call)
        return answer


class OfDjango(Use):
    """Django under ASGI."""

    on_loop = True

    def body(self) -> Any:
        return self.request.body

    def form(self) -> Any:
        files = {n: [f.name, f.read().decode()] for n, f in self.request.FILES.items()}
        return self.request.POST.dict() | files

    def query(self) -> dict[str, list[str]]:
        return {name: values for name, values in self.request.GET.lists()}  # noqa: C416

    def cookie(self, name: str) -> str | None:
        value: str | None = self.request.COOKIES.get(name)
        return value

    def raw(self, body: bytes, status: int, headers: Mapping[str, str]) -> Any:
        answer = HttpResponse(body, status=status, headers=dict(headers))
        if status == 204:
            del answer["content-type"]
        return answer

    def chunks(self, chunks: Iterable[bytes]) -> Any:
        async def on_loop() -> Any:
            for chunk in chunks:
                yield chunk

        given: Any = on_loop() if self.on_loop else iter(chunks)
        return StreamingHttpResponse(given, content_type="text/plain")

    def redirect(self, url: str) -> Any:
        return HttpResponse(status=307, headers={"location": url})

    def abort(self, status: int, text: str) -> Exception:
        return Http404(text) if status == 404 else Refused(status, text)

    def after(self, answer: Any, call: Callable[[], Any]) -> Any:
        answer._resource_closers.append(call)
        return answer


class OfDjangoThreads(OfDjango):
    """Django under WSGI."""

    on_loop = False


class Refused(Exception):
    """An answer that a Django view raises, where a middleware makes it."""


async def form_of(request: Request) -> dict[str, Any]:
    """The fields of a form of Starlette."""
    if not request.headers.get("content-type", "").startswith(("application/x-www", "multipart")):
        return {}
    found: dict[str, Any] = {}
    async with request.form() as form:
        for name, value in form.items():
            if isinstance(value, UploadFile):
                found[name] = [value.filename, (await value.read()).decode()]
            else:
                found[name] = value
    return found
