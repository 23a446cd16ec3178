"""Replays: whether the code at hand still accepts what is remembered of a run.

The application gets a call of the server, as it would to continue the run. Its handler runs with
every remembered step answered from the history, and is ended at the first step that has none: no
body of a step runs, no event is sent, and nothing waits. The handler's own code between the steps
runs, as in every call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from contextvars import copy_context
from os import PathLike
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2
from msgspec.structs import replace as changed_settings

from stephttp._run.current import HandlerCall, current_call
from stephttp._run.runless import RunlessCall
from stephttp._run.scope import RunScope
from stephttp._wire.call_signatures import request_target
from stephttp.errors import UsageError
from stephttp.provider import Provider
from stephttp.testing.asgi_calls import ASGICaller, Lifespan
from stephttp.testing.history import History, as_bytes
from stephttp.testing.loop_thread import LoopThread
from stephttp.testing.places_in_code import known_origins
from stephttp.testing.replayed_state import ORIGIN, ReplayedState
from stephttp.testing.takeover import is_wsgi, runtimes_of
from stephttp.testing.verdicts import Replay, judge, unchecked
from stephttp.testing.watched_call import LoggedErrors, WatchedCall
from stephttp.testing.wsgi_calls import WSGICaller

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds of real time that the replay of a run may take."""
_DONE = ("", b"")


def replay(
    history: History | str | PathLike[str] | Mapping[str, Any],
    app: Any,
    *,
    headers: Mapping[str, str] | None = None,
    provider: Provider | Iterable[Provider] = (),
) -> Replay:
    """Prove that the code at hand still accepts what is remembered of a run.

    No body of a step runs, and nothing is sent. The handler's own code between the steps runs, and
    so do lifespan, middleware and dependencies of the application.

    Args:
        history: of the run, or where it is: what `stephttp runs export` has written.
        app: the application, of ASGI or WSGI, with the durable middleware.
        headers: of the request, in place of those that were masked in the export, such as
            `authorization`.
        provider: the provider of the middleware, or several, where they cannot be found in `app`.

    Returns:
        What does not fit; `safe` if everything does.

    Raises:
        ConfigurationError: the history cannot be read, or the application is not one, or has no
            durable middleware.
        UsageError: the replay takes too long.
    """
    loaded = history if isinstance(history, History) else History.load(history)
    with Replayer(app, provider=provider) as replayer:
        return replayer.replay(loaded, headers)


class Replayer:
    """Replays many runs against one application. Use it as a context manager.

    Args:
        app: the application.
        provider: see `replay`.
        lifespan: whether the application is started and ended around the replays.
        patience: seconds of real time that one run may take.
    """

    def __init__(
        self,
        app: Any,
        *,
        provider: Provider | Iterable[Provider] = (),
        lifespan: bool = True,
        patience: float = PATIENCE,
    ) -> None:
        self._app = app
        given = (provider,) if isinstance(provider, Provider) else tuple(provider)
        self._is_wsgi = is_wsgi(app)
        self._runtimes = runtimes_of(app, given)
        self._lifespan = Lifespan(app) if lifespan and not self._is_wsgi else None
        self._patience = patience
        self._loop: LoopThread

    def __enter__(self) -> Self:
        self._loop = LoopThread(self._patience)
        try:
            if self._lifespan is not None:
                self._loop.call(self._in_replay(self._start(), ReplayedState("", b"{}"), []))
        except BaseException:
            self._loop.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._lifespan is not None:
                self._loop.call(self._in_replay(self._stop(), ReplayedState("", b"{}"), []))
        finally:
            self._loop.close()

    def replay(self, history: History, headers: Mapping[str, str] | None = None) -> Replay:
        """Replay one run; see `replay`."""
        if headers:
            history = history.with_headers(headers)
        reason = history.cannot_be_sent
        if reason:
            return unchecked(history, reason)
        calls: list[WatchedCall] = []
        state = ReplayedState(history.run.id, history.state())
        with LoggedErrors() as logged:
            try:
                reply, error = self._loop.call(
                    self._in_replay(self._send(_request_of(history)), state, calls)
                )
            except UsageError as problem:
                return unchecked(history, str(problem))
        return judge(history, calls, reply, error or logged.last)

    async def _in_replay(self, work: Any, state: ReplayedState, calls: list[WatchedCall]) -> Any:
        """Await something while all providers are cut off from their servers."""

        def watch(call: HandlerCall, scope: RunScope) -> None:
            calls.append(WatchedCall(call, scope))
            scope.run.stop()

        with ExitStack() as stack:
            stack.enter_context(known_origins())
            for runtime in self._runtimes:
                settings = changed_settings(
                    runtime.settings, base_url=ORIGIN, event_base_url="", env="", dev=True
                )
                transport = state.transport()
                stack.enter_context(
                    runtime.replaced(settings, transport=transport, sync_transport=transport)
                )
                runtime.watch = watch
            current_call.set(RunlessCall(self._runtimes[0], ("replay",), {}, _NOT_DURABLE))
            return await work

    async def _send(self, request: httpx2.Request) -> tuple[httpx2.Response, BaseException | None]:
        caller = self._caller()
        status, body = 0, b""
        try:
            response = await caller.handle_async_request(request)
            status = response.status_code
            async for chunk in response.stream:  # type: ignore[union-attr]
                body += chunk
        except Exception as error:
            return httpx2.Response(status or 500, content=body), error
        finally:
            await caller.aclose()
        return httpx2.Response(status, content=body), None

    def _caller(self) -> httpx2.AsyncBaseTransport:
        if self._is_wsgi:
            return WSGICaller(self._app, self._in_thread, raises=True)
        state = {} if self._lifespan is None else self._lifespan.state
        return ASGICaller(self._app, raises=True, state=state)

    def _in_thread(self, work: Any) -> Any:
        context = copy_context()
        return self._loop.in_test(lambda: context.run(work))

    async def _start(self) -> None:
        assert self._lifespan is not None
        await self._lifespan.start()

    async def _stop(self) -> None:
        assert self._lifespan is not None
        await self._lifespan.stop()


_NOT_DURABLE = UsageError(
    "this request does not pass the stephttp middleware, so its steps would run; a replay runs "
    "none. Give the application with its middleware"
)


def _request_of(history: History) -> httpx2.Request:
    """Return the call of the server that continues the run."""
    request = history.request
    url = httpx2.URL(request.origin or "http://replayed").copy_with(
        raw_path=request_target(request.path, request.query).encode()
    )
    headers = {
        "user-agent": "stephttp replay",
        "content-type": request.content_type or "application/json",
        "x-run-id": history.run.id,
        "x-inngest-signature": "",
        "x-inngest-req-version": "1",
        "x-stephttp-attempt": "0",
    }
    return httpx2.Request(request.method, url, headers=headers, content=as_bytes(request.body))
