"""The port that the engine listens on: the requested one, or the next free one."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from ipaddress import ip_address

DEFAULT_PORT = 8288
_TRIES = 100


class PortError(Exception):
    """The port or address cannot be used; the message says why and what to do."""


def listen(host: str, port: int | None) -> tuple[socket.socket, str]:
    """Return a listening socket and its URL.

    Args:
        port: 0 lets the kernel choose. `None` means the default port, or the next free one.

    Raises:
        PortError: the requested port is taken, or the address is not this machine's.
    """
    candidates = range(DEFAULT_PORT, DEFAULT_PORT + _TRIES) if port is None else (port,)
    listener = _bind(host, candidates)
    return listener, f"http://{_reachable(host)}:{listener.getsockname()[1]}"


def is_loopback(listener: socket.socket) -> bool:
    """Return whether only this machine can reach it."""
    return ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def _bind(host: str, ports: Iterable[int]) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise PortError(f"cannot listen on host {host!r}: {error.strerror}") from None
    tried: list[int] = []
    for port in ports:
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address[0], port, *address[2:]))
            # Now, not when the server starts: until then another process could take the port.
            listener.listen(2048)
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE:
                raise PortError(f"cannot listen on {host}:{port}: {error.strerror}") from None
            tried.append(port)
        else:
            listener.setblocking(False)
            return listener
    if len(tried) == 1:
        raise PortError(
            f"port {tried[0]} on {host} is taken; choose another one with --port, "
            "or --port 0 for any free one"
        )
    raise PortError(f"ports {tried[0]} to {tried[-1]} on {host} are all taken; use --port 0")


def _reachable(host: str) -> str:
    """Return the name under which processes on this machine reach a server on `host`."""
    if host in ("", "0.0.0.0"):
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host
