"""Settings of the SDK, frozen. The only reader of the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct, field

from stephttp._core.checkpointing import Checkpointing
from stephttp._core.endpoint_options import (
    AsyncResponse,
    AsyncResponseCustom,
    AsyncResponseRedirect,
    AsyncResponseToken,
)
from stephttp._wire import capsule
from stephttp._wire.http import TOKEN, Request
from stephttp._wire.signatures import hash_key
from stephttp.errors import ConfigurationError
from stephttp.middleware import MiddlewareFactory

DEV_URL = "http://127.0.0.1:8288"
CLOUD_URL = "https://api.inngest.com"
CLOUD_EVENT_URL = "https://inn.gs"
DEV_EVENT_KEY = "NO_EVENT_KEY_SET"
"""A development server takes any; this one says what it stands for, as in the other SDKs."""
MAX_BODY_BYTES = 2 * 1024 * 1024
"""A checkpoint may have 4 MiB (docs/protocol.md 10); base64 adds a third, steps need the rest."""

DEFAULT_RESTORE_HEADERS = frozenset(name.decode() for name in capsule.DEFAULT_HEADERS)
"""Request headers that a re-entry gets back, unless `restore_headers` says otherwise."""

DEFAULT_ASYNC_RESPONSE = AsyncResponseRedirect()

_SECRETS = frozenset({"signing_key", "signing_key_fallback", "event_key"})
_PATH = re.compile(r"/[!$&'()*+,;=:@/0-9A-Za-z._~-]+")


class Settings(Struct, frozen=True):
    """What `stephttp.setup` resolved, from its arguments first and the environment second."""

    domain: str
    """Origin at which the server re-enters this API, `scheme://host[:port]`."""
    base_url: str
    """Origin of the engine or Inngest server."""
    dev: bool
    """Development: no signatures are checked."""
    signing_key: str = ""
    signing_key_fallback: str = ""
    event_key: str = ""
    """For sending events; empty if none is configured."""
    event_base_url: str = ""
    """Origin to which events are sent; empty: that of Inngest's cloud with its API, else
    `base_url`."""
    max_body_bytes: int = MAX_BODY_BYTES
    """The largest request body (bytes) of a run that may wait, and of a response that is kept."""
    env: str = ""
    """Name of the branch environment, sent as `x-inngest-env`."""
    origin_from_request: bool = False
    """Development without `serve_origin`: the request says where it can be re-entered."""
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    restored_headers: frozenset[bytes] = capsule.DEFAULT_HEADERS
    """Request headers that a re-entry gets back; the secret ones only where they can be sealed."""
    result_path: str = ""
    """Where this API serves the results of its runs; empty: the server does."""
    track_all_endpoints: bool = False
    record_inputs: bool = False
    """Send what steps are called with, for people to look at."""
    default_async_response: AsyncResponse = DEFAULT_ASYNC_RESPONSE
    checkpointing: Checkpointing = Checkpointing.performant
    idempotency_header: str = ""
    """Lower case; empty: no header is looked at."""
    idempotency: Callable[[Request], str | None] | None = None
    middleware: tuple[MiddlewareFactory, ...] = ()

    def __repr__(self) -> str:
        return _without_secrets(self)

    @property
    def keys(self) -> tuple[str, ...]:
        """The signing keys that are set, in the order in which they are tried."""
        return tuple(key for key in (self.signing_key, self.signing_key_fallback) if key)

    @property
    def event_origin(self) -> str:
        """Where events go; empty for `base_url`."""
        return self.event_base_url or (CLOUD_EVENT_URL if self.base_url == CLOUD_URL else "")

    @property
    def api_headers(self) -> dict[str, str]:
        """What every call of the checkpoint API carries."""
        return {"x-inngest-env": self.env} if self.env else {}


class OptionalSetupOpts(Struct, frozen=True):
    """The optional part of `SetupOpts`; see `setup` for what each of them means."""

    track_all_endpoints: bool = False
    default_async_response: AsyncResponse | None = None
    signing_key: str | None = None
    signing_key_fallback: str | None = None
    base_url: str | None = None
    middleware: Sequence[MiddlewareFactory] = ()

    def __repr__(self) -> str:
        return _without_secrets(self)


class SetupOpts(Struct, frozen=True):
    """The arguments of `setup` as one value, as the Go package has them.

    Attributes:
        domain: see `setup`.
        optional: the rest.
    """

    domain: str
    optional: OptionalSetupOpts = field(default_factory=OptionalSetupOpts)


def resolve(
    domain: str,
    *,
    signing_key: str | None = None,
    signing_key_fallback: str | None = None,
    base_url: str | None = None,
    event_key: str | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
    env: str | None = None,
    restore_headers: Collection[str] | None = None,
    result_path: str | None = None,
    serve_origin: str | None = None,
    trusted_proxies: Iterable[str] = (),
    track_all_endpoints: bool = False,
    default_async_response: AsyncResponse | None = None,
    checkpointing: Checkpointing = Checkpointing.performant,
    idempotency_header: str | None = None,
    idempotency: Callable[[Request], str | None] | None = None,
    middleware: Sequence[MiddlewareFactory] = (),
    record_inputs: bool | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Fill in what was not given from the `INNGEST_*` variables.

    Raises:
        ConfigurationError: a value makes no sense; the message names it.
    """
    development = environ.get("INNGEST_DEV", "")
    dev = development.lower() not in ("", "0", "false", "no", "off")
    if not base_url:
        base_url = environ.get("INNGEST_BASE_URL", "")
    if not base_url:
        base_url = CLOUD_URL if not dev else development if "://" in development else DEV_URL
    if max_body_bytes <= 0:
        raise ConfigurationError(f"max_body_bytes must be positive, not {max_body_bytes}")
    origin = _origin("domain", _with_scheme(domain))
    if serve_origin:
        origin = _origin("serve_origin", _with_scheme(serve_origin))
    if idempotency_header is not None and not TOKEN.fullmatch(idempotency_header):
        raise ConfigurationError(
            f"idempotency_header: {idempotency_header!r} is not a header name such as "
            "'Idempotency-Key'"
        )
    if idempotency_header is not None and idempotency is not None:
        raise ConfigurationError(
            "idempotency_header and idempotency are two ways to find a key; give one of them"
        )
    settings = Settings(
        domain=origin,
        base_url=_origin("base_url", base_url),
        dev=dev,
        signing_key=_or_env(signing_key, environ, "INNGEST_SIGNING_KEY"),
        signing_key_fallback=_or_env(signing_key_fallback, environ, "INNGEST_SIGNING_KEY_FALLBACK"),
        event_key=_or_env(event_key, environ, "INNGEST_EVENT_KEY"),
        max_body_bytes=max_body_bytes,
        env=_header_value("env", _or_env(env, environ, "INNGEST_ENV")),
        origin_from_request=dev and not serve_origin,
        trusted_proxies=tuple(_network(text) for text in _several(trusted_proxies)),
        restored_headers=_names(restore_headers),
        result_path=_path(result_path or ""),
        track_all_endpoints=track_all_endpoints,
        # A middleware may be there to encrypt what steps give; it does not see their input.
        record_inputs=(dev and not middleware) if record_inputs is None else record_inputs,
        default_async_response=check_async_response(
            "default_async_response", default_async_response or DEFAULT_ASYNC_RESPONSE
        ),
        checkpointing=checkpointing,
        idempotency_header=(idempotency_header or "").lower(),
        idempotency=idempotency,
        middleware=_middleware(middleware),
    )
    for key in settings.keys:
        try:
            hash_key(key)
        except ValueError as error:
            raise ConfigurationError(f"signing_key: {error}") from None
    return settings


def _without_secrets(options: Struct) -> str:
    shown = [name for name in options.__struct_fields__ if name not in _SECRETS]
    values = ", ".join(f"{name}={getattr(options, name)!r}" for name in shown)
    return f"{type(options).__name__}({values})"


def _or_env(value: str | None, environ: Mapping[str, str], name: str) -> str:
    return environ.get(name, "") if value is None else value


def _origin(name: str, url: str) -> str:
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


def check_async_response(name: str, value: Any) -> AsyncResponse:
    """Refuse what is none, such as the class instead of an instance.

    Raises:
        ConfigurationError: names the option.
    """
    if not isinstance(value, AsyncResponseRedirect | AsyncResponseToken | AsyncResponseCustom):
        raise ConfigurationError(
            f"{name}: {value!r} is not an AsyncResponseRedirect(), AsyncResponseToken() or "
            "AsyncResponseCustom(function)"
        )
    return value


def _middleware(given: Sequence[MiddlewareFactory]) -> tuple[MiddlewareFactory, ...]:
    found: list[MiddlewareFactory] = []
    for index, one in enumerate(given):
        if not callable(one):
            raise ConfigurationError(
                f"middleware[{index}]: {one!r} is no class and no function; give the class of a "
                "stephttp.Middleware, or a function that makes one from a RunContext"
            )
        if one in found:
            raise ConfigurationError(f"middleware[{index}]: {one!r} is in the list twice")
        found.append(one)
    return tuple(found)


def _with_scheme(url: str) -> str:
    return url if "://" in url else f"https://{url}"


def _header_value(name: str, value: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]*", value):
        raise ConfigurationError(f"{name}: {value!r} must be ASCII without spaces")
    return value


def _several(value: Iterable[str]) -> Iterable[str]:
    return (value,) if isinstance(value, str) else value


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise ConfigurationError(
            f"trusted_proxies: {text!r} is not an address or network such as '10.0.0.0/8': {error}"
        ) from None


def _names(names: Collection[str] | None) -> frozenset[bytes]:
    if names is None:
        return capsule.DEFAULT_HEADERS
    for name in _several(names):
        if not TOKEN.fullmatch(name):
            raise ConfigurationError(f"restore_headers: {name!r} is not a header name")
    return frozenset(name.lower().encode() for name in _several(names))


def _path(path: str) -> str:
    if path and not _PATH.fullmatch(path):
        raise ConfigurationError(
            f"result_path: {path!r} must be a path such as '/_stephttp/result', not percent-encoded"
        )
    return path
