"""The event keys with which `stephttp start` starts: those that an Inngest server had, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from stephttp.cli.engine_options import StartOptions
from stephttp.cli.start_command import resolve
from stephttp.errors import ConfigurationError

KEYS = {"INNGEST_SIGNING_KEY": "ab" * 32}


@pytest.mark.parametrize("key", ["k", "local", "a.b_c~d-1", "k" * 1000])
def test_a_key_may_have_any_length(tmp_path: Path, key: str) -> None:
    environ = {**KEYS, "INNGEST_EVENT_KEY": key}
    assert resolve(StartOptions(db=tmp_path / "db"), environ).event_keys == (key,)


@pytest.mark.parametrize("key", ["a/b", "a b", "é", "a?b", "a%41"])
def test_a_key_must_fit_into_an_address(tmp_path: Path, key: str) -> None:
    environ = {**KEYS, "INNGEST_EVENT_KEY": key}
    with pytest.raises(ConfigurationError, match="event key 1 must consist of") as caught:
        resolve(StartOptions(db=tmp_path / "db"), environ)
    assert key not in str(caught.value)
