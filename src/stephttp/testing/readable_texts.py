"""Reads bodies, and JSON in texts, of a history, and writes them again as they were written."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterable
from typing import Any

_LARGEST = 64 * 1024 * 1024
"""Bytes of a body that is unpacked."""
_PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
}
_GZIP_OR_ZLIB = 47
_CHARSET = re.compile(r"charset=\"?([\w.:-]+)", re.IGNORECASE)
_STYLES: list[dict[str, Any]] = [
    {"ensure_ascii": is_ascii, "separators": separators}
    for is_ascii in (False, True)
    for separators in ((",", ":"), (", ", ": "))
]
"""Ways to write JSON. A masked text keeps its own, so that an equal answer stays equal."""


class ReadableBody:
    """A body as a text.

    Args:
        body: the body, as it was sent.
        content_type: its `Content-Type`.
        headers: those of its message.
    """

    def __init__(
        self, body: bytes, content_type: str, headers: Iterable[tuple[str, str]] = ()
    ) -> None:
        codings = [value.lower() for name, value in headers if name.lower() == "content-encoding"]
        self._coding = ", ".join(codings).strip().removeprefix("identity")
        self._encoding, self._errors = "utf-8", "surrogateescape"
        self.text: str | None = None
        """The text; `None`: it is packed in a way that cannot be read."""
        plain: bytes | None = None
        if not self._coding or not body:
            plain, self._coding = body, ""
        elif self._coding in _PACKED:
            plain = _unpacked(body)
        if plain is not None:
            self.text = self._read(plain, content_type)

    def _read(self, body: bytes, content_type: str) -> str:
        charset = _CHARSET.search(content_type)
        for name in (charset[1] if charset else "utf-8", json.detect_encoding(body)):
            try:
                text = body.decode(name)
                if "\0" not in text and text.encode(name) == body:
                    self._encoding, self._errors = name, "strict"
                    return text
            except (LookupError, ValueError):  # it is in another one
                continue
        return body.decode(self._encoding, self._errors)

    def written(self, text: str) -> bytes:
        """Return the body with another text."""
        errors = "replace" if self._errors == "strict" else self._errors
        body = text.encode(self._encoding, errors)
        return _PACKED[self._coding](body) if self._coding else body


def _unpacked(body: bytes) -> bytes | None:
    try:
        unpacking = zlib.decompressobj(_GZIP_OR_ZLIB)
        found = unpacking.decompress(body, _LARGEST)
    except zlib.error:
        return None
    return found if unpacking.eof and not unpacking.unused_data else None


def json_in(text: str) -> dict[str, Any] | list[Any] | None:
    """Return the object or list that a text holds as JSON; `None` if it holds anything else."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        found: dict[str, Any] | list[Any] = json.loads(text)
    except (ValueError, RecursionError):  # it only looks like JSON
        return None
    return found


def as_json(value: Any, old: Any, *, like: str) -> str:
    """Write JSON as an old value is written, as far as that is known.

    Args:
        value: what is written.
        old: the old value.
        like: its text.
    """
    style = next((one for one in _STYLES if json.dumps(old, **one) == like), _STYLES[0])
    return json.dumps(value, **style)
