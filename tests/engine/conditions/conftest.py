"""Each test compiles its conditions anew, whatever earlier tests have compiled."""

from __future__ import annotations

import pytest

from stephttp.engine.rules.conditions import expressions, functions


@pytest.fixture(autouse=True)
def nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expressions, "_KEPT", expressions._Kept(expressions._MOST_KEPT))
    functions._program.cache_clear()
