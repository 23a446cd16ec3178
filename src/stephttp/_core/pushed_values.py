"""Values that a handler pushes (`stream.push`), as JSON, in pieces that a server takes."""

from __future__ import annotations

import codecs
from typing import Any

from stephttp._core.encoding import encode_finite


def encode_push(value: Any) -> bytes:
    """Encode a value that is pushed, by the rules for the data of events; bytes are text in UTF-8.

    Raises:
        ValueError: it cannot be JSON, or is bytes that are not UTF-8.
    """
    try:
        if isinstance(value, bytes | bytearray | memoryview):
            value = bytes(value).decode()
        return encode_finite(value)
    except Exception as error:
        raise ValueError(
            f"stream.push: {type(value).__name__} cannot be sent as JSON ({error}); push text, "
            "plain data, dataclasses, msgspec.Struct or pydantic models"
        ) from error


class PushedChunks:
    """The chunks of one source, as they are pushed: of bytes, characters may come in two parts."""

    __slots__ = ("_decoder",)

    def __init__(self) -> None:
        self._decoder: codecs.IncrementalDecoder | None = None

    def next(self, chunk: Any) -> Any:
        """Return what is pushed of a chunk; `None` if it makes nothing whole yet."""
        if not isinstance(chunk, bytes | bytearray | memoryview):
            return chunk
        if self._decoder is None:
            self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        return self._decoder.decode(bytes(chunk)) or None

    def rest(self) -> str | None:
        """Return what is left of the bytes at the end."""
        return None if self._decoder is None else self._decoder.decode(b"", final=True) or None
