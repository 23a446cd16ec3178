"""Masks take the place of secrets wherever these stand, in work that does not grow with both."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from stephttp.testing.masking import mask
from stephttp.testing.replacements import Replacements
from tests.testing.test_masking import history

SECRETS = st.text("ab", min_size=1, max_size=5)
WORDS = ["".join(letters) for size in range(1, 6) for letters in product("ab", repeat=size)]


def masks_of(secrets: Iterable[str]) -> dict[str, str]:
    return {secret: f"<{number}>" for number, secret in enumerate(secrets)}


def one_after_another(text: str, masks: dict[str, str]) -> str:
    for secret in sorted(masks, key=len, reverse=True):
        text = text.replace(secret, masks[secret])
    return text


@pytest.mark.parametrize(
    ("secrets", "text", "expected"),
    [
        ([], "abc", "abc"),
        (["abc"], "", ""),
        (["abc"], "ab", "ab"),
        (["abc", "abcd"], "abcd abc", "<1> <0>"),
        (["abcd", "cdefg"], "abcdefg", "ab<1>"),
        (["bc", "abcd"], "abcd bc", "<1> <0>"),
        (["abc", "cde"], "abcde", "<0>de"),
        (["aa"], "aaaaa", "<0><0>a"),
        (["abcdef", "abx"], "abcdeabx", "abcde<1>"),
    ],
)
def test_the_longer_of_two_that_overlap_is_replaced(
    secrets: list[str], text: str, expected: str
) -> None:
    assert Replacements(masks_of(secrets)).made_in(text) == expected


@given(st.lists(SECRETS, unique_by=len), st.text("abc", max_size=40))
def test_it_gives_what_replacing_one_after_another_gives(secrets: list[str], text: str) -> None:
    masks = masks_of(secrets)
    assert Replacements(masks).made_in(text) == one_after_another(text, masks)


@given(st.sets(st.sampled_from(WORDS), max_size=10), st.text("abc", max_size=40))
def test_of_many_secrets_no_one_stays(without: set[str], text: str) -> None:
    secrets = [word for word in WORDS if word not in without]
    found = Replacements(masks_of(secrets)).made_in(text)
    assert [secret for secret in secrets if secret in found] == []


class Counted(dict[str, str]):
    """Counts what is looked up in it."""

    count = 0

    def get(self, key: str, default: str | None = None) -> str | None:  # type: ignore[override]
        self.count += 1
        return super().get(key, default)


@pytest.mark.parametrize("many", [20, 3_000])
def test_each_place_of_a_large_text_is_looked_at_once(many: int) -> None:
    source = random.Random(1)
    secrets = [f"{number:05}{source.randbytes(4 + number % 40).hex()}" for number in range(many)]
    pieces = [source.randbytes(700).hex() for _ in secrets]
    text = "".join(f"{piece}-{secret}-" for piece, secret in zip(pieces, secrets, strict=True))
    masks = Counted(masks_of(secrets))
    found = Replacements(masks).made_in(text)
    assert found == "".join(f"{piece}-<{number}>-" for number, piece in enumerate(pieces))
    assert masks.count <= many * 1.1


def test_a_large_history_with_many_secrets_is_masked() -> None:
    tokens = [f"secret-{number:06}" for number in range(1_000)]
    filler = "x" * 4_000
    memo = {"data": [{"token": token, "text": f"{filler} {token}"} for token in tokens]}
    given = history(memo)
    masked = mask(replace(given, request=replace(given.request, body=" ".join(tokens))))
    assert "secret-" not in masked.dump()
    assert str(masked.request.body).split()[-1] == "masked-1000"
    assert isinstance(masked.steps[0].memo, Raw)


@pytest.mark.parametrize(("names", "stays"), [((), True), (["door"], False)])
def test_short_secrets_are_replaced_elsewhere_where_their_field_was_named(
    names: list[str], *, stays: bool
) -> None:
    memo = {"data": {"door": "k9x", "door_pin": "k8y", "text": "k9x opens, k8y does not"}}
    text = bytes(mask(history(memo), names).steps[0].memo or b"").decode()
    assert ("k9x opens" in text, "k8y does" in text) == (stays, True)
