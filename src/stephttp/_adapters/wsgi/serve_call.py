"""A call of an Inngest function (`serve`) under WSGI: it passes through the middleware as it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextvars import Context, copy_context

from stephttp._adapters.wsgi.messages import Environ, StartResponse, WSGIApp, close
from stephttp._adapters.wsgi.request import identity
from stephttp._run.current import current_call
from stephttp._run.runless import OF_A_FUNCTION, RunlessCall
from stephttp._run.runtime import Runtime


def pass_on(
    app: WSGIApp, runtime: Runtime, environ: Environ, start_response: StartResponse
) -> Iterable[bytes]:
    """Call the application without a run. A forged call may reach an endpoint: it comes to
    no step."""
    call = RunlessCall(runtime, identity(environ), environ, OF_A_FUNCTION)
    context = copy_context()
    context.run(current_call.set, call)
    return _Chunks(context, call, context.run(app, environ, start_response))


class _Chunks:
    """The body of the response, which the application makes in the context of the call."""

    __slots__ = ("_call", "_chunks", "_context")

    def __init__(self, context: Context, call: RunlessCall, chunks: Iterable[bytes]) -> None:
        self._context = context
        self._call = call
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        run, ended = self._context.run, object()
        iterator = run(iter, self._chunks)
        while (chunk := run(next, iterator, ended)) is not ended:
            yield chunk  # type: ignore[misc]

    def close(self) -> None:
        """Close what the application returned."""
        self._context.run(close, self._chunks)
        self._call.leave()
