from __future__ import annotations

from typing import Any

import pytest

from stephttp.cli import human_readable

DETAIL: dict[str, Any] = {
    "run_id": "01M8J1100SQ04HN0KGPMACDA7P", "state": "waiting", "function": "GET /",
    "request": {"method": "GET", "origin": "http://app.test", "path": "/", "query": ""},
    "began_at": "2026-11-28T12:00:00Z", "ended_at": None, "rerun_of": None, "reruns": [],
    "attempt": 0, "retries": 2, "waiting_for": [], "error": None, "last_error": None,
    "step_list": [], "response": None,
}  # fmt: skip
ENDED = "2026-11-28T12:00:01Z"


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({}, False),  # also where a step was tried three times
        ({"attempt": 1}, True),
        ({"state": "failed", "ended_at": ENDED}, False),
        ({"state": "failed", "ended_at": ENDED, "attempt": 2}, False),
    ],
)
def test_the_attempt_of_the_handler_is_shown_while_it_is_one_more(
    changes: dict[str, Any], shown: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    human_readable.run(DETAIL | changes)
    out = capsys.readouterr().out
    assert ("attempt of the handler 2 of 3\n" in out) is shown
    assert ("attempt" in out) is shown
