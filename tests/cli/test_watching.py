"""`stephttp runs watch` and an engine that is away for a moment."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence

import httpx2
import pytest

from stephttp.cli import watching
from stephttp.cli.exits import Exit, RemoteError
from stephttp.cli.remote import Remote
from stephttp.cli.target import Target

RUN = "01HZZZZZZZZZZZZZZZZZZZZZZZ"
OTHER = RUN[:-1] + "0"
Answer = httpx2.Response | Exception

LOST = httpx2.ConnectError("refused")
GONE = httpx2.Response(404, json={"error": "there is no run"})


def seen(state: str, run_id: str = RUN) -> httpx2.Response:
    run = {"run_id": run_id, "state": state, "function": "GET /", "steps": 0, "attempt": 0}
    data = run | {"waiting_for": [], "error": None, "last_error": None}
    return httpx2.Response(200, json={"data": data})


def changes(*run_ids: str) -> httpx2.Response:
    data = json.dumps({"run_ids": run_ids, "events": False, "lost": False})
    return httpx2.Response(200, text=f"event: changes\ndata: {data}\n\n")


@pytest.fixture
def paused(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    return pauses


def engine(streams: Sequence[Answer], looks: Sequence[Answer]) -> Remote:
    """An engine that answers so, one answer after the other; then it is gone for good."""
    following: Iterator[Answer] = iter(streams)
    looking: Iterator[Answer] = iter(looks)

    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/v1/runs":
            return httpx2.Response(200, json={"data": []})
        found = next(following if request.url.path.endswith("/changes") else looking, LOST)
        if isinstance(found, Exception):
            raise found
        return found

    remote = Remote(Target("http://engine.test", "a test"))
    remote.http = httpx2.Client(
        base_url="http://engine.test", transport=httpx2.MockTransport(answer)
    )
    return remote


def test_one_run_is_looked_at_again_after_a_look_that_failed(
    paused: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    looks: list[Answer] = [seen("waiting"), seen("waiting"), LOST, seen("completed")]
    with engine([changes(RUN), changes()], looks) as remote:
        assert watching.follow_run(remote, RUN, as_json=True) is Exit.OK
    assert paused == [0.1]
    told = [json.loads(line)["state"] for line in capsys.readouterr().out.splitlines()]
    assert told == ["waiting", "completed"]


def test_a_run_that_is_deleted_meanwhile_ends_its_watch(paused: list[float]) -> None:
    looks = [seen("waiting"), GONE]
    with engine([changes()], looks) as remote, pytest.raises(RemoteError, match="no run") as error:
        watching.follow_run(remote, RUN, as_json=True)
    assert (error.value.code, paused) == (Exit.FAILED, [])


def test_all_runs_are_followed_past_what_cannot_be_looked_at(
    paused: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    looks: list[Answer] = [GONE, seen("waiting", OTHER), LOST, seen("failed")]
    with (
        engine([changes(RUN, OTHER), changes(RUN), changes(RUN)], looks) as remote,
        pytest.raises(RemoteError) as error,
    ):
        watching.follow_all(remote, as_json=True)
    assert error.value.code is Exit.UNREACHABLE, "at last, after many tries"
    assert paused == [0.5, 0.1, 0.5, 0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0]
    told = [json.loads(line)["run_id"] for line in capsys.readouterr().out.splitlines()]
    assert told == [OTHER, RUN]
