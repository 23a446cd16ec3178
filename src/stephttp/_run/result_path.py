"""The result of a run on this API's own origin (`result_path`), neutral to ASGI and WSGI.

It is the server's output URL (docs/protocol.md 7), passed on. So browsers stay on one origin, and
the server need not be reachable for those who call the API.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import parse_qs

from msgspec import Struct

from stephttp._client.flow import Answer, Keys
from stephttp._core import replies
from stephttp._run.asking import Asking
from stephttp._wire.http import HOP_BY_HOP, Headers, Prefer, Request, Response, read_prefer
from stephttp._wire.ids import ulid_number
from stephttp._wire.result_address import bearer_of, not_ended

_TOKEN = re.compile(r"[A-Za-z0-9_.~-]{1,4096}")
_OF_THE_SERVER = re.compile(rb"access-control-.*|x-inngest-server-kind|x-stephttp-.*|date|server")
_NUMBER = re.compile("[0-9]{1,15}")
_METHODS = b"GET, HEAD, POST, OPTIONS"


class Question(Struct, frozen=True):
    """A request for the result of a run."""

    request: Request
    run_id: str
    token: str
    prefer: Prefer
    events: str = ""
    """The part of a query that asks for the stream of the run; empty: its result is asked for."""

    def asking(self, keys: Keys, hold: float, now: Callable[[], float]) -> Asking:
        """Begin to ask the server.

        Args:
            keys: what is known of the server.
            hold: seconds that the caller is held at most.
            now: a clock, in seconds.
        """
        seconds = hold if self.prefer.wait is None else min(hold, float(self.prefer.wait))
        return Asking(keys, self.run_id, self.token, seconds, now, self.events)

    def not_yet(self) -> Response:
        """Answer that the run has not ended, while the caller was held."""
        path, query = self.request.path, self.request.query
        status, headers, body = not_ended(self.run_id, path, query, self.prefer)
        length = (b"content-length", str(len(body)).encode())
        return Response(status, [*headers, length, *cors(self.request)], body)


def plan(request: Request) -> Response | Question:
    """Return the answer to a request for `result_path`, or what is to be asked for it."""
    if request.method == "OPTIONS":
        allow = [(b"access-control-allow-methods", _METHODS), (b"allow", _METHODS)]
        asked = request.header(b"access-control-request-headers")
        if asked:
            allow.append((b"access-control-allow-headers", asked.encode("latin-1")))
        allow.append((b"access-control-max-age", b"3600"))
        return Response(204, allow + cors(request))
    if request.method not in ("GET", "HEAD", "POST"):
        message = "a result is asked for with GET"
        return replies.error_answer(405, message, [(b"allow", _METHODS), *cors(request)])
    query = parse_qs(request.query)
    run_id, token = query.get("run_id", [""])[0], query.get("token", [""])[0]
    try:
        ulid_number(run_id)
    except ValueError:
        return replies.error_answer(400, "run_id: missing, or not a ULID", cors(request))
    # Beside a token in the query, the header may be one of the application's.
    token = token or bearer_of(request.header(b"authorization"))
    if not _TOKEN.fullmatch(token):
        return replies.error_answer(400, "token: missing, or not a token", cors(request))
    return Question(request, run_id, token, read_prefer(request.headers), _events(request, query))


def _events(request: Request, query: dict[str, list[str]]) -> str:
    if query.get("events") != ["inngest"]:
        return ""
    after = request.header(b"last-event-id") or query.get("after", [""])[0]
    return f"&events=inngest&after={after if _NUMBER.fullmatch(after) else 0}"


def named(headers: Headers) -> dict[str, str]:
    """Return headers by name, to look at them."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}


def head(headers: Headers, request: Request) -> Headers:
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
