"""What all tests share: how many examples are made up."""

from __future__ import annotations

from hypothesis import settings

# `make check-long` chooses it. Each run looks elsewhere, which a push must not.
settings.register_profile("long", max_examples=1000, deadline=None, derandomize=False)
