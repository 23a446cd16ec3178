"""Where keys come from: options, files, variables."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from stephttp.errors import ConfigurationError


def read_keys(
    given: Iterable[str], file: Path | None, from_environment: Iterable[str]
) -> tuple[str, ...]:
    """Keys in the order in which they count: options, file; if there are none, the variables.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    keys = list(given)
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"cannot read the key file {str(file)!r}: {error}") from None
        keys += [line for line in lines if not line.lstrip().startswith("#")]
    if file is None and not keys:
        keys = list(from_environment)
    return tuple(dict.fromkeys(key.strip() for key in keys if key.strip()))
