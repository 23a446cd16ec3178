import pytest

from stephttp._core.ids import COMPLETE, StepCounter, hash_step_id


@pytest.mark.parametrize(
    ("step_id", "expected"),
    [  # PROTOCOL 1.4
        ("a", "86f7e437faa5a7fce15d1ddcb9eaeaea377667b8"),
        ("zzz", "40fa37ec00c761c7dbb6ebdee6d4a260b922f5f4"),
        ("my-step-id", "e7d8a2f140845095749d60246ff1110c9d01d76a"),
        ("complete", COMPLETE),
    ],
)
def test_hashes_are_those_of_the_real_sdks(step_id: str, expected: str) -> None:
    assert hash_step_id(step_id) == expected


def test_the_second_use_of_an_id_counts_from_one() -> None:
    assert hash_step_id("a", 1) == hash_step_id("a:1")
    counter = StepCounter()
    assert [counter.next("a"), counter.next("b"), counter.next("a"), counter.next("a")] == [
        0,
        0,
        1,
        2,
    ]
