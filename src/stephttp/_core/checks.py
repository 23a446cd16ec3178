"""Checks of what users set (`setup`, `configure`): origins, keys, header names, durations. Each
returns the value as the SDK uses it.

All raise `ConfigurationError` with a message that names the option.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from inspect import iscoroutinefunction
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, TypeVar
from urllib.parse import urlsplit

from msgspec import Struct

from stephttp._core.endpoint_options import (
    AsyncResponse,
    AsyncResponseCustom,
    AsyncResponseRedirect,
    AsyncResponseToken,
    OnDivergence,
)
from stephttp._core.retry_policy import RetryPolicy, checked
from stephttp._wire import capsule
from stephttp._wire.http import TOKEN
from stephttp._wire.result_address import LONGEST_HOLD, SHORTEST_HOLD
from stephttp._wire.signatures import hash_key
from stephttp.errors import ConfigurationError

F = TypeVar("F", bound=Callable[..., Any])

_ON = frozenset({"1", "true", "yes", "on"})
_OFF = frozenset({"", "0", "false", "no", "off"})
_HOST_AND_PORT = re.compile(r"(\[[0-9a-f:.]+\]|[0-9a-z_.-]+):[0-9]{1,5}", re.IGNORECASE)
_PATH = re.compile(r"/[!$&'()*+,;=:@/0-9A-Za-z._~-]+")


def origin(name: str, url: str) -> str:
    """Return `url` as `scheme://host[:port]`."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError as error:
        raise ConfigurationError(f"{name}: {url!r} is not a URL: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(
            f"{name}: {url!r} is not an origin such as 'https://api.example.com'"
        )
    if parts.username or parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigurationError(f"{name}: {url!r} must be an origin only, without user or path")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{port}"


def with_scheme(url: str) -> str:
    """Return `url` with `https://` where it has no scheme."""
    return url if "://" in url else f"https://{url}"


def development(value: str, default: str) -> str | None:
    """Return the engine that `INNGEST_DEV` names; `None` where it is not set, or off.

    Args:
        value: of the variable: a word for on or off, a URL, or `host:port`.
        default: the engine of a value that is only on.
    """
    value = value.strip()
    if value.lower() in _OFF:
        return None
    if value.lower() in _ON:
        return default
    if "://" not in value and not _HOST_AND_PORT.fullmatch(value):
        raise ConfigurationError(
            f"INNGEST_DEV: {value!r} is neither 1 nor 0, nor the address of an engine such as "
            f"{default!r}"
        )
    return origin("INNGEST_DEV", value if "://" in value else f"http://{value}")


def signing_key(key: str) -> str:
    """Refuse a key that is not hexadecimal."""
    try:
        hash_key(key)
    except ValueError as error:
        raise ConfigurationError(f"signing_key: {error}") from None
    return key


def header_value(name: str, value: str) -> str:
    """Refuse what a header cannot carry."""
    if not re.fullmatch(r"[\x21-\x7e]*", value):
        raise ConfigurationError(f"{name}: {value!r} must be ASCII without spaces")
    return value


def header_name(name: str, value: str | None) -> str:
    """Return a header's name in lower case; empty where none is given."""
    if value is not None and not TOKEN.fullmatch(value):
        raise ConfigurationError(
            f"{name}: {value!r} is not a header name such as 'Idempotency-Key'"
        )
    return (value or "").lower()


def restored_headers(names: Collection[str] | None) -> frozenset[bytes]:
    """Return the names of the headers that a re-entry gets back."""
    if names is None:
        return capsule.DEFAULT_HEADERS
    for name in _several(names):
        if not TOKEN.fullmatch(name):
            raise ConfigurationError(f"restore_headers: {name!r} is not a header name")
    return frozenset(name.lower().encode() for name in _several(names))


def networks(given: Iterable[str]) -> tuple[IPv4Network | IPv6Network, ...]:
    """Return the networks of trusted proxies."""
    return tuple(_network(text) for text in _several(given))


def result_path(path: str) -> str:
    """Refuse what is not a path of this API; empty means that it has none."""
    if path and not _PATH.fullmatch(path):
        raise ConfigurationError(
            f"result_path: {path!r} must be a path such as '/_stephttp/result', not percent-encoded"
        )
    return path


def hold(value: timedelta | float) -> float:
    """Return how long a caller is held, in seconds."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if type(seconds) not in (int, float) or not SHORTEST_HOLD <= seconds <= LONGEST_HOLD:
        raise ConfigurationError(
            f"hold: {value!r} must be {SHORTEST_HOLD:g} to {LONGEST_HOLD:g} seconds: clients "
            "follow few redirects, and an Inngest server gives up after five minutes"
        )
    return float(seconds)


def prefix(name: str, path: str | None) -> str | None:
    """Return the beginning of paths, without a slash at its end."""
    if path and not _PATH.fullmatch(path):
        raise ConfigurationError(
            f"{name}: {path!r} must be the beginning of a path such as '/api', not percent-encoded"
        )
    return path and path.rstrip("/")


def waiting_page(value: Any, path: str | None) -> Any:
    """Refuse what is not a plain function, and one for pages that this API does not serve."""
    _plain_function("waiting_page", value, "gets a WaitingRun and returns HTML")
    if value is not None and not path:
        raise ConfigurationError(
            "waiting_page needs result_path: without it, the engine serves results and its own page"
        )
    return value


def async_response(name: str, value: Any) -> AsyncResponse:
    """Refuse what is not a way to answer, such as the class instead of an instance."""
    if not isinstance(value, AsyncResponseRedirect | AsyncResponseToken | AsyncResponseCustom):
        raise ConfigurationError(
            f"{name}: {value!r} is not an AsyncResponseRedirect(), AsyncResponseToken() or "
            "AsyncResponseCustom(function)"
        )
    return value


def on_divergence(value: Any) -> OnDivergence:
    """Refuse what is not one of the ways to deal with a divergence."""
    if value not in ("warn", "fail"):
        raise ConfigurationError(f"on_divergence must be 'warn' or 'fail', not {value!r}")
    found: OnDivergence = value
    return found


def idempotency_scope(value: Any) -> Any:
    """Refuse what is not a plain function of the request."""
    _plain_function("idempotency_scope", value, "gets the request and returns who sent it")
    return value


def _plain_function(name: str, value: Any, does: str) -> None:
    if value is not None and (not callable(value) or iscoroutinefunction(value)):
        raise ConfigurationError(f"{name}: {value!r} is not a plain function that {does}")


def middleware(given: Sequence[F]) -> tuple[F, ...]:
    """Refuse what makes no middleware, and what is listed twice."""
    found: list[F] = []
    for index, one in enumerate(given):
        if not callable(one):
            raise ConfigurationError(
                f"middleware[{index}]: {one!r} is neither a class nor a function; give the class "
                "of a stephttp.Middleware, or a function that makes one from a RunContext"
            )
        if one in found:
            raise ConfigurationError(f"middleware[{index}]: {one!r} is in the list twice")
        found.append(one)
    return tuple(found)


def retry_policy(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return how failures are retried, of all options."""
    fields = RetryPolicy.__struct_fields__
    try:
        return checked(**{name: value for name, value in given.items() if name in fields})
    except (TypeError, ValueError) as error:
        raise ConfigurationError(str(error)) from None


def _several(value: Iterable[str]) -> Iterable[str]:
    return (value,) if isinstance(value, str) else value


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise ConfigurationError(
            f"trusted_proxies: {text!r} is not an address or network such as '10.0.0.0/8': {error}"
        ) from None


_SECRETS = frozenset({"signing_key", "signing_key_fallback", "event_key"})


def without_secrets(options: Struct) -> str:
    """Return what options show of themselves."""
    shown = [name for name in options.__struct_fields__ if name not in _SECRETS]
    values = ", ".join(f"{name}={getattr(options, name)!r}" for name in shown)
    return f"{type(options).__name__}({values})"
