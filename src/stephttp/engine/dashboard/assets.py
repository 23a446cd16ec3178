"""The files that pages are made of: style sheets, scripts, fonts, and the templates; their
caching.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import jinja2
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from stephttp.engine.dashboard import formatting, option_words

_HERE = Path(__file__).parent
_STATIC = _HERE / "static"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
_FOREVER = "public, max-age=31536000, immutable"
_A_WHILE = "public, max-age=3600"
_FILTERS = {
    formatting: (
        "duration", "period", "number", "percent", "iso", "utc_time", "shown", "is_cut",
        "as_text", "error_of", "curl", "event_data", "step_input",
    ),
    option_words: ("limit_words",),
}  # fmt: skip
"""What templates call, by the modules that it is in."""


@dataclass(frozen=True, slots=True)
class Asset:
    """A file for browsers. `version` changes with its content."""

    content: bytes
    media_type: str
    version: str


def _load() -> dict[str, Asset]:
    found = {}
    for path in _STATIC.rglob("*"):
        if media_type := _TYPES.get(path.suffix):
            content = path.read_bytes()
            name = path.relative_to(_STATIC).as_posix()
            found[name] = Asset(content, media_type, sha256(content).hexdigest()[:12])
    return found


ASSETS = _load()


def url(name: str) -> str:
    """Return the URL of an asset; it changes when the asset does."""
    return f"/static/{name}?v={ASSETS[name].version}"


async def serve(request: Request) -> Response:
    """Answer with an asset. A request cannot name any other file."""
    asset = ASSETS.get(request.path_params["name"])
    if asset is None:
        return PlainTextResponse("There is no such file.\n", 404)
    same = request.query_params.get("v") == asset.version
    headers = {"cache-control": _FOREVER if same else _A_WHILE}
    return Response(asset.content, headers=headers, media_type=asset.media_type)


def templates() -> jinja2.Environment:
    """Return the templates: they escape everything, and an unknown name is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["asset"] = url
    for module, names in _FILTERS.items():
        for name in names:
            environment.filters[name] = getattr(module, name)
    return environment
