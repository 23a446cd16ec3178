"""Reads requests: bodies and their limit, JSON, ids, times, `limit`. Every complaint names
the field.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

import msgspec
from starlette.requests import Request

from stephttp._wire import stored_state
from stephttp._wire.ids import ULID_PATTERN
from stephttp._wire.stored_state import CallId
from stephttp.engine.model.refused import Refused
from stephttp.engine.reading.list_filter import MOST_LISTED

if TYPE_CHECKING:
    from stephttp.engine.engine import Engine

T = TypeVar("T")

_WHERE = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<where>.*)`)?", re.DOTALL)
_ULID = re.compile(ULID_PATTERN, re.ASCII)
_ATTEMPT_LENGTH = 9
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def engine_of(request: Request) -> Engine:
    """Return the engine that serves this application."""
    engine: Engine = request.app.state.engine
    return engine


async def read_body(request: Request, limit: int) -> bytes:
    """Return the whole body.

    Raises:
        Refused: it is longer than `limit`.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(limit: int) -> Refused:
    return Refused(f"body: larger than {limit} bytes", 413)


async def read_json(request: Request, decoder: msgspec.json.Decoder[T], *, empty: bytes = b"") -> T:
    """Return the body, which is JSON and no longer than `Settings.max_body`.

    Args:
        empty: what an empty body stands for.

    Raises:
        Refused: see `read_body` and `decode`.
    """
    body = await read_body(request, engine_of(request).settings.max_body)
    return decode(decoder, body or empty)


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Decode a JSON body.

    Raises:
        Refused: it is not JSON, or does not have the right shape.
    """
    try:
        # The decoder does not check the encoding of parts that it leaves raw.
        body.decode()
        return decoder.decode(body)
    except UnicodeDecodeError as error:
        message = f"body: not UTF-8: {error.reason} at byte {error.start}"
        raise Refused(message, damaged=True) from None  # no SDK sends such JSON
    except msgspec.ValidationError as error:
        match = _WHERE.fullmatch(str(error))
        what, where = match.group("what", "where") if match else (str(error), None)
        raise Refused(f"{where or 'body'}: {what}") from None
    except msgspec.DecodeError as error:
        raise Refused(f"body: invalid JSON: {error}") from None
    except RecursionError:
        raise Refused("body: nested too deeply") from None


def call_of(request: Request) -> CallId | None:
    """Return the call of the engine from which an SDK of stephttp sends a request.

    Raises:
        Refused: the engine has never made a call with such a number.
    """
    names = (*stored_state.CALL_HEADERS, stored_state.PROCESS)
    job, attempt, step, delivery, process = (request.headers.get(name, "") for name in names)
    if not job or not attempt.isdecimal():
        return None
    if len(attempt) > _ATTEMPT_LENGTH:
        field = stored_state.CALL_HEADERS[1]
        raise Refused(f"{field}: more than {_ATTEMPT_LENGTH} digits")
    return CallId(job, int(attempt), step, delivery, process)


def media_type_of(request: Request) -> str:
    """Return the media type of the body, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def parse_run_id(text: str, field: str = "run_id") -> str:
    """Return a run id in its canonical form.

    Raises:
        Refused: it is not a ULID.
    """
    run_id = text.upper()
    if not _ULID.fullmatch(run_id):
        raise Refused(f"{field}: {text[:64]!r} is not a ULID")
    return run_id


def parse_limit(text: str | None) -> int:
    """Return how many items a list may have: 20 by default, and never more than 100.

    Raises:
        Refused: it is not a positive number.
    """
    text = "20" if text is None else text
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
        raise Refused(f"limit: {text[:64]!r} is not a positive number")
    return min(int(text), MOST_LISTED)


def parse_time(text: str, field: str) -> int:
    """Return a time such as `2026-01-31T12:00:00Z` in milliseconds since the epoch.

    Raises:
        Refused: it is not written in this way.
    """
    try:
        when = datetime.fromisoformat(text)
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        # In UTC it must lie within the years that can be written.
        return (when.astimezone(UTC) - _EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        raise Refused(
            f"{field}: {text[:64]!r} is not a time such as 2026-01-31T12:00:00Z"
        ) from None


def parse_optional_time(text: str | None, field: str) -> int | None:
    """Return a time as `parse_time` does, or `None` if the request names none.

    Raises:
        Refused: it is not written as a time.
    """
    return parse_time(text, field) if text else None
