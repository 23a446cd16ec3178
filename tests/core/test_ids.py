from enum import Enum

import pytest
from ulid import ULID

from stephttp._core.run import Run
from stephttp._wire.ids import COMPLETE, hash_step_id, random_ulid, ulid, ulid_ms, ulid_number


@pytest.mark.parametrize(
    ("step_id", "expected"),
    [  # docs/protocol.md 1.4
        ("a", "86f7e437faa5a7fce15d1ddcb9eaeaea377667b8"),
        ("zzz", "40fa37ec00c761c7dbb6ebdee6d4a260b922f5f4"),
        ("my-step-id", "e7d8a2f140845095749d60246ff1110c9d01d76a"),
        ("complete", COMPLETE),
    ],
)
def test_hashes_are_those_of_the_real_sdks(step_id: str, expected: str) -> None:
    assert hash_step_id(step_id) == expected


class Step(str, Enum):  # noqa: UP042, of which users have older ones
    A = "a"


def test_a_member_of_an_enum_is_its_text() -> None:
    hash_step_id.cache_clear()
    of_members = hash_step_id(Step.A), hash_step_id(Step.A, 1)
    assert of_members == ("86f7e437faa5a7fce15d1ddcb9eaeaea377667b8", hash_step_id("a:1"))


def test_the_second_use_of_an_id_counts_from_one() -> None:
    assert hash_step_id("a", 1) == hash_step_id("a:1")
    run = Run("run")
    assert [run.begin(name).index for name in ("a", "b", "a", "a")] == [0, 0, 1, 2]


def test_a_ulid_holds_its_time_and_is_read_by_the_library() -> None:
    for made in (ulid(1_700_000_000_123, 2**80 + 7), random_ulid(1_700_000_000_123, bytes(16))):
        assert ULID.from_str(made).milliseconds == 1_700_000_000_123
        assert ulid_ms(made) == ulid_ms(made.lower()) == 1_700_000_000_123
        assert ulid_number(made) == int.from_bytes(ULID.from_str(made).bytes)
    assert int.from_bytes(ULID.from_str(ulid(0, 2**80 + 7)).bytes) == 7


@pytest.mark.parametrize(
    "text",
    ["", "x", "8" + 25 * "0", 25 * "0", 27 * "0", "I" + 25 * "0", 25 * "0" + "U", 26 * "\u0660"],
)
def test_what_is_no_ulid_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a ULID"):
        ulid_number(text)


def test_every_bit_of_chance_counts_in_a_ulid() -> None:
    ends = {random_ulid(0, bytes([byte] * 16))[-1] for byte in range(256)}
    assert len(ends) == 32
