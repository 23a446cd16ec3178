"""HTTP requests and responses, neutral to ASGI, WSGI and HTTP clients; bodies with their limit,
`Prefer` (RFC 7240) and `Accept`.

Header names are lower case, as ASGI has them; names and values are bytes on the way through the
application (where nothing may be lost) and text where they enter JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote

from msgspec import Struct, field

Headers = list[tuple[bytes, bytes]]

PLAIN_TEXT = ((b"content-type", b"text/plain; charset=utf-8"),)

TOKEN_CHARACTER = r"[!#$%&'*+.^_`|~0-9A-Za-z-]"
TOKEN = re.compile(TOKEN_CHARACTER + "+")
"""Names of headers, methods and preferences (RFC 9110, 5.6.2)."""

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods of requests that may be repeated as they are."""

HOP_BY_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization",
        b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip
"""Headers that describe the connection on which a message came, not the message."""

JSON = (b"content-type", b"application/json")

EVENT_HEADERS = ((b"content-type", b"text/event-stream"), (b"x-accel-buffering", b"no"))
"""Headers of an answer of events; nginx would hold these back without the last one."""

_CREDENTIALS = re.compile(r"^([^/?#]*//)[^/?#]*@")


def without_credentials(url: str) -> str:
    """Return an address without the user and password that may stand before its host."""
    return _CREDENTIALS.sub(r"\1", url, count=1)


class SeenAt(Struct, array_like=True, frozen=True):
    """Where an application sees a request."""

    root_path: str
    """Decoded, like `path`: `root_path` of ASGI, `SCRIPT_NAME` of WSGI."""
    path: str
    """`path` of ASGI, `PATH_INFO` of WSGI."""
    raw_path: str
    """Of ASGI."""
    called: str
    """`Request.path`."""


class Request(Struct, eq=False):
    """A request to the user's application, as it came.

    Its headers are replaced as a whole, never changed in their list: `header` remembers them.
    """

    method: str
    path: str
    """As it stood on the request line: still percent-encoded."""
    query: str
    headers: Headers
    client: tuple[str, int] | None = None
    scheme: str = "http"
    body: bytes = b""
    route: str = ""
    """The template of its route, such as `/users/{id}`. Empty where the framework does not say it,
    and where the endpoint has an id of its own."""
    root_path: str = ""
    """What proxies have taken off the path, percent-encoded, where the server or application says
    that: `root_path` of ASGI, `SCRIPT_NAME` of WSGI."""
    seen_at: SeenAt | None = None
    """Where the application sees the request, if `path` alone does not say it."""
    _known: tuple[Headers, dict[bytes, bytes]] | None = None
    """The headers that were looked into, and the first value of each."""

    @property
    def endpoint(self) -> str:
        """The default id of its endpoint. Empty means method and path."""
        return f"{self.method} {self.route}" if self.route else ""

    def first_values(self) -> dict[bytes, bytes]:
        """Return the first value of each header, for those who read many. Not to be changed."""
        known = self._known
        if known is None or known[0] is not self.headers:
            known = self._known = self.headers, dict(reversed(self.headers))
        return known[1]

    def header(self, name: bytes) -> str:
        """Return the first value of a header.

        Args:
            name: in lower case.

        Returns:
            The value, decoded as Latin-1; empty without one.
        """
        value = self.first_values().get(name)
        return "" if value is None else value.decode("latin-1")

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies that came with it; of several with one name, the first."""
        return dict(reversed(cookies_of(self.headers)))


class Response(Struct):
    """A whole response."""

    status: int
    headers: Headers = field(default_factory=list)
    body: bytes = b""

    @classmethod
    def of(
        cls, status: int, body: str | bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Response:
        """Make a response of ordinary text.

        Args:
            status: HTTP status code.
            body: text is sent as UTF-8.
            headers: by name.

        Returns:
            The response.
        """
        pairs = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in (headers or {}).items()
        ]
        return cls(status, pairs, body.encode() if isinstance(body, str) else body)


def json_response(status: int, body: bytes) -> Response:
    """Return a response whose body is JSON."""
    length = (b"content-length", str(len(body)).encode())
    return Response(status, [JSON, length], body)


def wants_events(request: Request) -> bool:
    """Whether a caller asks for events (`Accept: text/event-stream`)."""
    if request.method == "HEAD":
        return False
    for part in request.header(b"accept").lower().split(","):
        name, _, parameters = part.partition(";")
        if name.strip() == "text/event-stream":
            return not any(_NOTHING.fullmatch(parameter) for parameter in parameters.split(";"))
    return False


def navigates(request: Request) -> bool:
    """Whether a browser asks in order to show the answer as a page. Over plain HTTP it does not
    say so, but for one old header."""
    if request.method == "HEAD" or "text/html" not in request.header(b"accept").lower():
        return False
    mode = request.header(b"sec-fetch-mode")
    return mode == "navigate" if mode else request.header(b"upgrade-insecure-requests") == "1"


def reads_any_events(request: Request) -> bool:
    """Whether a caller that asks for events reads those of any address: an `EventSource` does, and
    it never takes its events from a cache. The TypeScript SDK's client reads only that SDK's."""
    control = request.header(b"cache-control").lower()
    return "no-cache" in control or "no-store" in control


class Body:
    """The chunks of a body that passes by, up to a limit; beyond it, nothing is kept."""

    __slots__ = ("_chunks", "complete", "limit", "overflown", "size")

    def __init__(self, limit: int) -> None:
        self._chunks: list[bytes] = []
        self.limit = limit
        self.size = 0
        self.overflown = False
        self.complete = False

    def add(self, chunk: bytes, more: bool) -> None:
        self.complete = not more
        self.size += len(chunk)
        if self.size > self.limit:
            self.overflown = True
            self._chunks.clear()
        elif chunk:
            self._chunks.append(chunk)

    def refuse(self, size: int) -> None:
        """Keep nothing: its head declares `size` bytes, which is beyond the limit."""
        self.size = size
        self.overflown = True
        self._chunks.clear()

    def join(self) -> bytes:
        return b"".join(self._chunks)


def text_headers(headers: Headers) -> list[tuple[str, str]]:
    """Return headers as text, as WSGI and JSON have them."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


def joined_headers(headers: Headers) -> dict[str, str]:
    """Return headers as a map, as `joined` does; `Set-Cookie` is the exception (RFC 9110, 5.3)."""
    pairs = text_headers(headers)
    found = dict(pairs)
    return found if len(found) == len(pairs) else joined(pairs, "set-cookie")


def joined(headers: Iterable[tuple[str, str]], exception: str = "") -> dict[str, str]:
    """Return headers as a map; a repeated one becomes a list in one line (RFC 9110, 5.3). Of the
    exception, the first value stays."""
    found: dict[str, str] = {}
    for name, value in headers:
        if name not in found:
            found[name] = value
        elif name != exception:
            found[name] += f", {value}"
    return found


def cookies_of(headers: Headers) -> list[tuple[str, str]]:
    """Return the names and values of a request's cookies, as they stand in its headers."""
    found: list[tuple[str, str]] = []
    for header, line in headers:  # HTTP/2 splits it
        if header == b"cookie":
            for pair in line.decode("latin-1").split(";"):
                name, equals, value = (part.strip() for part in pair.partition("="))
                if name or value:
                    found.append((name, value) if equals else ("", name))
    return found


_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))


def request_line_part(raw: bytes) -> str:
    """Return a part of the request line as it came, but with bytes for which RFC 3986 has no place
    encoded by percent signs: some clients send UTF-8 there, and so it means the same everywhere."""
    return raw.decode("ascii") if raw.isascii() else quote(raw, safe=_PRINTABLE)


def request_line_text(text: str) -> str:
    """Do the same with bytes that are written as Latin-1, as in an environ (PEP 3333)."""
    return text if text.isascii() else request_line_part(text.encode("latin-1"))


# What was once matched is never given back (`*+`): any caller sends this, and it may be long.
_QUOTED = r'"(?P<quoted>(?:[^"\\]|\\.)*+)"'
_VALUE = rf'\s*+=\s*+(?:{_QUOTED}|(?P<bare>[^\s",;]*+))'
_PARAMETERS = r'\s*+;[^,"]*+(?:"(?:[^"\\]|\\.)*+"[^,"]*+)*+'
_NOTHING = re.compile(r"\s*q\s*=\s*0(\.0*)?\s*")
"""The weight of what a caller does not want (RFC 9110, 12.4.2)."""
_PREFERENCE = re.compile(
    rf"[,\s]*+(?P<name>{TOKEN_CHARACTER}++)(?:{_VALUE})?(?:{_PARAMETERS})?\s*+(?:,|$)"
)

MAX_WAIT = 240
"""Seconds; few connections survive a longer wait, and a real server gives up after five minutes."""


class Prefer(Struct, frozen=True):
    """The preferences of a caller.

    Attributes:
        respond_async: answer 202 rather than let the caller wait.
        wait: seconds that the caller is willing to wait; `None` if it does not say.
    """

    respond_async: bool = False
    wait: int | None = None

    @property
    def applied(self) -> bytes:
        """The value of `Preference-Applied`."""
        parts = ["respond-async"] if self.respond_async else []
        return ", ".join(parts + ([] if self.wait is None else [f"wait={self.wait}"])).encode()


def read_prefer(headers: Headers) -> Prefer:
    """Read all `Prefer` headers; of a preference that is given twice the first one counts."""
    text = ", ".join(value.decode("latin-1") for name, value in headers if name == b"prefer")
    found: dict[str, str] = {}
    position = 0
    while match := _PREFERENCE.match(text, position):
        found.setdefault(match["name"].lower(), match["quoted"] or match["bare"] or "")
        position = match.end()
    wait = found.get("wait", "")
    seconds = min(int(wait), MAX_WAIT) if re.fullmatch(r"[0-9]{1,9}", wait) else None
    return Prefer("respond-async" in found, seconds)
