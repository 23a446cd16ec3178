"""Where the engine's keys come from: options, files, and environment variables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from stephttp.errors import ConfigurationError

SIGNING_KEY = ("INNGEST_SIGNING_KEY", "INNGEST_SIGNING_KEY_FALLBACK")
EVENT_KEY = ("INNGEST_EVENT_KEY",)
METRICS_TOKEN = ("STEPHTTP_METRICS_TOKEN",)
DASHBOARD_PASSWORD = "STEPHTTP_DASHBOARD_PASSWORD"


def read_keys(
    given: Iterable[str] | None,
    file: Path | None,
    environ: Mapping[str, str],
    variables: Iterable[str],
) -> tuple[str, ...]:
    """Return keys in the order in which they count: options, file; else those of the variables.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    keys = list(given or ())
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"cannot read the key file {str(file)!r}: {error}") from None
        keys += [line for line in lines if not line.lstrip().startswith("#")]
    if file is None and not keys:
        keys = [environ.get(name, "") for name in variables]
    return tuple(dict.fromkeys(key.strip() for key in keys if key.strip()))
