"""A limit on how long requests from outside of a run may take, slow answers included."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from msgspec.structs import replace

from stephttp._client.flow import APICall, Calling, Pause
from stephttp._client.transport import TIMEOUT
from stephttp.errors import APIConnectionError

T = TypeVar("T")


def within(flow: Calling[T], left: Callable[[], float], late: Exception) -> Calling[T]:
    """Do what a flow wants as long as there is time, and cut short what would take longer.

    Args:
        left: returns how many seconds there are.
        late: raised when there are no more.
    """
    step: Callable[[], APICall | Pause] = partial(next, flow)
    try:
        while True:
            wanted = step()
            seconds = left()
            if seconds <= 0:
                flow.close()
                raise late
            if isinstance(wanted, Pause):
                wanted = Pause(min(seconds, wanted.seconds))
            else:
                wanted = replace(wanted, timeout=min(seconds, wanted.timeout or TIMEOUT))
            try:
                answer = yield wanted
            except APIConnectionError as error:
                step = partial(flow.throw, error)
            else:
                step = partial(flow.send, answer)
    except StopIteration as end:
        result: T = end.value
        return result
