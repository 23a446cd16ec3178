"""Durations on the command line, such as `1h`."""

from __future__ import annotations

from stephttp._wire.durations import parse_duration
from stephttp.errors import ConfigurationError


def seconds_of(name: str, text: str) -> float:
    """Return an option's value in seconds.

    Raises:
        ConfigurationError: it is not a duration; the message names the option.
    """
    try:
        return parse_duration(text).total_seconds()
    except ValueError as error:
        raise ConfigurationError(f"{name}: {error}") from None


def optional_seconds(name: str, text: str | None) -> float | None:
    """Do the same for an option that may be left out."""
    return None if text is None else seconds_of(name, text)
