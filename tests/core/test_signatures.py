import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stephttp._wire.signatures import TOLERANCE, bearer_matches, bearer_of, hash_key, sign, verify

KEY = "signkey-test-" + "ab" * 16
OTHER = "cd" * 16
NOW = 1_795_352_757


def test_the_bearer_hash_is_taken_of_the_decoded_key_and_keeps_the_prefix() -> None:
    digest = hashlib.sha256(bytes.fromhex("ab" * 16)).hexdigest()
    assert hash_key(KEY) == "signkey-test-" + digest
    assert hash_key("ab" * 16) == digest


def test_a_key_that_is_not_hexadecimal_is_refused() -> None:
    with pytest.raises(ValueError, match="hexadecimal"):
        hash_key("signkey-prod-hello")


def test_a_bearer_is_read() -> None:
    assert bearer_of("bearer  abc ") == "abc"
    assert bearer_of("Basic abc") == bearer_of("") == ""


@pytest.mark.parametrize(
    ("header", "accepted"),
    [  # docs/protocol.md 2.2
        (f"Bearer {'ab' * 16}", True),
        (f"Bearer {KEY}", True),
        (f"bearer {hash_key(KEY)}", True),
        (f"Bearer {hash_key('ab' * 16)}", True),
        (f"Bearer {OTHER}", False),
        ("Bearer ", False),
        (KEY, False),
        ("", False),
    ],
)
def test_a_server_accepts_a_key_in_every_form_that_sdks_send(header: str, accepted: bool) -> None:
    assert bearer_matches(header, [KEY]) is accepted


@given(st.binary(max_size=200))
def test_what_is_signed_verifies_and_nothing_else(body: bytes) -> None:
    header = sign(KEY, body, NOW)
    assert verify(header, body, [OTHER, KEY], NOW)
    assert not verify(header, body + b"x", [KEY], NOW)
    assert not verify(header, body, [OTHER], NOW)
    assert not verify(header, body, [], NOW)


@pytest.mark.parametrize(
    ("skew", "accepted"),
    [
        (0, True),
        (TOLERANCE, True),
        (-TOLERANCE, True),
        (TOLERANCE + 1, False),
        (-TOLERANCE - 1, False),
    ],
)
def test_the_time_may_differ_by_five_minutes_either_way(skew: int, accepted: bool) -> None:
    assert verify(sign(KEY, b"{}", NOW + skew), b"{}", [KEY], NOW) is accepted


@pytest.mark.parametrize("header", ["", "t=&s=", "t=1", "s=ab", "t=x&s=" + "0" * 64, "t=1&s=ü"])
def test_a_malformed_signature_is_simply_wrong(header: str) -> None:
    assert not verify(header, b"", [KEY], NOW)


CANONICAL, SPACED = b'{"a":1,"b":2}', b'{ "b":2, "a":1.0}'


@pytest.mark.parametrize("body", [CANONICAL, SPACED])
@pytest.mark.parametrize("signed", [CANONICAL, SPACED])
def test_json_may_be_signed_as_it_is_or_canonically(body: bytes, signed: bytes) -> None:
    accepted = signed in (body, CANONICAL)
    assert verify(sign("ab" * 16, signed, 1000), body, ["ab" * 16], 1000) is accepted


@pytest.mark.parametrize("key", ["ab" * 16, "cd" * 16, "ef" * 16])
@pytest.mark.parametrize("body", [b"", b"not json", SPACED])
def test_each_configured_key_counts_with_or_without_a_body(key: str, body: bytes) -> None:
    keys = ["ab" * 16, "signkey-prod-" + "cd" * 16]
    assert verify(sign(key, body, 1000), body, keys, 1000) is (key != "ef" * 16)
