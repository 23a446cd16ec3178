"""`wsgi.input` of a request from outside: what the handler reads is kept, and the rest is read."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Any

from stephttp._adapters.wsgi.messages import Environ
from stephttp._run.passing import Body

_CHUNK = 64 * 1024


class Input:
    """Notes what passes by.

    Args:
        environ: of the request.
        asked: takes the body.
        limit: the most bytes that are worth reading.
    """

    __slots__ = ("_asked", "_inner", "_length", "_limit")

    def __init__(self, environ: Environ, asked: Body, limit: int) -> None:
        self._inner: Any = environ["wsgi.input"]
        self._asked = asked
        self._limit = limit
        length = environ.get("CONTENT_LENGTH") or ""
        self._length = int(length) if length.isdecimal() else None
        if self._length is None and not environ.get("wsgi.input_terminated"):
            self._length = 0  # nobody can tell where a body would end (PEP 3333)
        asked.complete = self._length == 0

    def read(self, *size: int) -> bytes:
        """Read bytes."""
        return self._noted(self._inner.read(*size), size != (0,))

    def readline(self, *size: int) -> bytes:
        """Read a line."""
        return self._noted(self._inner.readline(*size), size != (0,))

    def readlines(self, *hint: int) -> list[bytes]:
        """Read lines."""
        lines: list[bytes] = self._inner.readlines(*hint)
        self._noted(b"".join(lines), not hint)
        return lines

    def __iter__(self) -> Iterator[bytes]:
        for line in self._inner:
            yield self._noted(line, True)
        self._noted(b"", True)

    def drain(self) -> bytes | None:
        """Read what is left, as far as it may be kept.

        Returns:
            What was left; `None` if the caller left before its request was complete.
        """
        asked, length = self._asked, self._length
        if length is not None and length > self._limit:
            asked.refuse(length)
        rest: list[bytes] = []
        while not asked.complete and not asked.overflown:
            wanted = _CHUNK if length is None else min(_CHUNK, length - asked.size)
            try:
                chunk = self.read(wanted)
            except OSError:
                return None
            if not chunk and not asked.complete:
                return None
            rest.append(chunk)
        return b"".join(rest)

    def read_ahead(self) -> bool:
        """Read what is left before the handler does; False if the caller left."""
        rest = self.drain()
        if rest:
            self._inner, self._asked = BytesIO(rest), Body(0)
        return rest is not None

    def _noted(self, chunk: bytes, at_end_if_empty: bool) -> bytes:
        asked = self._asked
        if not asked.complete:
            if self._length is None:
                more = bool(chunk) or not at_end_if_empty
            else:
                more = asked.size + len(chunk) < self._length
            asked.add(chunk, more)
        return chunk
