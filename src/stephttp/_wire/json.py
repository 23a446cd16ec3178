"""JSON of our own structs."""

from __future__ import annotations

import msgspec

encode_struct = msgspec.json.Encoder().encode
"""Encode our own structs, which hold nothing but JSON."""
