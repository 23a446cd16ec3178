"""Which engine a command speaks with: its address, and the keys."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import httpx2

from stephttp._core import checks
from stephttp._wire.signatures import hash_key
from stephttp.cli import key_sources
from stephttp.cli.ca_file import checked
from stephttp.cli.exits import Exit, RemoteError
from stephttp.cli.key_sources import read_keys
from stephttp.errors import ConfigurationError

DEFAULT_URL = "http://127.0.0.1:8288"


@dataclass(frozen=True)
class Target:
    """The URL and the keys of an engine. `source` says where the URL comes from."""

    url: str
    source: str
    signing_keys: tuple[str, ...] = field(default=(), repr=False)
    event_keys: tuple[str, ...] = field(default=(), repr=False)
    ca_file: str = ""

    @classmethod
    def find(
        cls,
        url: str | None,
        signing_key: str | None = None,
        signing_key_file: Path | None = None,
        event_key: str | None = None,
        event_key_file: Path | None = None,
        ca_file: Path | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> Self:
        """Return the target that options, files and variables name.

        Raises:
            RemoteError: a URL or a key is not valid, or a file cannot be read.
        """
        try:
            found, source = _find_url(url, environ)
        except ConfigurationError as error:
            raise RemoteError(str(error), Exit.USAGE) from None
        try:
            parsed = httpx2.URL(found)
            if parsed.scheme not in ("http", "https") or not parsed.host:
                raise ValueError
        except (ValueError, httpx2.InvalidURL):
            raise RemoteError(
                f"{source}: {found!r} is not a URL such as {DEFAULT_URL}", Exit.USAGE
            ) from None
        try:
            signing = read_keys(
                filter(None, [signing_key]), signing_key_file, environ, key_sources.SIGNING_KEY
            )
            events = read_keys(
                filter(None, [event_key]), event_key_file, environ, key_sources.EVENT_KEY
            )
            for key in signing:
                hash_key(key)
            trusted = checked(ca_file)
        except (ConfigurationError, ValueError) as error:
            raise RemoteError(str(error), Exit.USAGE) from None
        return cls(found.rstrip("/"), source, signing, events, trusted)


def _find_url(given: str | None, environ: Mapping[str, str]) -> tuple[str, str]:
    if given:
        return given, "--url"
    if base_url := environ.get("INNGEST_BASE_URL", "").strip():
        return base_url, "INNGEST_BASE_URL"
    if development := checks.development(environ.get("INNGEST_DEV", ""), DEFAULT_URL):
        return development, "INNGEST_DEV"
    return DEFAULT_URL, "the default"
