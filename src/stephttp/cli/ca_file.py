"""`--ca-file`: certificates that are trusted beside those of the system."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Annotated

import typer

from stephttp.errors import ConfigurationError

CaFile = Annotated[
    Path | None,
    typer.Option(
        "--ca-file",
        metavar="FILE",
        help="Also trust the certificates in this file (PEM).",
        show_default=False,
    ),
]


def checked(path: Path | None) -> str:
    """Return the path of a file of certificates; empty without one.

    Raises:
        ConfigurationError: it cannot be read, or holds no certificate.
    """
    if path is None:
        return ""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"--ca-file: {str(path)!r} does not hold certificates in PEM: {error.reason}"
        ) from None
    except OSError as error:
        raise ConfigurationError(
            f"--ca-file: cannot read {str(path)!r}: {error.strerror}"
        ) from None
    return str(path)
