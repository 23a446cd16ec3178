"""Step ids and their hashes on the wire (docs/protocol.md 1.4), the names of reserved ids,
and run ids (ULIDs).
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import sha1


@lru_cache(maxsize=4096)  # an application has few step ids, and meets them in every request
def hash_step_id(step_id: str, index: int = 0) -> str:
    """Return the 40 hex digits that stand for a step on the wire.

    Args:
        step_id: the id that the user wrote.
        index: how often the same id was used before in this run; 0 for the first use.
    """
    # By `+`, because formatting a member of a `(str, Enum)` gives its name.
    text = step_id + f":{index}" if index else step_id
    return sha1(text.encode(), usedforsecurity=False).hexdigest()


ULID_LETTERS = "A-HJKMNP-TV-Z"
ULID_PATTERN = f"[0-7][0-9{ULID_LETTERS}]{{25}}"
"""A ULID as a regular expression: in capitals, as it is written."""

_ULID = re.compile(ULID_PATTERN, re.ASCII | re.IGNORECASE)
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_AS_PYTHON = str.maketrans(_ALPHABET, "0123456789abcdefghijklmnopqrstuv")
_PAIRS = [one + two for one in _ALPHABET for two in _ALPHABET]
_CHARACTER_OF = bytes(ord(_ALPHABET[byte & 31]) for byte in range(256))


def ulid(now_ms: int, entropy: int) -> str:
    """Return the ULID of a time and a number.

    Args:
        now_ms: milliseconds since the epoch, below 2^48.
        entropy: its last 80 bits count.
    """
    return _second(now_ms >> 10) + _PAIRS[now_ms & 1023] + _base32(entropy, 16)


def random_ulid(now_ms: int, noise: bytes) -> str:
    """Return a random ULID. Every request needs one: 0.5 µs, with the library 8 µs.

    Args:
        now_ms: milliseconds since the epoch, below 2^48.
        noise: 16 random bytes, of each of which five bits count.
    """
    time = _second(now_ms >> 10) + _PAIRS[now_ms & 1023]
    return time + noise.translate(_CHARACTER_OF).decode("ascii")


def ulid_number(text: str) -> int:
    """Return the 128 bits of a ULID, which may be in upper or lower case.

    Raises:
        ValueError: `text` is not a ULID.
    """
    if not _ULID.fullmatch(text):
        raise ValueError(f"{text[:64]!r} is not a ULID")
    return int(text.upper().translate(_AS_PYTHON), 32)


def ulid_ms(text: str) -> int:
    """Return the time of a ULID, in milliseconds since the epoch.

    Raises:
        ValueError: `text` is not a ULID.
    """
    return ulid_number(text) >> 80


@lru_cache(maxsize=1)
def _second(number: int) -> str:
    """Return the characters that stay the same for about a second."""
    return _base32(number, 8)


def _base32(number: int, length: int) -> str:
    return "".join([_ALPHABET[number >> 5 * i & 31] for i in reversed(range(length))])


def idempotency_key(run_id: str, step_hash: str) -> str:
    """Return the text by which other services recognise a request that a step makes again."""
    return f"{run_id}-{step_hash}"


COMPLETE = hash_step_id("complete")
"""Id of the op that ends a run, in every SDK."""

RESERVED = "stephttp:"
"""The prefix of the ids of pseudo-steps, which the SDK makes for itself."""

TYPES_NAME = RESERVED + "types:"
"""Beginning of the names of pseudo-steps that keep which types a step returned."""

CUT_NAME = RESERVED + "cut"
"""Name of the pseudo-steps that list the steps which the handler cut off; see `cut_entries`."""
FIRST_CUT = hash_step_id(CUT_NAME)
"""Id of the first of them: without it there are no others."""


@lru_cache(maxsize=4096)
def types_id(step_hash: str) -> str:
    """Return the hash of the pseudo-step that keeps which types the step `step_hash` returned."""
    return hash_step_id(TYPES_NAME + step_hash)


CAPSULE_NAME = RESERVED + "request"
CAPSULE = hash_step_id(CAPSULE_NAME)
"""Id of the pseudo-step that remembers what the server does not restore (docs/design.md 3.3)."""


def is_own(step_hash: str, step_id: str | None) -> bool:
    """Return whether a step is one of the SDK's own, which people neither count nor look at.

    Args:
        step_id: what the SDK says that the user wrote.
    """
    return (step_id is not None and step_id.startswith(RESERVED)) or step_hash == CAPSULE
