"""TLS connections of commands: the certificates to trust, and failures that come of them."""

from __future__ import annotations

import ssl
from typing import Any

import httpx2

TRUST = "--ca-file, SSL_CERT_FILE or SSL_CERT_DIR names the certificates to trust"


def is_of_tls(error: BaseException | None) -> bool:
    """Return whether a connection failed because of TLS: a certificate, a name, a version."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False


def direct_client(ca_file: str, **options: Any) -> httpx2.Client:
    """Make a client that uses no proxy, but trusts the certificates that the environment names.

    Args:
        ca_file: certificates to trust as well; empty: no file.
    """
    context = httpx2.create_ssl_context()
    if ca_file:
        context.load_verify_locations(ca_file)
    return httpx2.Client(trust_env=False, verify=context, **options)
