"""How many examples a test makes up, if it does not take as many as Hypothesis would."""

from __future__ import annotations

from hypothesis import settings

LONG = settings.get_current_profile_name() == "long"
"""Whether this is `make check-long`."""


def examples(push: int, long: int) -> int:
    """Return the number for the present run: that of each push, or of `make check-long`."""
    return long if LONG else push
