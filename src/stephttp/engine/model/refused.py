"""Refusing input: the error, and decoding JSON that was sent to the engine.

Every refusal names the field.
"""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from stephttp.errors import StephttpError

T = TypeVar("T")

_WHERE = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<where>.*)`)?", re.DOTALL)


SUPERSEDED = "call: it was given up, and another one has taken its place"
TAKEN = "call: it was delivered twice, and another process works on it"


class Refused(StephttpError):
    """A request cannot be fulfilled; the text names the field.

    Attributes:
        status: the HTTP status that an API caller gets.
        damaged: whether the request was most likely changed on its way, so that it may be accepted
            when it is sent again.
    """

    def __init__(self, message: str, status: int = 400, *, damaged: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.damaged = damaged


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
