"""Which hosts the engine calls (`--allow-host`; private addresses, DNS rebinding): decided by the
address that is really connected to.

A name is looked up here, each of its addresses is judged, and only those that passed are connected
to: so a name whose addresses change between a check and the connection (DNS rebinding)
gains nothing. Redirects are never followed.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from urllib.parse import urlsplit

from stephttp.engine.model.settings import Settings
from stephttp.errors import ConfigurationError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_RULE = re.compile(r"(?P<host>\[[^\]]*\]|[^:]*|[^\]]*:[^\]]*:[^\]]*)(?::(?P<port>\d{1,5}))?")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"\*|(?:\*\.)?{_LABEL}(?:\.{_LABEL})*\.?")
_NAT64 = IPv6Network("64:ff9b::/96")
_LARGEST_PORT = 65535
_LONGEST_RULE = 300
"""Characters; names have up to 253."""


class EgressError(Exception):
    """A host has no address, or none that may be called."""


class UnknownHostError(EgressError):
    """The addresses of a host cannot be looked up."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of `Settings.allow_hosts`: a name or a network, with or without a port."""

    name: str = ""
    network: Network | None = None
    port: int | None = None

    def is_for(self, host: str, port: int) -> bool:
        """Say whether a name rule is about this host and port."""
        if self.port not in (None, port) or not self.name:
            return False
        if self.name.startswith("*"):
            return host.endswith(self.name[1:])
        return host == self.name

    def holds(self, address: Address, port: int) -> bool:
        """Say whether a network rule is about this address and port."""
        return (
            self.network is not None
            and self.port in (None, port)
            and address.version == self.network.version
            and address in self.network
        )


def parse_rule(text: str) -> Rule:
    """Read `app.example.com`, `*.example.com`, `*`, `10.0.0.7`, `10.0.0.0/8`, `[::1]`, each with
    or without `:port`.

    Raises:
        ConfigurationError: it is not one of these.
    """
    wrong = ConfigurationError(
        f"allow-host: {text!r} is not a host such as app.example.com, *.example.com, *, 10.0.0.7, "
        "10.0.0.0/8 or [::1], with or without :port"
    )
    match = _RULE.fullmatch(text.strip().lower()) if len(text) <= _LONGEST_RULE else None
    if match is None:
        raise wrong
    host, port = match["host"], int(match["port"]) if match["port"] else None
    if port is not None and not 0 < port <= _LARGEST_PORT:
        raise wrong
    try:
        return Rule(network=ip_network(host.strip("[]")), port=port)
    except ValueError:
        if _NAME.fullmatch(host) is None or re.fullmatch(r"[0-9.]+", host):
            raise wrong from None
    return Rule(name=host.removesuffix("."), port=port)


class Egress:
    """Judges hosts and their addresses.

    A named host is trusted with whatever public or private address its name has, except with
    link-local and other special ones; behind `*` only with public ones. The addresses of a
    network rule are trusted under any name. Without rules every public address is.

    Args:
        rules: what is allowed; without rules, everything that is public.
        private: whether addresses that are not public need no rule.
    """

    def __init__(self, rules: Sequence[Rule], private: bool) -> None:
        self._names = [rule for rule in rules if rule.name]
        self._networks = [rule for rule in rules if rule.network]
        self._private = private
        # Applications are few, and each of their checkpoints names its origin.
        self.refuse_origin = lru_cache(maxsize=1024)(self._refuse_origin)

    @classmethod
    def of(cls, settings: Settings) -> Egress:
        """As the settings say."""
        return cls([parse_rule(text) for text in settings.allow_hosts], settings.private_hosts)

    def _refuse_origin(self, origin: str) -> str | None:
        """Return why an origin cannot be called, as far as that is known without a look-up."""
        parts = urlsplit(origin)
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            return self.refuse(host, port, ip_address(host))
        except ValueError:
            return self.refuse_name(host, port)

    def refuse_name(self, host: str, port: int) -> str | None:
        """Return why no address of a name can be called; `None` if one can."""
        named = any(rule.is_for(_canonical(host), port) for rule in self._names)
        if named or self._networks or not self._names:
            return None
        return f"{host}:{port} is not an allowed host (see --allow-host)"

    def refuse(self, host: str, port: int, address: Address) -> str | None:
        """Return why an address of a host cannot be called; `None` if it can."""
        if any(rule.holds(one, port) for rule in self._networks for one in _meant(address)):
            return None
        mine = [rule for rule in self._names if rule.is_for(_canonical(host), port)]
        if (self._names or self._networks) and not mine:
            return f"{host}:{port} ({address}) is not an allowed host (see --allow-host)"
        if self._private or _is_public(address):
            return None
        if not _is_special(address) and any(not rule.name.startswith("*") for rule in mine):
            return None
        return (
            f"{host}:{port} has the address {address}, which is not public; "
            f"--allow-host {address} would allow it"
        )

    async def addresses(self, host: str, port: int) -> list[str]:
        """Return the allowed addresses of a host, at least one, in the system's order.

        Raises:
            EgressError: there is no such address.
        """
        refusal = self.refuse_name(host, port) if not _is_literal(host) else None
        if refusal:
            raise EgressError(refusal)
        try:
            addresses = await _look_up(host, port)
        except (OSError, UnicodeError) as error:
            raise UnknownHostError(f"cannot look up {host}: {error}") from error
        refusals = {
            address: self.refuse(host, port, ip_address(address.partition("%")[0]))
            for address in addresses
        }
        allowed = [address for address in addresses if not refusals[address]]
        if not allowed:
            reasons = (text for text in refusals.values() if text)
            raise EgressError(next(reasons, f"{host} has no address"))
        return allowed


async def _look_up(host: str, port: int) -> list[str]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _canonical(host: str) -> str:
    return host.lower().removesuffix(".")


def _is_literal(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _meant(address: Address) -> list[Address]:
    """Return an address, and the IPv4 addresses that it may lead to through a gateway."""
    if isinstance(address, IPv4Address):
        return [address]
    inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64:
        inner.append(IPv4Address(int(address) & 0xFFFFFFFF))
    return [address, *(one for one in inner if one is not None)]


def _is_public(address: Address) -> bool:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    # The mapped form itself counts as private whatever is in it.
    judged = [mapped] if mapped else _meant(address)
    return all(one.is_global and not one.is_multicast for one in judged)


def _is_special(address: Address) -> bool:
    """Neither public nor an ordinary private or loopback address: the cloud's metadata, say."""
    return any(
        one.is_link_local or one.is_multicast or one.is_unspecified for one in _meant(address)
    )
