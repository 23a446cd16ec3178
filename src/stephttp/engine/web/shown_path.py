"""The path of a request as logs show it: without what may be a key."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache

from starlette.requests import Request

from stephttp._wire.ids import ULID_PATTERN

_LONGEST = 200
_ID = re.compile(rf"{ULID_PATTERN}|[0-9a-f]{{40}}", re.ASCII | re.IGNORECASE)


def shown_path(request: Request) -> str:
    """Return the path, with `…` for each part that is neither a word of a route, nor nearly one,
    nor an id: people mistype addresses, and an event key is a part of one."""
    app = request.scope.get("app")
    words = (
        _words(tuple(getattr(route, "path", "") for route in app.routes)) if app else frozenset()
    )
    parts = request.scope["path"][:_LONGEST].split("/")
    return "/".join(part if _is_known(part, words) else "…" for part in parts)


def is_id(text: str) -> bool:
    """Return whether a text is a run id or the hash of a step, which open nothing."""
    return _ID.fullmatch(text) is not None


@lru_cache(maxsize=8)
def _words(paths: Iterable[str]) -> frozenset[str]:
    return frozenset(part for path in paths for part in path.split("/") if "{" not in part)


def _is_known(part: str, words: frozenset[str]) -> bool:
    lower = part.lower()
    if lower in words or is_id(part):
        return True
    similar = [word for word in words if abs(len(word) - len(part)) <= 1]
    return bool(get_close_matches(lower, similar, 1, 0.8))
