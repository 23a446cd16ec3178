"""Settings of the SDK, frozen: made of what `setup` is given (`setup_options`) and of
environment variables (`INNGEST_*`), which no other module reads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Unpack

from msgspec import Struct

from stephttp._core import checks
from stephttp._core.checkpointing import Checkpointing
from stephttp._core.conversion import CONVERSIONS
from stephttp._core.endpoint_options import AsyncResponse, AsyncResponseRedirect, OnDivergence
from stephttp._wire import capsule
from stephttp._wire.http import Request, Response
from stephttp._wire.progress import WaitingRun
from stephttp._wire.result_address import HOLD
from stephttp.errors import ConfigurationError
from stephttp.middleware import MiddlewareFactory
from stephttp.setup_options import OptionalSetupOpts, SetupOptions, SetupOpts, merged

__all__ = ["OptionalSetupOpts", "Settings", "SetupOptions", "SetupOpts", "resolve"]

DEV_URL = "http://127.0.0.1:8288"
CLOUD_URL = "https://api.inngest.com"
CLOUD_EVENT_URL = "https://inn.gs"
DEV_EVENT_KEY = "NO_EVENT_KEY_SET"
"""A development server takes any; this one says what it stands for, as in the other SDKs."""
MAX_BODY_BYTES = 8 * 1024 * 1024
"""Base64 adds a third; the stephttp engine reads 16 MiB. An Inngest server reads less: see
`Checkpoints.largest_body`."""

_FROZEN_HOST = "AWS_LAMBDA_FUNCTION_NAME"
"""Set where processes stand still between requests."""

DEFAULT_RESTORE_HEADERS = frozenset(name.decode() for name in capsule.DEFAULT_HEADERS)
"""Request headers that a re-entry gets back, unless `restore_headers` says otherwise."""

DEFAULT_ASYNC_RESPONSE = AsyncResponseRedirect()


class Settings(Struct, frozen=True):
    """The settings that `stephttp.setup` made of its arguments and the environment."""

    domain: str
    """Origin at which the server re-enters this API, `scheme://host[:port]`."""
    base_url: str
    """Origin of the engine or Inngest server."""
    dev: bool
    """Development: calls need no signature. Beside a signing key they do, unless the server says
    that it is one for development."""
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
    public_origin: str = ""
    """Origin at which callers reach this API."""
    serves_at_proxy: bool = False
    """There is a `serve_origin`."""
    serve_prefix: str | None = None
    """What the server puts in front of paths; `None`: what the application says of them."""
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    restored_headers: frozenset[bytes] = capsule.DEFAULT_HEADERS
    """Request headers that a re-entry gets back; the secret ones only where they can be sealed."""
    result_path: str = ""
    """Where this API serves the results of its runs; empty: the server does."""
    hold: float = HOLD
    """Seconds that a caller is held there."""
    waiting_page: Callable[[WaitingRun], str | Response] | None = None
    track_all_endpoints: bool = False
    record_inputs: bool = False
    """Send what steps are called with, for people to look at."""
    background: bool = True
    """Deliver finished runs in the background."""
    on_divergence: OnDivergence = "warn"
    default_async_response: AsyncResponse = DEFAULT_ASYNC_RESPONSE
    checkpointing: Checkpointing = Checkpointing.performant
    idempotency_header: str = ""
    """Lower case; empty: no header is looked at."""
    idempotency: Callable[[Request], str | None] | None = None
    idempotency_scope: Callable[[Request], str | None] | None = None
    middleware: tuple[MiddlewareFactory, ...] = ()
    retry_policy: dict[str, Any] = {}
    """How failures are retried, as options of every endpoint."""

    def __repr__(self) -> str:
        return checks.without_secrets(self)

    @property
    def keys(self) -> tuple[str, ...]:
        """The signing keys that are set, in the order in which they are tried."""
        return tuple(key for key in (self.signing_key, self.signing_key_fallback) if key)

    @property
    def needs_run_at_once(self) -> bool:
        """Whether every request has a run, even before its handler comes to a step."""
        return bool(self.middleware or self.track_all_endpoints or self.has_keys)

    @property
    def has_keys(self) -> bool:
        """Whether a request may have an idempotency key before its handler runs."""
        return bool(self.idempotency_header or self.idempotency)

    @property
    def event_origin(self) -> str:
        """Where events go; empty for `base_url`."""
        return self.event_base_url or (CLOUD_EVENT_URL if self.base_url == CLOUD_URL else "")

    @property
    def api_headers(self) -> dict[str, str]:
        """The headers of every call of the checkpoint API."""
        return {"x-inngest-env": self.env} if self.env else {}


def resolve(
    domain: str | SetupOpts,
    *,
    environ: Mapping[str, str] = os.environ,
    **given: Unpack[SetupOptions],
) -> Settings:
    """Check what was given, and fill in the rest from the `INNGEST_*` variables.

    Raises:
        ConfigurationError: a value makes no sense; the message names it.
        TypeError: an option does not exist.
    """
    for name in given.keys() - SetupOptions.__annotations__.keys():
        raise TypeError(f"setup() got an unexpected keyword argument {name!r}")
    if isinstance(domain, SetupOpts):
        given, domain = merged(domain.optional, given), domain.domain
    dev_url = checks.development(environ.get("INNGEST_DEV", ""), DEV_URL)
    dev = dev_url is not None
    serve_origin = given.get("serve_origin")
    own_origin = public_origin = checks.origin("domain", checks.with_scheme(domain))
    if serve_origin:
        own_origin = checks.origin("serve_origin", checks.with_scheme(serve_origin))
    base_url = given.get("base_url") or environ.get("INNGEST_BASE_URL") or dev_url or CLOUD_URL
    max_body_bytes = given.get("max_body_bytes", MAX_BODY_BYTES)
    if max_body_bytes <= 0:
        raise ConfigurationError(f"max_body_bytes must be positive, not {max_body_bytes}")
    idempotency, header = given.get("idempotency"), given.get("idempotency_header")
    if header is not None and idempotency is not None:
        raise ConfigurationError(
            "idempotency_header and idempotency are two ways to find a key; give one of them"
        )
    CONVERSIONS.register(given.get("converters", ()))
    middleware = given.get("middleware", ())
    record_inputs = given.get("record_inputs")
    background = given.get("background")
    settings = Settings(
        domain=own_origin,
        base_url=checks.origin("base_url", base_url),
        dev=dev,
        signing_key=_or_env(given.get("signing_key"), environ, "INNGEST_SIGNING_KEY"),
        signing_key_fallback=_or_env(
            given.get("signing_key_fallback"), environ, "INNGEST_SIGNING_KEY_FALLBACK"
        ),
        event_key=_or_env(given.get("event_key"), environ, "INNGEST_EVENT_KEY"),
        max_body_bytes=max_body_bytes,
        env=checks.header_value("env", _or_env(given.get("env"), environ, "INNGEST_ENV")),
        origin_from_request=dev and not serve_origin,
        public_origin=public_origin,
        serves_at_proxy=bool(serve_origin),
        serve_prefix=checks.prefix("serve_prefix", given.get("serve_prefix")),
        trusted_proxies=checks.networks(given.get("trusted_proxies", ())),
        restored_headers=checks.restored_headers(given.get("restore_headers")),
        result_path=checks.result_path(given.get("result_path") or ""),
        hold=checks.hold(given.get("hold", HOLD)),
        waiting_page=checks.waiting_page(given.get("waiting_page"), given.get("result_path")),
        track_all_endpoints=given.get("track_all_endpoints", False),
        # A middleware may be there to encrypt what steps give; it does not see their input.
        record_inputs=(dev and not middleware) if record_inputs is None else record_inputs,
        background=not environ.get(_FROZEN_HOST) if background is None else background,
        default_async_response=checks.async_response(
            "default_async_response",
            given.get("default_async_response") or DEFAULT_ASYNC_RESPONSE,
        ),
        on_divergence=checks.on_divergence(given.get("on_divergence", "warn")),
        checkpointing=given.get("checkpointing", Checkpointing.performant),
        idempotency_header=checks.header_name("idempotency_header", header),
        idempotency=idempotency,
        idempotency_scope=checks.idempotency_scope(given.get("idempotency_scope")),
        middleware=checks.middleware(middleware),
        retry_policy=checks.retry_policy(given),
    )
    for key in settings.keys:
        checks.signing_key(key)
    return settings


def _or_env(value: str | None, environ: Mapping[str, str], name: str) -> str:
    return (environ.get(name, "") if value is None else value).strip()
