"""The state behind the body of a re-entry: attached by the engine, taken off by the SDK."""

from __future__ import annotations

import pytest

from stephttp._wire import stored_state
from stephttp._wire.http import Request

STATE = b'{"a":{"data":1}}\n'


def carrying(body: bytes, state: bytes = STATE, **replaced: str) -> Request:
    """A re-entry as the engine sends it, but for the headers that are given."""
    base = {stored_state.SIZE: str(len(state)), "content-length": str(len(body + state))}
    headers = {**base, **{name.replace("_", "-"): value for name, value in replaced.items()}}
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Request("POST", "/", "", pairs, body=body + state)


@pytest.mark.parametrize("body", [b"", b"{}", STATE])
def test_what_is_attached_comes_off_again(body: bytes) -> None:
    request = carrying(body)
    assert stored_state.detach(request) == STATE
    assert request.body == body
    assert request.header(b"content-length") == str(len(body))


@pytest.mark.parametrize(
    "size",
    ["", "0", "-1", "1e2", "²", str(stored_state.LARGEST + 1), "9" * 30, str(len(STATE) + 1)],
)
def test_a_size_that_makes_no_sense_leaves_the_body_alone(size: str) -> None:
    pairs = [(stored_state.SIZE.encode(), size.encode("latin-1")), (b"content-length", b"17")]
    request = Request("POST", "/", "", pairs, body=STATE)
    assert stored_state.detach(request) is None
    assert (request.body, request.header(b"content-length")) == (STATE, b"17".decode())


def test_what_is_announced_is_bounded() -> None:
    assert (
        stored_state.announced(carrying(b"", b"x" * stored_state.LARGEST)) == stored_state.LARGEST
    )
    assert stored_state.announced(carrying(b"", b"x" * (stored_state.LARGEST + 1))) == 0
