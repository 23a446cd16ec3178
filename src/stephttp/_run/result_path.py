"""`result_path`: the result of a run on your own origin; what a caller gets there (answer,
redirect, 202, page, events; CORS).

It is the server's output URL (docs/protocol.md 7), passed on. So browsers stay on one origin, and
the server need not be reachable for those who call the API.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import msgspec
from msgspec import Struct

from stephttp._client.flow import Answer, Keys
from stephttp._core import replies
from stephttp._run.asking import Asking
from stephttp._wire.http import (
    EVENT_HEADERS,
    HOP_BY_HOP,
    Headers,
    Prefer,
    Request,
    Response,
    navigates,
    read_prefer,
    text_headers,
    wants_events,
)
from stephttp._wire.ids import ulid_number
from stephttp._wire.json import UNREADABLE, encode_struct
from stephttp._wire.progress import Progress
from stephttp._wire.result_address import (
    ASKS,
    FOLLOWED,
    MARK,
    PROGRESS,
    REFUSED,
    Page,
    Pending,
    not_ended,
    page_hold,
    shown,
    without_cookies,
)
from stephttp._wire.signatures import bearer_of
from stephttp._wire.stored_state import FEATURES
from stephttp._wire.stream_frames import answer_of

if TYPE_CHECKING:
    from stephttp._run.runtime import Runtime

logger = logging.getLogger("stephttp")

_TOKEN = re.compile(r"[A-Za-z0-9_.~-]{1,4096}")
_OF_THE_SERVER = re.compile(
    rb"access-control-.*|x-inngest-server-kind|x-stephttp-(?!result$).*|date|server"
)
_NUMBER = re.compile("[0-9]{1,15}")
_EVENTS: Headers = [
    *EVENT_HEADERS,
    (b"cache-control", b"no-store"),
    (MARK.encode(), FOLLOWED.encode()),
]
_WRONG = "token: does not open the result of this run"
_REFUSED = (MARK.encode(), REFUSED.encode())
_SOON = b"retry: 1000\n\n"
_pending = msgspec.json.Decoder(Pending)
_METHODS = b"GET, HEAD, POST, OPTIONS"


class Question(Struct, frozen=True):
    """A request for the result of a run."""

    request: Request
    run_id: str
    token: str
    prefer: Prefer
    events: str = ""
    """The part of a query that asks for the stream of the run as other SDKs have it; empty: its
    result is asked for."""
    page: Page | None = None
    """Makes another page than ours for browsers."""

    def __repr__(self) -> str:
        return f"<Question {self.run_id}>"  # the rest has secrets

    @property
    def follows(self) -> bool:
        """Whether the caller asks for events."""
        return not self.events and wants_events(self.request)

    def asking(
        self, keys: Keys, hold: float, now: Callable[[], float], *, bounded: bool = False
    ) -> Asking:
        """Begin to ask the server.

        Args:
            keys: what is known of the server.
            hold: seconds that the caller is held at most.
            now: a clock, in seconds.
            bounded: the hold is also that of a caller who follows events.
        """
        request, asks = self.request, {}
        seconds = hold if self.prefer.wait is None else min(hold, float(self.prefer.wait))
        follows = self.follows
        if follows:
            asks = {"accept": "text/event-stream"}
            if request.header(b"last-event-id").isdecimal():
                asks["last-event-id"] = request.header(b"last-event-id")
        elif navigates(request):
            seconds, asks = page_hold(request.query, seconds), {ASKS: PROGRESS}
        bounded = bounded or self.prefer.wait is not None
        return Asking(
            keys, self.run_id, self.token, seconds, now, self.events,
            asks=asks, follows=follows and not bounded,
        )  # fmt: skip

    def note(self, runtime: Runtime, headers: Mapping[str, str]) -> None:
        """Note how the server has answered, so that a token that it refused is known for a while.

        Args:
            headers: of the answer.
        """
        if headers.get(MARK) == REFUSED:
            runtime.made_up_tokens.refused(self.run_id, self.token)

    def not_yet(self, pending: bytes = b"") -> Response:
        """Answer that the run has not ended, while the caller was held.

        Args:
            pending: what the engine has answered, if it has.
        """
        request = self.request
        path, query = request.path, request.query
        if self.follows:  # it comes again by itself
            return Response(200, [*_EVENTS, *cors(request, _EVENTS)], _SOON)
        if navigates(request):
            status, headers, body = self._shown(_progress(pending))
        else:
            status, headers, body = not_ended(self.run_id, path, query, self.prefer)
        length = (b"content-length", str(len(body)).encode())
        return Response(status, [*headers, length, *cors(request, headers)], body)

    def whole(self, answer: Response) -> Response:
        """Return a result that was read whole, as the caller gets it."""
        if self.follows:
            return self.as_event(answer)
        headers = [one for one in answer.headers if one[0] != b"content-length"]
        length = (b"content-length", str(len(answer.body)).encode())
        return Response(answer.status, [*head(headers, self.request), length], answer.body)

    def as_event(self, answer: Response) -> Response:
        """Return the answer of a server without events as the one event of a caller who follows."""
        pairs, failed = text_headers(answer.headers), answer.status >= 500
        data = encode_struct(answer_of(answer.status, pairs, answer.body, failed=failed))
        body = b"id: 0\nevent: response\ndata: %s\n\n" % data
        return Response(200, [*_EVENTS, *cors(self.request, _EVENTS)], body)

    def _shown(self, far: Progress) -> tuple[int, Headers, bytes]:
        """Return the page for a browser: status, headers, body."""
        path, query = self.request.path, self.request.query
        if self.page is not None:
            try:
                return shown(self.run_id, path, query, far, self.page)
            except Exception:
                logger.exception("stephttp: run %s: waiting_page failed", self.run_id)
        return shown(self.run_id, path, query, far)


def plan(runtime: Runtime, request: Request) -> Response | Question:
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
    ours = bool(runtime.checkpoints.keys.features)
    if runtime.made_up_tokens.has(run_id, token, ours=ours):
        return replies.error_answer(401, _WRONG, [_REFUSED, *cors(request, [_REFUSED])])
    if request.header(b"sec-fetch-site"):
        from stephttp._run import foreign_links  # few callers need it

        detour = foreign_links.detour(request, run_id)
        if detour is not None:
            return detour
    events, page = _events(request, query), runtime.settings.waiting_page
    return Question(request, run_id, token, read_prefer(request.headers), events, page)


def _events(request: Request, query: dict[str, list[str]]) -> str:
    if query.get("events") != ["inngest"]:
        return ""
    after = request.header(b"last-event-id") or query.get("after", [""])[0]
    return f"&events=inngest&after={after if _NUMBER.fullmatch(after) else 0}"


def _progress(pending: bytes) -> Progress:
    try:
        return _pending.decode(pending).progress or Progress()
    except UNREADABLE:
        return Progress()


def is_whole(headers: Mapping[str, str]) -> bool:
    """Whether an answer to one who follows is that of a server without events."""
    return FEATURES not in headers


def head(headers: Headers, request: Request) -> Headers:
    """Return the headers of the result: the handler's, without those of our connection."""
    kept = _of_handler(headers)
    if without_cookies(request.query):
        kept = [one for one in kept if one[0] != b"set-cookie"]
    return kept + cors(request, kept)


def cors(request: Request, answer: Sequence[tuple[bytes, bytes]] = ()) -> Headers:
    """Return the headers by which any origin may read a result: its token opens it, no cookie.

    Args:
        answer: headers that scripts may read. To a request with credentials `*` is just a name.
            What they say with `Vary` is not said again.
    """
    origin = request.header(b"origin")
    said = b",".join(value for name, value in answer if name.lower() == b"vary").lower()
    varies = [] if b"origin" in map(bytes.strip, said.split(b",")) else [(b"vary", b"Origin")]
    if not origin:
        return [(b"access-control-allow-origin", b"*"), *varies]
    names = {name.lower() for name, _ in answer} - {b"set-cookie"}
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", b", ".join(sorted({b"*", *names}))),
        *varies,
    ]


def relayed(answer: Answer) -> Response:
    """Return a result that was read whole and decoded, as a response of this API."""
    dropped = (b"content-encoding", b"content-length")
    kept = [one for one in _of_handler(answer.raw_headers) if one[0] not in dropped]
    kept.append((b"content-length", str(len(answer.body)).encode()))
    return Response(answer.status, kept, answer.body)


def _of_handler(headers: Sequence[tuple[bytes, bytes]]) -> Headers:
    """Return the headers that the handler has set, without those of our connection."""
    return [
        (name, value)
        for name, value in headers
        if name not in HOP_BY_HOP and not _OF_THE_SERVER.fullmatch(name)
    ]
