"""`--rate-limit`: how many requests a client may send, one token bucket for each address."""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address

_MOST_CLIENTS = 20_000
_SUBNET_BITS = 64


class Buckets:
    """A bucket holds up to `burst` tokens, and `rate` more flow into it each second.

    Args:
        rate: requests a second; 0 means any number.
        burst: requests that may come at once.
    """

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        # Address -> tokens, and when that was. The one that was used longest ago comes first, and
        # is forgotten first, so that an attacker with many addresses cannot fill the memory.
        self._buckets: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def take(self, client: str, now_ms: int) -> float:
        """Let one request through (0), or say in how many seconds the next one may come."""
        if self._rate <= 0:
            return 0.0
        key = _key(client)
        tokens, since_ms = self._buckets.get(key, (float(self._burst), now_ms))
        tokens = min(self._burst, tokens + max(0, now_ms - since_ms) / 1000 * self._rate)
        allowed = tokens >= 1
        self._buckets[key] = (tokens - 1 if allowed else tokens, now_ms)
        self._buckets.move_to_end(key)
        if len(self._buckets) > _MOST_CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - tokens) / self._rate


def _key(client: str) -> str:
    """The address; of IPv6 the network, because one client has all the addresses in it."""
    try:
        address = ip_address(client)
    except ValueError:
        return client
    if isinstance(address, IPv6Address) and not address.ipv4_mapped:
        return str(int(address) >> 128 - _SUBNET_BITS)
    return client
