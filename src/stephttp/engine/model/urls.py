"""Reads URLs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx2


def read_url(url: Any) -> httpx2.URL:
    """Read a URL.

    Raises:
        TypeError, ValueError: it is not a URL.
    """
    import httpx2  # slow to import, and seldom needed

    try:
        return httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise ValueError(str(error)) from None
