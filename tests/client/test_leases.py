"""The thread that renews leases. Nothing here waits for time to pass, only for the thread."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from stephttp._client.leases import Leases
from stephttp.errors import APIConnectionError

SOON = 3
"""Milliseconds of a lease that is renewed at once."""
DEADLINE = 30.0


class Server:
    """Answers renewals from a script, then loses everything."""

    def __init__(self, *answers: list[str] | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[list[str], int]] = []

    def renew(self, run_ids: list[str], length_ms: int) -> list[str]:
        self.asked.append((sorted(run_ids), length_ms))
        answer = self.answers.pop(0) if self.answers else run_ids
        if isinstance(answer, Exception):
            raise answer
        return answer


def ended(leases: Leases) -> None:
    thread = leases._thread
    if thread is not None:
        thread.join(DEADLINE)
        assert not thread.is_alive()


def lost(names: list[str], name: str) -> Callable[[], None]:
    return lambda: names.append(name)


def test_leases_are_renewed_together_until_they_are_lost_and_the_thread_ends() -> None:
    server, names = Server([], ["b"]), list[str]()
    leases = Leases(server.renew)
    with leases._changed:  # both are there before the thread looks
        leases.hold("a", SOON, lost(names, "a"))
        leases.hold("b", SOON, lost(names, "b"))
    ended(leases)
    assert server.asked == [(["a", "b"], SOON), (["a", "b"], SOON), (["a"], SOON)]
    assert names == ["b", "a"]
    assert len(leases) == 0
    assert leases._thread is None


def test_a_failed_renewal_is_logged_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    server, names = Server(APIConnectionError("refused"), ValueError("bug")), list[str]()
    leases = Leases(server.renew)
    leases.hold("a", SOON, lost(names, "a"))
    ended(leases)
    assert len(server.asked) == 3
    assert "the leases of 1 runs could not be renewed: refused" in caplog.text
    assert "bug" in caplog.text
    assert names == ["a"]


def test_a_released_lease_is_not_renewed_and_a_closed_holder_stops() -> None:
    server = Server()
    leases = Leases(server.renew)
    leases.hold("a", 60_000, lambda: None)
    leases.hold("b", 60_000, lambda: None)
    leases.release("a")
    leases.release("unknown")
    assert leases.batches() == {60_000: ["b"]}
    leases.close()
    ended(leases)
    assert server.asked == []


def test_a_shorter_lease_brings_the_renewal_forward() -> None:
    server = Server([], [])
    leases = Leases(server.renew)
    leases.hold("long", 60_000, lambda: None)
    done = threading.Event()
    leases.hold("short", SOON, done.set)
    assert done.wait(DEADLINE)
    assert (["short"], SOON) in server.asked
    leases.close()
    ended(leases)


def test_without_a_thread_somebody_else_renews() -> None:
    names = list[str]()
    leases = Leases(None)
    leases.hold("a", SOON, lost(names, "a"))
    assert leases._thread is None
    leases.drop(["a", "unknown"])
    assert names == ["a"]
