"""Names of the limits of functions, for each value of a key: what is kept of a limit is stored by
its name. Pure.
"""

from __future__ import annotations

from hashlib import sha256

_SHOWN = 200


def limit_name(limit: str, key: str) -> str:
    """Return the name of a limit for a value of its key.

    Args:
        limit: its kind, and who has it: the same for all values.
        key: the value; it may be of any length.
    """
    return f"{limit} {digest(key)}"


def limit_of(name: str) -> str:
    """Return the limit that a name is of, for whatever value."""
    return name.rpartition(" ")[0]


def digest(text: str) -> str:
    """Return a short text in place of one of any length."""
    return sha256(text.encode()).hexdigest()[:32]


def shown_key(key: str) -> str:
    """Return the beginning of the value of a key, for people."""
    return key[:_SHOWN]
