"""The result of a run on this API's own origin (`result_path`), neutral to ASGI and WSGI.

It is the server's output URL (docs/protocol.md 7), passed on. So browsers stay on one origin, and
the server need not be reachable for those who call the API.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qs

from stephttp._client.api_calls import SDK, output_path
from stephttp._client.drivers import Streamed
from stephttp._client.flow import Answer, Call, Keys
from stephttp._core import replies
from stephttp._wire.http import HOP_BY_HOP, Headers, Request, Response, read_prefer, redirect
from stephttp._wire.ids import ulid_number

MAX_WAIT = 330.0
"""Seconds; a server gives up after five minutes."""

PEEKED = 256
"""Bytes of a result that are looked at before it is passed on."""

_TOKEN = re.compile(r"[A-Za-z0-9_.~-]{1,4096}")
_OF_THE_SERVER = re.compile(rb"access-control-.*|x-inngest-server-kind|x-stephttp-.*|date|server")
_STILL_RUNNING = re.compile(rb'\s*\{"status":\s*"running",\s*"message":\s*"run did not end within')
_METHODS = b"GET, HEAD, OPTIONS"


def plan(request: Request) -> Response | Call:
    """Return the answer to a request for `result_path`, or the call whose answer is passed on."""
    if request.method == "OPTIONS":
        allow = [(b"access-control-allow-methods", _METHODS), (b"allow", _METHODS)]
        asked = request.header(b"access-control-request-headers")
        if asked:
            allow.append((b"access-control-allow-headers", asked.encode("latin-1")))
        allow.append((b"access-control-max-age", b"3600"))
        return Response(204, allow + cors(request))
    if request.method not in ("GET", "HEAD"):
        message = "a result is asked for with GET"
        return replies.error_answer(405, message, [(b"allow", _METHODS), *cors(request)])
    query = parse_qs(request.query)
    run_id, token = query.get("run_id", [""])[0], query.get("token", [""])[0]
    try:
        ulid_number(run_id)
    except ValueError:
        return replies.error_answer(400, "run_id: missing, or not a ULID", cors(request))
    if not _TOKEN.fullmatch(token):
        return replies.error_answer(400, "token: missing, or not a token", cors(request))
    wait = read_prefer(request.headers).wait
    # The body is passed on as it is, and any caller can read this.
    # Our engine shows results to browsers in a sandbox, but not those that we pass on.
    headers = {"accept-encoding": "identity", "x-inngest-sdk": SDK}
    timeout = MAX_WAIT if wait is None else max(0.001, float(wait))
    return Call("GET", output_path(run_id, token), None, headers, timeout=timeout)


def head(headers: list[tuple[bytes, bytes]], request: Request) -> Headers:
    """Return the headers of the result: the handler's, without those of our connection."""
    kept = [
        (name, value)
        for name, value in headers
        if name not in HOP_BY_HOP and not _OF_THE_SERVER.fullmatch(name)
    ]
    return kept + cors(request)


def cors(request: Request) -> Headers:
    """Return the headers by which any origin may read a result: its token opens it, no cookie."""
    origin = request.header(b"origin")
    if not origin:
        return [(b"access-control-allow-origin", b"*"), (b"vary", b"Origin")]
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", b"*"),
        (b"vary", b"Origin"),
    ]


def still_running(status: int, body: bytes) -> bool:
    """Whether this is what a server says after five minutes, and not the result."""
    return status == 200 and _STILL_RUNNING.match(body) is not None


def of_the_server(keys: Keys, streamed: Streamed, first: bytes) -> bool:
    """Whether this is what the server answers, and not the page of something between.

    Args:
        keys: what is known of the server.
        first: the beginning of the body.
    """
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in streamed.headers}
    # The handler's answer may be of any type, so only a known engine tells its own from a page.
    return not keys.features or not keys.is_foreign(streamed.status, headers, empty=not first)


def not_yet(request: Request, path: str) -> Response:
    """Answer that the run has not ended within the time that the caller, or the server, waits.

    A caller with a limit gets a 202. Others are redirected to the same URL, to wait on.
    """
    location = f"{path}?{request.query}"
    prefer = read_prefer(request.headers)
    if prefer.wait is None:
        response = redirect(location)
    else:
        query = parse_qs(request.query)
        run_id, token = query["run_id"][0], query["token"][0]
        response = replies.accepted(run_id, token, location, prefer.applied)
    response.headers += cors(request)
    return response


def unreachable(request: Request) -> Response:
    """Answer that the server does not answer."""
    again = [(b"retry-after", b"5"), *cors(request)]
    return replies.error_answer(502, "the result cannot be asked for at the moment", again)


def relayed(answer: Answer) -> Response:
    """Return a result that was read whole and decoded, as a response of this API."""
    dropped = (b"content-encoding", b"content-length")
    kept = [
        (name, value)
        for name, value in answer.raw_headers
        if name not in HOP_BY_HOP and name not in dropped and not _OF_THE_SERVER.fullmatch(name)
    ]
    kept.append((b"content-length", str(len(answer.body)).encode()))
    return Response(answer.status, kept, answer.body)
