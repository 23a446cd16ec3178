"""The address of a run's result, on the engine and at `result_path`: how long it holds a caller
(below 60 s), redirects to itself, 202 (docs/design.md 3.18). Pure.

It answers a caller as the handler did, as soon as the run has ended. Until then it holds the
request for a while, and redirects the caller to itself. That is counted, because clients follow
few redirects; a caller that has come often enough gets a 202, and comes back by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import parse_qsl, urlencode

from msgspec import Struct, structs

from stephttp._wire.http import Headers, Prefer, Response
from stephttp._wire.json import encode_struct
from stephttp._wire.progress import Progress, WaitingRun

HOLD = 50.0
"""Seconds that a caller is held, unless settings say something else: proxies give up after 60."""

SHORTEST_HOLD, LONGEST_HOLD = 1.0, 240.0
"""Seconds. With a shorter one a client would use up its redirects in no time; a real server gives
up after five minutes (docs/protocol.md 7)."""

MOST_TURNS = 12
"""Redirects of the address to itself. Browsers follow 20 in all."""

RETRY_AFTER = 2
"""Seconds after which a caller with a 202 may come back, to be held again."""

MARK = "x-stephttp-result"
"""Header that says what an answer at the address is; a body may look like anything."""
FINAL, PENDING, STOPPING, GONE = "final", "pending", "stopping", "gone"
"""Values of `MARK`: the handler's answer; not yet, after the whole hold, or earlier because the
engine stops; and not any more."""
REFUSED = "refused"
"""Value of `MARK` where the token does not open the result."""
FOLLOWED = "followed"
"""Value of `MARK` where the answer consists of events."""

WITHOUT_COOKIES = "cookies=no"
"""In the query of a link to a result that sets no cookies. It stays there when the page comes
again, which another site then has not asked for."""

ASKS = "x-stephttp-accept"
PROGRESS = "progress"
"""Value of `ASKS` by which an SDK gets the progress of a run with the answer that it has not ended.
"""

Page = Callable[[WaitingRun], "str | Response"]
"""Makes the page that a browser shows until a run has ended."""

_NEXT_HOLD = 10.0
"""Seconds that a browser is held each time that its page comes again."""

_TURN = "turn"
_NO_STORE = ((b"cache-control", b"no-store"), (b"referrer-policy", b"no-referrer"))


class Pending(Struct, omit_defaults=True):
    """The body of an answer to a caller whose run has not ended."""

    run_id: str
    status: str
    result_url: str
    message: str = ""
    progress: Progress | None = None
    """Only for an SDK that asks for it."""


def turn_of(query: str) -> int:
    """Return how often a request was redirected from its address to itself."""
    turn = dict(parse_qsl(query)).get(_TURN, "")
    return min(int(turn), MOST_TURNS) if turn.isdecimal() and len(turn) < 3 else 0


def without_cookies(query: str) -> bool:
    """Return whether the query of a link says that the result sets no cookies."""
    return WITHOUT_COOKIES in query.split("&")


def reference(path: str, query: str, turn: int = 0) -> str:
    """Return an address as its own answers name it: relative, because a proxy may have stripped a
    prefix of the path.

    Args:
        path: of the request.
        query: of the request.
        turn: what is counted in it; 0: a new count.
    """
    fields = [(name, value) for name, value in parse_qsl(query, True) if name != _TURN]
    if turn:
        fields.append((_TURN, str(turn)))
    last = path.rpartition("/")[2]
    # A reference must have a path (some clients drop a part of theirs), and no colon in its first.
    name = last if last and ":" not in last else f"./{last}"
    return f"{name}?{urlencode(fields)}" if fields else name


def not_ended(
    run_id: str,
    path: str,
    query: str,
    prefer: Prefer,
    mark: str = PENDING,
    progress: Progress | None = None,
) -> tuple[int, Headers, bytes]:
    """Return the answer to a caller who was held in vain: status, headers, body.

    Args:
        path, query: of the request.
        mark: `PENDING` or `STOPPING`.
        progress: of the run, for an SDK.
    """
    turn = turn_of(query) + 1
    if prefer.wait is None and turn <= MOST_TURNS:
        status, location, message = 303, reference(path, query, turn), ""
    else:
        status, location = 202, reference(path, query)
        message = (
            "the run has not ended; ask for result_url (which is relative to this address) in "
            f"{RETRY_AFTER} s, and be held again until it has"
        )
    body = encode_struct(Pending(run_id, "running", location, message, progress))
    headers = [
        (b"content-type", b"application/json"),
        (b"location", location.encode()),
        (MARK.encode(), mark.encode()),
        *_NO_STORE,
    ]
    if status == 202:
        headers.append((b"retry-after", str(RETRY_AFTER).encode()))
    if prefer.wait is not None:
        headers.append((b"preference-applied", f"wait={prefer.wait}".encode()))
    return status, headers, body


def shown(
    run_id: str, path: str, query: str, progress: Progress, page: Page | None = None
) -> tuple[int, Headers, bytes]:
    """Return the page for a browser whose run has not ended: status, headers, body.

    Args:
        path, query: of the request.
        progress: of the run.
        page: makes another page than ours.
    """
    from stephttp._wire import waiting_page  # few programs need it

    address = reference(path, query, 1)
    run = WaitingRun(**structs.asdict(progress), run_id=run_id, result_url=address)
    made = waiting_page.html(run) if page is None else page(run)
    own = waiting_page.headers() if page is None else waiting_page.headers()[:1]
    marked = [*own, (MARK.encode(), PENDING.encode()), *_NO_STORE]
    if isinstance(made, Response):
        names = {name for name, _ in made.headers}
        extra = [pair for pair in marked if pair[0] not in names]
        return made.status, [*made.headers, *extra], made.body
    return 202, marked, made.encode()


def page_hold(query: str, hold: float) -> float:
    """Return how long a browser is held that is to show a page, in seconds."""
    return min(hold, _NEXT_HOLD if turn_of(query) else SHORTEST_HOLD)
