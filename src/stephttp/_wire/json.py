"""JSON of structs."""

from __future__ import annotations

import msgspec

encode_struct = msgspec.json.Encoder().encode
"""Encode structs of the protocol, which hold nothing but JSON."""
