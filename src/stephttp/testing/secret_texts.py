"""The names that say that a value is a secret (`password`, `api_key`), and where such values
stand in a text.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Iterator
from functools import lru_cache

_SECRET = re.compile(
    r"password|passwd|passphrase|passcode|passkey|pwd|secret|token|jwt|bearer|signature|hmac"
    r"|apikey|accesskey|privatekey|signingkey|encryptionkey|sharedkey|masterkey|credential"
    r"|authorization|cookie|sessionid|verificationcode|recoverycode|cardnumber|iban",
)
_SECRET_ALONE = frozenset(
    {"pass", "pin", "otp", "totp", "sig", "cvv", "cvc", "ssn", "pan", "auth", "session"}
)
_NUMBERS = frozenset({"pin", "otp", "totp", "cvv", "cvc", "ssn", "pan", "cardnumber", "password"})
"""Names whose numbers are secret, too; others count something (`prompt_tokens`)."""
_NOTHING = frozenset({"", "none", "null", "true", "false"})
"""Values that hide nothing, whatever their name."""

_NAME = r"(?P<name>[\w.%[\]-]{1,64})"
_PATTERNS = [
    # `name=value`: a query, a form, a setting. A name begins where the text before it ends, so
    # that a long text without any is read once.
    re.compile(
        rf"(?<![\w.%[\]-]){_NAME}=(?P<quote>[\"']?)"
        r"(?P<value>(?<=\")[^\"\r\n]*|(?<=')[^'\r\n]*|[^\s&;,\"'<>()\[\]{}\\]+)"
    ),
    # `"name": "value"`: JSON in other text, or without its end; what Python writes.
    re.compile(
        r"[\"'](?P<name>[^\"'\\\r\n]{1,64})\\*[\"']\s*[:=]\s*b?\\*[\"'](?P<value>[^\"'\\\r\n]+)"
    ),
    # `Name-Of-Header: value`
    re.compile(
        r"(?i)(?<![\w-])(?P<name>\w+-[\w-]{1,64}|authorization|cookie): *(?P<value>[^\r\n,'\"]+)"
    ),
]
_BEARER = re.compile(r"\b(?:Bearer|Basic) +(?P<value>(?=\S*\d|\S{20})[\w.~+/=-]{8,})")
_USER_INFO = re.compile(r"://[^\s/:@?#]*:(?P<value>[^\s/@?#]+)@")
_SCHEME = re.compile(r"(?i)(?P<scheme>[a-z][\w-]*) +(?P<value>\S+)")


@lru_cache(maxsize=4096)
def plain_name(name: str) -> str:
    """Return a name as all its spellings have it: `API-Key`, `api_key` and `apiKey` are one."""
    return re.sub("[^a-z0-9]", "", name.lower())


@lru_cache(maxsize=4096)
def names_secret(plain: str) -> bool:
    """Return whether values under a name are secret; see `plain_name`."""
    return plain in _SECRET_ALONE or bool(_SECRET.search(plain))


def hides_numbers(plain: str) -> bool:
    """Return whether numbers under a name are secret; see `plain_name`."""
    return plain in _NUMBERS


def hides_something(value: str) -> bool:
    """Return whether a value can be a secret at all."""
    return value.lower() not in _NOTHING


def spans(text: str, is_secret: Callable[[str], bool]) -> Iterator[tuple[int, int, str]]:
    """Find the secrets that a text names.

    Args:
        text: the text, such as the message of an error.
        is_secret: whether values under a name are secret.

    Yields:
        Where each begins and ends, and the name that it has there, which may be empty.
    """
    for pattern in _PATTERNS:
        for found in pattern.finditer(text):
            if is_secret(found["name"]):
                yield *found.span("value"), found["name"]
    for pattern in (_BEARER, _USER_INFO):
        for found in pattern.finditer(text):
            yield *found.span("value"), ""


def parts(value: str, name: str) -> Iterator[str]:
    """Yield what is secret by itself in a secret: the parts of a header's value.

    Args:
        value: the secret.
        name: of the field or header, which may be empty.
    """
    if "cookie" in plain_name(name):
        for pair in value.split(";"):
            key, _, inner = pair.strip().partition("=")
            if len(inner) >= 8 or names_secret(plain_name(key)):
                yield inner.strip('"')
            if "set" in plain_name(name):  # its other pairs are attributes
                return
    elif found := _SCHEME.fullmatch(value):
        yield found["value"]
        if found["scheme"].lower() == "basic":
            yield _password(found["value"])


def _password(encoded: str) -> str:
    try:
        return b64decode(encoded, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""
