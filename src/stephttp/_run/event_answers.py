"""Answers to callers who asked for events (`Accept: text/event-stream`) instead of a redirect
(docs/protocol.md 8.1).
"""

from __future__ import annotations

import logging

from stephttp._client import api_calls
from stephttp._client.flow import Flow, send
from stephttp._core.endpoint_options import AsyncResponseRedirect
from stephttp._core.replies import error_answer
from stephttp._core.run import Run
from stephttp._run.checkpoints import Checkpoints, callers_origin
from stephttp._run.suspend import result_url
from stephttp._wire import stored_state, stream_frames
from stephttp._wire.http import (
    EVENT_HEADERS,
    PLAIN_TEXT,
    Headers,
    Request,
    Response,
    read_prefer,
    text_headers,
)
from stephttp.errors import APIError

logger = logging.getLogger("stephttp")

HEADERS: Headers = [*EVENT_HEADERS, (b"cache-control", b"no-cache")]

_NO_SOON_RETURN = b"retry: 86400000\n"
"""A browser's `EventSource` comes again when an answer ends, and would begin another run."""


def stream_at(result_url: str, origin: str) -> str:
    """Return where the engine continues a stream behind what the first call has pushed.

    Args:
        result_url: of the run, with what opens it.
        origin: of this API, for its own paths: clients open what an event names as it is.
    """
    origin = origin if result_url.startswith("/") else ""
    return f"{origin}{result_url}&events=inngest&after={stream_frames.AFTER_FIRST_CALL}"


def continued(run_id: str, url: str, *, begun: bool) -> Response:
    """Send a caller to where the stream of its run continues.

    Args:
        begun: its answer has begun, so that this is the end of that.
    """
    body = b"" if begun else stream_frames.metadata(run_id)
    body += _NO_SOON_RETURN + stream_frames.redirect(run_id, url)
    return Response(200, list(HEADERS), body)


def follow(
    checkpoints: Checkpoints,
    run: Run,
    request: Request,
    token: str,
    stream_token: str,
    *,
    begun: bool,
) -> Flow[Response | None]:
    """Send a caller who asked for events to the stream of its run, which the server has.

    Args:
        token: opens the result.
        stream_token: opens the stream, if the server gave it.
        begun: it has got some events already.

    Returns:
        `None` for one that is to be answered as those who did not ask for events.
    """
    settings = checkpoints.settings
    kind = run.opts.async_response or settings.default_async_response
    if not isinstance(kind, AsyncResponseRedirect) or read_prefer(request.headers).applied:
        return None
    if checkpoints.keys.supports(stored_state.STREAMS_FEATURE):
        origin = callers_origin(request, settings)
        url = stream_at(result_url(settings, run.run_id, token), origin)
        return continued(run.run_id, url, begun=begun)
    if not stream_token:
        call = api_calls.post_stream_token(run.run_id)
        try:
            answer = yield from send(call, checkpoints.keys, checkpoints.rng)
            stream_token = api_calls.read_stream_token(answer)
        except APIError as error:
            logger.warning("stephttp: run %s: its caller cannot follow its stream, and gets the "
                           "address of its result: %s", run.run_id, error)  # fmt: skip
            return None
    url = f"{settings.base_url}/v1/realtime/sse?token={stream_token}"
    return continued(run.run_id, url, begun=begun)


def last_event(response: Response, *, failed: bool) -> bytes:
    """Return the event that holds the answer of the handler, and ends a stream.

    Args:
        failed: the handler has raised an exception.
    """
    headers, failed = text_headers(response.headers), failed or response.status >= 500
    return stream_frames.response(response.status, headers, response.body, failed=failed)


def end_of(reply: Response) -> bytes:
    """Return what ends an answer of events where the SDK replies in the place of the handler."""
    if EVENT_HEADERS[0] in reply.headers:
        return reply.body  # where there are more
    return last_event(reply, failed=False)


def end_of_own(response: Response | None, error: BaseException | None, *, too_large: bool) -> bytes:
    """Return what ends an answer of events with the answer of the handler.

    Args:
        response: what it has answered, if anything.
        error: what it has raised.
        too_large: whether the answer is too large to be kept.
    """
    if too_large:
        response = error_answer(500, "the answer of the handler is too large for an event")
    if response is None:
        response = Response(500, list(PLAIN_TEXT), b"Internal Server Error")
    return last_event(response, failed=error is not None)
