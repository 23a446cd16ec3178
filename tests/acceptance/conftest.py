"""What the acceptance tests share."""

from __future__ import annotations

from collections.abc import Generator
from functools import cache

import httpcore2
import pytest


@pytest.fixture(scope="module", autouse=True)
def _certificates() -> Generator[None]:
    """Read the system's certificates once a module: that takes 30 ms, each client reads them
    again, and no test here speaks with anything that has one. Tests elsewhere do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpcore2, "default_ssl_context", cache(httpcore2.default_ssl_context))
        yield
