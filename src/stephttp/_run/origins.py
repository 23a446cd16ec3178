"""Where the server re-enters this API, and who called it. Only configuration is trusted: a request
says it in development, and forwarded headers count when a trusted proxy sent them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address

from stephttp._wire.http import Request
from stephttp.options import Settings

_HOST = re.compile(r"[0-9A-Za-z._-]+(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?")


def origin_of(request: Request, settings: Settings) -> str:
    """The origin that a checkpoint names: `scheme://host[:port]`."""
    if not settings.origin_from_request:
        return settings.domain
    scheme, host = request.scheme, request.header(b"host")
    if _from_proxy(request, settings.trusted_proxies):
        scheme = _last(request.header(b"x-forwarded-proto")).lower() or scheme
        host = _last(request.header(b"x-forwarded-host")) or host
    return _origin(scheme, host) or settings.domain


@lru_cache(maxsize=256)
def _origin(scheme: str, host: str) -> str:
    """Empty if it would be none."""
    if scheme not in ("http", "https") or not _HOST.fullmatch(host):
        return ""
    return f"{scheme}://{host}"


def caller_of(request: Request, settings: Settings) -> str:
    """The address that the request came from; empty when there is none."""
    if request.client is None:
        return ""
    if _from_proxy(request, settings.trusted_proxies):
        # From the right: what is left of the first address that is no proxy, it may have made up.
        for text in reversed(request.header(b"x-forwarded-for").split(",")):
            address = text.strip()
            if not _trusted(address, settings.trusted_proxies):
                return address if _is_address(address) else request.client[0]
    return request.client[0]


def _last(value: str) -> str:
    return value.rpartition(",")[2].strip()


def _from_proxy(request: Request, proxies: Sequence[IPv4Network | IPv6Network]) -> bool:
    return bool(proxies) and request.client is not None and _trusted(request.client[0], proxies)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _trusted(text: str, proxies: Sequence[IPv4Network | IPv6Network]) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return False
    return any(address in network for network in proxies)
