"""What both kinds of calls need: bodies that pass by, and what an exception means."""

from __future__ import annotations

import logging
from urllib.parse import quote

from stephttp._client.api_calls import SDK
from stephttp._run.scope import RunScope
from stephttp._wire.http import Headers
from stephttp.errors import Suspended

logger = logging.getLogger("stephttp")

MARK = "stephttp.run_id"
"""Key of a scope or environ that passes through us."""

PLAIN_TEXT = ((b"content-type", b"text/plain; charset=utf-8"),)
SDK_HEADER = (b"x-inngest-sdk", SDK.encode())


_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))


def on_the_line(raw: bytes) -> str:
    """A part of the request line as it came, but for bytes that RFC 3986 has no place for: some
    clients send UTF-8 there. Encoded by percent signs they mean the same to every server."""
    return raw.decode("ascii") if raw.isascii() else quote(raw, safe=_PRINTABLE)


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
        """It says of itself that it has so many bytes, which is beyond the limit."""
        self.size = size
        self.overflown = True
        self._chunks.clear()

    def join(self) -> bytes:
        return b"".join(self._chunks)


def own_error(scope: RunScope, error: BaseException | None) -> BaseException | None:
    """What ended the handler of a run, if it is the application's own: not when it is the echo of
    a suspension, in whatever wrapping."""
    run = scope.run
    run.end()
    if not run.suspended:
        return error
    if error is not None and not _echoes_suspension(error):
        logger.warning(
            "stephttp: run %s waits for a step; what its handler raised meanwhile is dropped, and "
            "will be raised again if it still applies then", run.run_id, exc_info=error,
        )  # fmt: skip
    return None


def _echoes_suspension(error: BaseException) -> bool:
    """Task groups wrap what ends their tasks, next to what they make of it themselves."""
    if isinstance(error, BaseExceptionGroup):
        return any(_echoes_suspension(inner) for inner in error.exceptions)
    from asyncio import CancelledError  # absent where no loop is

    return isinstance(error, CancelledError | Suspended)


def marks(run_id: str) -> Headers:
    """The two headers that every response of a durable application carries."""
    return [(b"x-run-id", run_id.encode("latin-1")), SDK_HEADER]
