"""Databases with the sessions of one kind of handler; see `tests.sqlalchemy_kinds`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sqlalchemy_kinds import KINDS, Kind, kind


@pytest.fixture(params=KINDS)
def every(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    """Each kind of database, driver and handler."""
    return kind(request.param, request, tmp_path)


@pytest.fixture(params=["sqlite", "asyncpg"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    """A blocking and an async one."""
    return kind(request.param, request, tmp_path)
