"""JSON of structs."""

from __future__ import annotations

import msgspec

encode_struct = msgspec.json.Encoder().encode
"""Encode structs of the protocol, which hold nothing but JSON."""

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What reading JSON raises: the second where a text of a typed field is not UTF-8, the third where
it is nested too deeply."""
