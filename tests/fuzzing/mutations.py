"""Changes what is right into what almost is: JSON, bytes, texts and headers, from a seed."""

from __future__ import annotations

import json
from random import Random
from typing import Any

NASTY: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**400, 1e308, -0.0,
    1.5, "", " ", "null", "a" * 300, "\x00", "\r\nx: y", "\ud800", "é😀", "%00", "..%2f", "{{7*7}}",
    "<script>", "' OR 1=1 --", "1h", "-1h", "9" * 5000 + "h", "2026-02-30T00:00:00Z", "t=1&s=a",
    "Infinity", "NaN", "01M81KWY2JTNRXZTV817ZB746V", "a" * 40, "http://[::1", "http://user:pw@h/",
    "file:///etc/passwd", "stephttp:request", "==", "YQ==", [], {}, [None], [[]], {"": None},
    {"data": None}, {"error": "x"}, {"a": {"b": [1, {"c": "d"}]}}, [1] * 50,
]  # fmt: skip
FRAGMENTS = [
    b"\x00", b"\xff\xfe", b"\r\n", b"{", b"}", b"[" * 500, b'{"a":' * 200, b"NaN", b"1e999", b'"',
    b"\\ud800", b"\\u0000", b",", b"9" * 400, b"null", b"-", b"%", b"%zz", b"../", b";", b"=", b"&",
    b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"'", b"(", b")", b"*", b".", b"true",
]  # fmt: skip


def encode(value: Any) -> bytes:
    """JSON, also of values that are not: lone surrogates, infinities, deep nests."""
    return json.dumps(value).encode()


def nested(rng: Random) -> Any:
    value: Any = 1
    for _ in range(rng.choice([20, 100, 250])):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value


def change_json(rng: Random, value: Any) -> Any:
    """Change a few parts of a value."""
    value = _copy(value)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        try:
            value = _change_one(rng, value)
        except RecursionError:  # nests in nests
            break
    return value


def _copy(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _change_one(rng: Random, value: Any) -> Any:
    holder: list[Any] = [value]
    where: Any = holder
    key: Any = 0
    while isinstance(where[key], dict | list) and where[key] and rng.random() < 0.85:
        where = where[key]
        key = rng.choice([*where]) if isinstance(where, dict) else rng.randrange(len(where))
    kind = rng.randrange(10)
    if kind == 0 and isinstance(where, dict):
        del where[key]
    elif kind == 1 and isinstance(where, dict):
        where[rng.choice(["", "id", "op", "data", "opts", "error", key + "x"])] = where[key]
    elif kind == 2 and isinstance(where, list) and where is not holder:
        where.extend(_copy(where) * rng.choice([1, 5]))
    elif kind == 3:
        where[key] = nested(rng)
    elif kind == 4 and isinstance(where[key], str):
        where[key] = change_text(rng, where[key])
    else:
        where[key] = _copy(rng.choice(NASTY))
    return holder[0]


def change_bytes(rng: Random, data: bytes) -> bytes:
    """Flip, cut, repeat or put something in."""
    for _ in range(rng.choice([1, 1, 2, 4])):
        at, end = sorted((rng.randint(0, len(data)), rng.randint(0, len(data))))
        kind = rng.randrange(6)
        if kind == 0 and data:
            place = min(at, len(data) - 1)
            data = data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
        elif kind == 1:
            data = data[:at] + data[end:]
        elif kind == 2:
            data = data[:end] + data[at:end] + data[end:]
        elif kind == 3:
            data = data[:at]
        else:
            data = data[:at] + rng.choice(FRAGMENTS) + data[at:]
    return data[:200_000]


def change_text(rng: Random, text: str) -> str:
    """The same for a text; what is not UTF-8 afterwards is replaced."""
    return change_bytes(rng, text.encode("utf-8", "replace")).decode("utf-8", "replace")


def change_header(rng: Random, value: bytes) -> bytes:
    """The value of a header, as far as servers of HTTP let it pass."""
    changed = change_bytes(rng, value)
    return bytes(byte for byte in changed if byte >= 0x20 and byte != 0x7F).strip()[:8000]


def body_of(rng: Random, value: Any) -> bytes:
    """A body: right, with other values, or with other bytes."""
    kind = rng.random()
    if kind < 0.1:
        return encode(value)
    if kind < 0.8:
        return encode(change_json(rng, value))
    if kind < 0.97:
        return change_bytes(rng, encode(value))
    return rng.choice([b"", b"null", b"[]", b"{}", b"\xff", b"[" * 10_000, rng.randbytes(64)])
