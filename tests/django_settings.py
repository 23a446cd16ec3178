"""Settings of Django, which a process has once, exchanged for those of a test."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from asgiref.local import Local
from django.conf import settings
from django.db import connections
from django.urls import clear_url_caches
from django.utils.functional import empty


@contextmanager
def configured(**given: Any) -> Generator[None]:
    """Let Django have these settings, and then those that it had before."""
    before: Any = settings._wrapped  # type: ignore[misc,has-type,unused-ignore]
    _use(empty)
    settings.configure(**given)
    try:
        yield
    finally:
        connections.close_all()
        _use(before)


def _use(wrapped: Any) -> None:
    settings._wrapped = wrapped
    connections._settings = None  # type: ignore[attr-defined]
    connections.__dict__.pop("settings", None)
    connections._connections = Local(thread_critical=True)  # type: ignore[attr-defined]
    clear_url_caches()
