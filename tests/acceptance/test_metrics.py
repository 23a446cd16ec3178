"""Who may read the metrics of `stephttp start`, and that they tell of real processes."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from tests.acceptance.processes import STEPHTTP, Process

KEYS = {"INNGEST_SIGNING_KEY": "0a" * 32, "INNGEST_EVENT_KEY": "event-key-of-the-tests"}
TOKEN = "token-of-prometheus"


def start(folder: Path, *options: str) -> list[str]:
    db = str(folder / "runs.db")
    return [*STEPHTTP, "start", "--port", "0", "--db", db, "--log-format", "text", *options]


@pytest.mark.parametrize("way", ["variable", "option", "file", "open", "none"])
def test_who_may_read_them(tmp_path: Path, way: str) -> None:
    file = tmp_path / "token"
    file.write_text(f"# of prometheus\n{TOKEN}\n")
    options = {
        "option": ("--metrics-token", TOKEN),
        "file": ("--metrics-token-file", str(file)),
        "open": ("--open-metrics",),
    }
    environment = {**KEYS, **({"STEPHTTP_METRICS_TOKEN": TOKEN} if way == "variable" else {})}
    with Process(start(tmp_path, *options.get(way, ())), env=environment) as engine:
        url = engine.wait_for(r'engine ready url="(\S+)"')[1] + "/metrics"
        statuses = [
            httpx2.get(url, headers={"authorization": f"Bearer {key}"} if key else {}).status_code
            for key in ("", TOKEN, KEYS["INNGEST_SIGNING_KEY"])
        ]
        assert statuses == {"open": [200, 200, 200], "none": [401, 401, 200]}.get(
            way, [401, 200, 200]
        )
        assert TOKEN not in engine.said()


@pytest.mark.parametrize(
    ("token", "complaint"),
    [("brief", "the metrics token is too short"), (f"{TOKEN}\nanother-{TOKEN}", "more than one")],
)
def test_a_wrong_token_is_named(tmp_path: Path, token: str, complaint: str) -> None:
    file = tmp_path / "token"
    file.write_text(token)
    command = start(tmp_path, "--metrics-token-file", str(file))
    with Process(command, env=KEYS) as engine:
        assert engine.wait() == 2
        assert complaint in engine.err[0]
        assert token not in engine.err[0]
    assert not (tmp_path / "runs.db").exists()
