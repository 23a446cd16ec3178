"""The state behind the body of a re-entry: attached by the engine, taken off by the SDK."""

from __future__ import annotations

import pytest

from stephttp._wire import stored_state
from stephttp._wire.http import Request
from stephttp._wire.signatures import sign, verify

RUN, OTHER = "01M81KWY2JTNRXZTV817ZB746V", "01M81KWY4BC292NS2P7Q9MNAN7"
KEY, OTHER_KEY = "ab" * 16, "signkey-prod-" + "cd" * 16
NOW = 1_795_352_000
STATE = b'{"a":{"data":1}}\n'


def carrying(body: bytes, state: bytes = STATE, **replaced: str) -> Request:
    """A re-entry as the engine sends it, but for the headers that are given."""
    base = {**stored_state.attached(RUN, state, KEY, NOW), "content-length": str(len(body + state))}
    headers = {**base, **{name.replace("_", "-"): value for name, value in replaced.items()}}
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Request("POST", "/", "", pairs, body=body + state)


@pytest.mark.parametrize("body", [b"", b"{}", STATE])
def test_what_is_attached_comes_off_again(body: bytes) -> None:
    request = carrying(body)
    assert stored_state.detach(request) == STATE
    assert request.body == body
    assert request.header(b"content-length") == str(len(body))
    assert stored_state.is_signed(request, RUN, STATE, [KEY], NOW)


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


def test_a_signature_is_that_of_one_run_one_state_and_one_of_the_keys() -> None:
    request = carrying(b"body")
    assert stored_state.is_signed(request, RUN, STATE, [OTHER_KEY, KEY], NOW)
    assert not stored_state.is_signed(request, OTHER, STATE, [KEY], NOW)
    assert not stored_state.is_signed(request, RUN, STATE + b" ", [KEY], NOW)
    assert not stored_state.is_signed(request, RUN, STATE, [OTHER_KEY], NOW)
    assert not stored_state.is_signed(request, RUN, STATE, [], NOW)
    assert not stored_state.is_signed(request, RUN, STATE, [KEY], NOW + 301)
    missing = carrying(b"body", x_stephttp_state_signature="")
    assert not stored_state.is_signed(missing, RUN, STATE, [KEY], NOW)


def test_nothing_else_that_the_key_signs_passes_for_a_state() -> None:
    """A caller chooses the body of his request, which the engine then signs."""
    as_body = sign(KEY, RUN.encode() + b"\n" + STATE, NOW)
    request = carrying(b"body", x_stephttp_state_signature=as_body)
    assert not stored_state.is_signed(request, RUN, STATE, [KEY], NOW)


def test_a_state_does_not_pass_for_a_body() -> None:
    signature = carrying(b"").header(stored_state.SIGNATURE.encode())
    assert not verify(signature, STATE, [KEY], NOW)
    assert not verify(signature, RUN.encode() + b"\n" + STATE, [KEY], NOW)


def test_keys_with_and_without_their_prefix_are_the_same() -> None:
    headers = stored_state.attached(RUN, STATE, "signkey-test-" + KEY, NOW)
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert stored_state.is_signed(Request("POST", "/", "", pairs), RUN, STATE, [KEY], NOW)


def test_without_a_key_nothing_is_signed() -> None:
    assert stored_state.attached(RUN, STATE, None, NOW) == {stored_state.SIZE: str(len(STATE))}
