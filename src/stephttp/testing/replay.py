"""`replay` and `Replayer`: whether the code at hand still accepts what is remembered of a run.

The application gets a call of the server, as it would to continue the run. Its handler runs with
every remembered step answered from the history, and is ended at the first step that has none: no
body of a step runs, no event is sent, and nothing waits. The handler's own code between the steps
runs, as in every call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import ExitStack
from contextvars import copy_context
from os import PathLike
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2

from stephttp.errors import UsageError
from stephttp.provider import Provider
from stephttp.testing.asgi_calls import ASGICaller, Lifespan
from stephttp.testing.history import History
from stephttp.testing.loop_thread import LoopThread
from stephttp.testing.replayed_call import answered, cut_off_from_servers, replayed
from stephttp.testing.replayed_state import ReplayedState
from stephttp.testing.takeover import is_wsgi, runtimes_of
from stephttp.testing.verdicts import Replay, unchecked
from stephttp.testing.wsgi_calls import WSGICaller

T = TypeVar("T")

_LONGEST = 30.0
"""Seconds of real time that the replay of a run may take."""
_for_good = ExitStack()
"""Holds what is not left as long as the process lives."""
_STUCK = (
    "an earlier replay has not ended, so no further one can begin; its handler may wait for what "
    "never comes"
)


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
        What does not fit; `safe` if everything does. A replay that takes too long is `unchecked`.

    Raises:
        ConfigurationError: the history cannot be read, or the application is not one, or has no
            durable middleware.
        UsageError: the application comes to a step when it starts or ends.
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
        for_good: whether the application never reaches its server again. Its threads may
            outlive a replay, so a process that only replays leaves it cut off.
    """

    def __init__(
        self,
        app: Any,
        *,
        provider: Provider | Iterable[Provider] = (),
        lifespan: bool = True,
        patience: float = _LONGEST,
        for_good: bool = False,
    ) -> None:
        self._app = app
        given = (provider,) if isinstance(provider, Provider) else tuple(provider)
        self._is_wsgi = is_wsgi(app)
        self._runtimes = runtimes_of(app, given)
        self._lifespan = Lifespan(app) if lifespan and not self._is_wsgi else None
        self._patience = patience
        self._loop: LoopThread
        if for_good:
            _for_good.enter_context(answered(self._runtimes, ReplayedState("", b"{}")))

    def __enter__(self) -> Self:
        self._loop = LoopThread(self._patience)
        try:
            if self._lifespan is not None:
                self._loop.call(cut_off_from_servers(self._runtimes, self._lifespan.start()))
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
        stop = None
        if self._lifespan is not None:
            stop = cut_off_from_servers(self._runtimes, self._lifespan.stop())
        self._loop.close(stop)

    def replay(self, history: History, headers: Mapping[str, str] | None = None) -> Replay:
        """Replay one run; see `replay`. One that does not end is the last one."""
        if headers:
            history = history.with_headers(headers)
        if reason := history.cannot_be_sent or (self._loop.stuck and _STUCK):
            return unchecked(history, reason)
        try:
            return self._loop.call(replayed(history, self._runtimes, self._caller()))
        except UsageError as problem:  # it takes too long
            return unchecked(history, str(problem))

    def _caller(self) -> httpx2.AsyncBaseTransport:
        if self._is_wsgi:
            return WSGICaller(self._app, self._in_thread, raises=True)
        state = {} if self._lifespan is None else self._lifespan.state
        return ASGICaller(self._app, raises=True, state=state)

    def _in_thread(self, work: Callable[[], T]) -> Awaitable[T]:
        context = copy_context()
        return self._loop.in_test(lambda: context.run(work))
