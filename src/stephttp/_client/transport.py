"""The HTTP client of the SDK, its timeouts and connection errors. Only this module,
`connection_pool` and `asyncio_connections` name it.

It is imported where it is needed, because importing it takes longer than importing all of stephttp.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextvars import ContextVar
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from stephttp._client.flow import APICall
from stephttp.errors import APIConnectionError, APITimeoutError

if TYPE_CHECKING:
    from http.cookiejar import CookieJar
    from ssl import SSLContext

    import httpx2

KEEP_ALIVE = 5.0
"""Seconds for which an idle connection is kept."""
MOST_IDLE = 100
TIMEOUT = 15.0
"""Seconds for one attempt; connecting alone gets a third of it."""

under_way: ContextVar[APICall | None] = ContextVar("stephttp_call", default=None)
"""The call that is being made, for the log of the client."""


def _without_secrets(record: logging.LogRecord) -> bool:
    """Hide keys and tokens in the URLs that the HTTP client logs."""
    import httpx2

    call = under_way.get()
    if call is not None and isinstance(record.args, tuple):
        record.args = tuple(
            call.shown if isinstance(arg, httpx2.URL) else arg for arg in record.args
        )
    return True


logging.getLogger("httpx2").addFilter(_without_secrets)


def async_client(
    base_url: str, transport: httpx2.AsyncBaseTransport | None, headers: Mapping[str, str]
) -> httpx2.AsyncClient:
    """Make the client of one event loop.

    Args:
        transport: carries requests instead of the network.
        headers: of every request.
    """
    import httpx2

    return httpx2.AsyncClient(
        base_url=base_url,
        transport=transport or _lean_transport(),
        limits=_limits(),
        headers=headers,
        cookies=_no_cookies(),
        timeout=timeout(TIMEOUT),
    )


def sync_client(
    base_url: str, transport: httpx2.BaseTransport | None, headers: Mapping[str, str]
) -> httpx2.Client:
    """Make the client of all threads."""
    import httpx2

    return httpx2.Client(
        base_url=base_url,
        transport=transport,
        limits=_limits(),
        headers=headers,
        cookies=_no_cookies(),
        timeout=timeout(TIMEOUT),
    )


def as_api_error(error: Exception, call: APICall, base_url: str) -> Exception:
    """Return a failure of the client as an `APIError`; any other exception as it is."""
    import httpx2

    if not isinstance(error, httpx2.RequestError):
        return error
    kind = APITimeoutError if isinstance(error, httpx2.ReadTimeout) else APIConnectionError
    return kind(f"{call} ({base_url}): {type(error).__name__}: {error}")


def timeout(seconds: float) -> httpx2.Timeout:
    """Return the timeout of one attempt."""
    import httpx2

    return httpx2.Timeout(seconds, connect=min(seconds, TIMEOUT / 3))


def _lean_transport() -> httpx2.AsyncBaseTransport | None:
    """Return a transport without the library's pool, which is slow with many callers.

    It is `None` where the environment names a proxy, because only the library's pool can use one.
    See `ConnectionPool` for the figures.
    """
    from urllib.request import getproxies  # slow to import

    import httpcore2
    import httpx2

    from stephttp._client.asyncio_connections import AsyncioBackend
    from stephttp._client.connection_pool import ConnectionPool

    if getproxies():
        return None
    context = _trusting(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    transport = httpx2.AsyncHTTPTransport(verify=context)
    make = partial(
        httpcore2.AsyncHTTPConnection,
        ssl_context=context,
        keepalive_expiry=KEEP_ALIVE,
        network_backend=AsyncioBackend(),
    )
    pool: Any = ConnectionPool(make, MOST_IDLE, KEEP_ALIVE)
    transport._pool = pool
    return transport


@lru_cache(maxsize=8)
def _trusting(file: str | None, folder: str | None) -> SSLContext:
    """Return the TLS context of all event loops, since to read the certificates takes 17 ms.

    Args:
        file: the variable of the environment that names others than those of the system.
        folder: likewise.
    """
    import httpx2

    return httpx2.create_ssl_context()


def _no_cookies() -> CookieJar:
    """Return a jar that stays empty: the result of a run has cookies for its own caller."""
    from http.cookiejar import CookieJar, DefaultCookiePolicy  # slow to import

    return CookieJar(DefaultCookiePolicy(allowed_domains=()))


def _limits() -> httpx2.Limits:
    """Return limits that let any number of callers wait for results while runs are reported."""
    import httpx2

    return httpx2.Limits(
        max_connections=None,
        max_keepalive_connections=MOST_IDLE,
        keepalive_expiry=KEEP_ALIVE,
    )
