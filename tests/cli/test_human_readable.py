from __future__ import annotations

from typing import Any

import pytest

from stephttp.cli import human_readable
from stephttp.cli.printing import local_time

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


def test_what_is_attached_to_a_run_and_may_cancel_it_is_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    score = {"kind": "inngest.score", "values": {"accuracy": 0.75}}
    stop = {"kind": "cancel", "key": "order/stopped", "due_at": None}
    changes = {
        "metadata": [
            {**score, "step_id": None, "step": None},
            {**score, "step_id": "a1", "step": "rate"},
        ],
        "sessions": {"chat": "c1"},
        "limits": [
            {**stop, "condition": None},
            {**stop, "condition": "async.data.id == 'o1'"},
            {"kind": "start", "due_at": ENDED},
            {"kind": "finish", "due_at": ENDED},
        ],
    }
    human_readable.run(DETAIL | changes)
    out = capsys.readouterr().out
    assert 'metadata   inngest.score {"accuracy": 0.75}\n' in out
    assert 'metadata   inngest.score of rate {"accuracy": 0.75}\n' in out
    assert "session    chat c1\n" in out
    assert "may be cancelled by order/stopped\n" in out
    assert "may be cancelled by order/stopped if async.data.id == 'o1'\n" in out
    assert f"may be cancelled if it is not called by {local_time(ENDED)}\n" in out
    assert f"may be cancelled if it has not ended by {local_time(ENDED)}\n" in out
