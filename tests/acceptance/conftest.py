"""What the acceptance tests share."""

from __future__ import annotations

from collections.abc import Generator
from functools import cache

import httpcore2
import pytest


@pytest.fixture(scope="session", autouse=True)
def _certificates() -> Generator[None]:
    """Read the system's certificates once: that takes 30 ms, each client reads them again, and
    no test speaks with anything that has one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpcore2, "default_ssl_context", cache(httpcore2.default_ssl_context))
        yield
