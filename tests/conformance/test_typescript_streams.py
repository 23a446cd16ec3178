"""The TypeScript SDK's streaming client (`fetchWithStream`) with our endpoints and engine."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from stephttp._wire.ids import hash_step_id
from tests.acceptance.processes import STEPHTTP, Process

from .streaming import TOKENS
from .test_typescript import script

TEXT = "".join(TOKENS)
SPEAK, AGAIN = hash_step_id("speak"), hash_step_id("speak-again")
A, B = hash_step_id("a"), hash_step_id("b")


@pytest.fixture(scope="module")
def apps() -> Generator[tuple[str, str]]:
    """`stephttp dev` with our endpoints beside it; where they are under ASGI, and under WSGI."""
    command = [*STEPHTTP, "dev", "--port", "0", "--"]
    with Process([*command, sys.executable, "-m", "tests.conformance.streaming"]) as dev:
        dev.wait_for(r"engine ready on (http://\S+)")
        found = dev.wait_for(r"listening on (http://\S+) and (http://\S+)")
        yield found[1], found[2]


def follow(app: Path, url: str, times: int = 1, late: int = 0) -> list[dict[str, Any]]:
    """What the client got, each time."""
    told: list[dict[str, Any]] = script(app, "follow_many.mjs", url, str(times), str(late))
    assert len(told) == times
    return told


def test_a_stream_without_a_wait(apps: tuple[str, str], typescript_app: Path) -> None:
    (told,) = follow(typescript_app, f"{apps[0]}/inline")
    assert told["got"] == [
        "metadata",
        ["begin", None],
        *([token, SPEAK] for token in TOKENS),
        ["commit", SPEAK],
    ]
    assert (told["status"], told["body"], told["headers"]["x-mine"]) == (201, "done", "yes")
    assert "redirect" not in told


@pytest.mark.parametrize("server", [0, 1], ids=["asgi", "wsgi"])
def test_a_client_far_away_loses_nothing(
    apps: tuple[str, str], typescript_app: Path, server: int
) -> None:
    """Nor does one who comes after the end."""
    times = 100 if server == 0 else 10
    expected = [
        "metadata",
        ["begin", None],
        *([token, SPEAK] for token in TOKENS),
        ["commit", SPEAK],
        "metadata",
        *([token, AGAIN] for token in TOKENS),
        ["commit", AGAIN],
        ["end", None],
    ]
    for told in follow(typescript_app, f"{apps[server]}/chat", times, late=100):
        assert told["got"] == expected
        assert told["status"] == told["late"]["status"] == 200
        assert json.loads(told["body"]) == {"texts": [TEXT, TEXT]}
        assert told["late"]["body"] == told["body"]
        assert told["late"]["data"] == ["begin", *TOKENS, *TOKENS, "end"]


def test_what_a_retried_step_pushed_is_taken_back(
    apps: tuple[str, str], typescript_app: Path
) -> None:
    (told,) = follow(typescript_app, f"{apps[0]}/retried?key=KEY")
    assert [entry for entry in told["got"] if entry != "metadata"] == [
        ["a0", A], ["a1", A], ["rollback", A],
        ["a0", A], ["a1", A], ["a2", A], ["commit", A],
        ["b0", B], ["b1", B], ["rollback", B],
        ["b0", B], ["b1", B], ["b2", B], ["commit", B],
    ]  # fmt: skip
    assert json.loads(told["body"]) == "said"


def test_a_run_that_fails_has_one_answer(apps: tuple[str, str], typescript_app: Path) -> None:
    answers = {
        (told["status"], told["body"], told["late"]["body"])
        for told in follow(typescript_app, f"{apps[0]}/fails", times=5)
    }
    assert answers == {(500, "Internal Server Error", "Internal Server Error")}
