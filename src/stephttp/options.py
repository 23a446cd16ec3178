"""Settings of the SDK, frozen. The only reader of the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from stephttp._core import capsule
from stephttp._core.checkpointing import Checkpointing
from stephttp._core.messages import Request
from stephttp._core.signatures import hash_key
from stephttp.errors import ConfigurationError

DEV_URL = "http://127.0.0.1:8288"
CLOUD_URL = "https://api.inngest.com"
CLOUD_EVENT_URL = "https://inn.gs"
DEV_EVENT_KEY = "NO_EVENT_KEY_SET"
"""A development server takes any; this one says what it stands for, as in the other SDKs."""
MAX_BODY_BYTES = 2 * 1024 * 1024
"""A checkpoint may have 4 MiB (PROTOCOL 10); base64 takes a third on top, steps need the rest."""

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@dataclass(frozen=True, slots=True)
class Settings:
    """What `stephttp.setup` resolved, from its arguments first and the environment second."""

    domain: str
    """Origin of this API, `scheme://host[:port]`: where the server re-enters it."""
    base_url: str
    """Origin of the engine or Inngest server."""
    dev: bool
    """Development: no signatures are checked, and the origin is taken from each request."""
    signing_key: str = field(default="", repr=False)
    signing_key_fallback: str = field(default="", repr=False)
    event_key: str = field(default="", repr=False)
    """For sending events; empty if none is configured."""
    max_body_bytes: int = MAX_BODY_BYTES
    """The largest request body (bytes) of a run that may wait, and of a response that is kept."""
    checkpointing: Checkpointing = Checkpointing.performant
    idempotency_header: str = ""
    """Lower case; empty: no header is looked at."""
    idempotency: Callable[[Request], str | None] | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """The signing keys that are set, in the order in which they are tried."""
        return tuple(key for key in (self.signing_key, self.signing_key_fallback) if key)

    @property
    def event_origin(self) -> str:
        """Where events go; empty for `base_url`. Only Inngest's cloud has a place of its own."""
        return CLOUD_EVENT_URL if self.base_url == CLOUD_URL else ""

    @property
    def restored_headers(self) -> frozenset[bytes]:
        """Request headers that a re-entry gets back.

        Without encryption, secrets travel to a development server only.
        """
        headers = capsule.DEFAULT_HEADERS
        return headers if self.dev else headers - capsule.SECRET_HEADERS


def resolve(
    domain: str,
    *,
    signing_key: str | None = None,
    signing_key_fallback: str | None = None,
    base_url: str | None = None,
    event_key: str | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
    checkpointing: Checkpointing = Checkpointing.performant,
    idempotency_header: str | None = None,
    idempotency: Callable[[Request], str | None] | None = None,
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
    if idempotency_header is not None and not _HEADER.fullmatch(idempotency_header):
        raise ConfigurationError(
            f"idempotency_header: {idempotency_header!r} is not a header name such as "
            "'Idempotency-Key'"
        )
    if idempotency_header is not None and idempotency is not None:
        raise ConfigurationError(
            "idempotency_header and idempotency are two ways to find a key; give one of them"
        )
    settings = Settings(
        domain=_origin("domain", domain if "://" in domain else f"https://{domain}"),
        base_url=_origin("base_url", base_url),
        dev=dev,
        signing_key=_or_env(signing_key, environ, "INNGEST_SIGNING_KEY"),
        signing_key_fallback=_or_env(signing_key_fallback, environ, "INNGEST_SIGNING_KEY_FALLBACK"),
        event_key=_or_env(event_key, environ, "INNGEST_EVENT_KEY"),
        max_body_bytes=max_body_bytes,
        checkpointing=checkpointing,
        idempotency_header=(idempotency_header or "").lower(),
        idempotency=idempotency,
    )
    for key in settings.keys:
        try:
            hash_key(key)
        except ValueError as error:
            raise ConfigurationError(f"signing_key: {error}") from None
    return settings


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
