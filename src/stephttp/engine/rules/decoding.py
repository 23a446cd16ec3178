"""Decodes JSON that was sent to the engine; every refusal names the field. Pure."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from stephttp.engine.model.run import Refused

T = TypeVar("T")

_WHERE = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<where>.*)`)?", re.DOTALL)


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Decode a JSON body.

    Raises:
        Refused: it is not JSON, or does not have the right shape.
    """
    try:
        # The decoder passes over what it leaves raw without looking at its encoding.
        body.decode()
        return decoder.decode(body)
    except UnicodeDecodeError as error:
        raise Refused(f"body: not UTF-8: {error.reason} at byte {error.start}") from None
    except msgspec.ValidationError as error:
        match = _WHERE.fullmatch(str(error))
        what, where = match.group("what", "where") if match else (str(error), None)
        raise Refused(f"{where or 'body'}: {what}") from None
    except msgspec.DecodeError as error:
        raise Refused(f"body: invalid JSON: {error}") from None
    except RecursionError:
        raise Refused("body: nested too deeply") from None
