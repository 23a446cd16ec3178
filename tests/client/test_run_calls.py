"""What is asked about runs, in the pure flow: the server and the clock are the test's."""

from __future__ import annotations

import json
import random

import pytest

from stephttp._client.flow import Answer, APICall, Keys, Pause
from stephttp._client.run_calls import result
from stephttp._client.run_results import RunResult
from stephttp._client.transport import TIMEOUT
from stephttp.errors import APIConnectionError, ResultTimeoutError

RUN = "01M8J1100SQ04HN0KGPMACDA7P"


class Server:
    """Takes `seconds` for each answer; the run ends with the answer number `ends`, and has its
    output with one that is `late` later."""

    def __init__(self, seconds: float, ends: int = 0, late: int = 0) -> None:
        self.seconds, self.ends, self.late = seconds, ends, late
        self.now = 100.0
        self.limits: list[float | None] = []

    def ask(self, timeout: float | None) -> RunResult:
        flow = result(RUN, timeout, Keys(), random.Random(1), lambda: self.now)
        wanted = next(flow)
        try:
            while True:
                if isinstance(wanted, Pause):
                    self.now += wanted.seconds
                    wanted = flow.send(None)
                    continue
                assert isinstance(wanted, APICall)
                self.limits.append(wanted.timeout)
                longest = TIMEOUT if wanted.timeout is None else wanted.timeout
                self.now += min(self.seconds, longest)
                if self.seconds > longest:
                    wanted = flow.throw(APIConnectionError("no answer"))
                else:
                    wanted = flow.send(self._answer())
        except StopIteration as end:
            found: RunResult = end.value
            return found

    def _answer(self) -> Answer:
        status = "Completed" if len(self.limits) >= self.ends > 0 else "Running"
        run = {"run_id": RUN, "status": status, "run_started_at": "2026-11-28T12:00:00Z"}
        if len(self.limits) >= self.ends + self.late:
            run["output"] = "MQ=="
        body = json.dumps({"data": run}).encode()
        return Answer(200, {"x-inngest-server-kind": "cloud"}, body)


@pytest.mark.parametrize(
    "server",
    [Server(0), Server(1.5), Server(7), Server(60)],
    ids=["at once", "slow", "slower", "no answer"],
)
def test_a_result_that_does_not_come_takes_no_longer_than_its_timeout(server: Server) -> None:
    with pytest.raises(ResultTimeoutError, match=r"within 10 s"):
        server.ask(10)
    assert server.now == pytest.approx(110)
    assert all(limit is not None and 0 < limit <= 10 for limit in server.limits)


def test_a_result_that_comes_in_time() -> None:
    server = Server(1.5, ends=3)
    assert server.ask(10).status_code == 200
    assert server.limits == pytest.approx([10, 8.4, 6.7])


def test_no_time_at_all_is_one_question() -> None:
    server = Server(2)
    with pytest.raises(ResultTimeoutError, match="within 0 s"):
        server.ask(0)
    assert server.limits == [None]
    assert Server(2, ends=1).ask(0).status_code == 200


def test_without_a_timeout_it_is_asked_until_the_run_ends() -> None:
    server = Server(1.5, ends=40)
    assert server.ask(None).status_code == 200
    assert server.limits == [None] * 40


def test_a_run_that_has_ended_is_asked_for_until_it_has_its_output() -> None:
    server = Server(0, ends=1, late=3)
    assert server.ask(None).body == b"1"
    assert len(server.limits) == 4
    assert Server(0, ends=1, late=1).ask(0).body == b"", "which asks once"
    never = Server(0, ends=1, late=100)
    assert (never.ask(None).body, len(never.limits)) == (b"", 6)
