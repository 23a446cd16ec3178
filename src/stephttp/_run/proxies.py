"""Trusted proxies (`trusted_proxies`): what their headers say of a request, where it was sent
and by whom.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from stephttp._wire.http import Request

Proxies = Sequence[IPv4Network | IPv6Network]


def origin_before(request: Request, proxies: Proxies, own: tuple[str, str]) -> tuple[str, str]:
    """Return the scheme and the host that a caller has used.

    Args:
        own: those that this server has seen.
    """
    if request.client is None or not _is_trusted(request.client[0], proxies):
        return own
    scheme, host = own
    return (
        _last(request.header(b"x-forwarded-proto")).lower() or scheme,
        _last(request.header(b"x-forwarded-host")) or host,
    )


def caller_before(own: str, request: Request, proxies: Proxies) -> str:
    """Return the address of a caller.

    Args:
        own: the one that this server has seen.
    """
    if _is_trusted(own, proxies):
        # From the right: an address left of the first one that is not a proxy may be made up.
        for text in reversed(request.header(b"x-forwarded-for").split(",")):
            address = text.strip()
            if not _is_trusted(address, proxies):
                return address if _is_address(address) else own
    return own


def _last(value: str) -> str:
    return value.rpartition(",")[2].strip()


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_trusted(text: str, proxies: Proxies) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return False
    return any(address in network for network in proxies)
