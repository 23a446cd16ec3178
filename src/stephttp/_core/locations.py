"""Relative addresses in the headers of a response (`Location`), made absolute, because the caller
gets it from another origin.

The answer to a run that has waited comes from the engine. Its handler knows of no other origin
than the application's, so what it says relative to the request has to be made absolute. Pure.
"""

from __future__ import annotations

import re
from urllib.parse import urljoin, urlsplit

from stephttp._wire.http import Headers

_REFRESHING = b"refresh"
ADDRESSES = frozenset({b"location", b"content-location", _REFRESHING})
"""The headers that may have such addresses."""

_REFRESH = re.compile(
    r"""(?P<before>\s*[0-9.]*\s*[;,\s]\s*(?:url\s*=\s*)?)(?P<quote>["']?)(?P<url>.*)""",
    re.IGNORECASE | re.DOTALL,
)
"""The value of `Refresh`, as browsers read it: seconds, and an address behind `url=` or alone."""


def absolute(headers: Headers, origin: str, path: str, query: str) -> Headers:
    """Return headers whose addresses mean the same at every origin.

    Args:
        headers: of a response.
        origin: of the application, `scheme://host[:port]`.
        path: of the request.
        query: of the request, without the question mark.
    """
    changed: Headers = []
    for name, value in headers:
        kind, text = name.lower(), value.decode("latin-1")
        if kind == _REFRESHING:
            text = _refreshed(text, origin, path, query)
        elif kind in ADDRESSES:
            text = _resolved(text, origin, path, query)
        changed.append((name, text.encode("latin-1")))
    return changed


def _resolved(url: str, origin: str, path: str, query: str) -> str:
    """Return an absolute address. One that needs no more than a prefix keeps its bytes."""
    try:
        if urlsplit(url).scheme:
            return url
        if url.startswith("//"):
            return f"{origin.partition('//')[0]}{url}"
        if url.startswith("/"):
            return f"{origin}{url}"
        if url.startswith("?"):
            return f"{origin}{path}{url}"
        if not url or url.startswith("#"):
            return f"{origin}{path}{'?' if query else ''}{query}{url}"
        return urljoin(f"{origin}{path}", url)
    except ValueError:  # not an address
        return url


def _refreshed(text: str, origin: str, path: str, query: str) -> str:
    found = _REFRESH.fullmatch(text)
    if found is None:
        return text
    before, quote, url = found["before"], found["quote"], found["url"]
    behind = ""
    if quote and quote in url:
        url, behind, rest = url.partition(quote)
        behind += rest
    return f"{before}{quote}{_resolved(url, origin, path, query)}{behind}" if url else text
