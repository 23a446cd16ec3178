"""How far a run has come, for its caller: steps that have ended, and what it waits for. Plain
data.
"""

from __future__ import annotations

from msgspec import Struct

MOST_SHOWN = 50
"""Steps; of longer runs the latest."""


class StepDone(Struct, frozen=True):
    """A step that has ended.

    Attributes:
        number: its place among the steps of the run, from 1.
        id: as the handler names it.
        state: `completed` or `failed`.
    """

    number: int
    id: str
    state: str


class Progress(Struct, frozen=True):
    """How far a run has come.

    Attributes:
        endpoint: name of the endpoint.
        steps: the latest of those that have ended.
        waiting: the steps for which the run waits.
    """

    endpoint: str = ""
    steps: list[StepDone] = []
    waiting: list[str] = []


class WaitingRun(Progress, frozen=True):
    """A run whose caller is shown a page until it has ended.

    Attributes:
        run_id: its ULID.
        result_url: where the page is loaded again, relative to its own address. Let it do so, for
            instance with `<meta http-equiv="refresh" content="1; url=...">`: the request is held
            for some seconds, and gets the answer of the handler once there is one.
    """

    run_id: str = ""
    result_url: str = ""
