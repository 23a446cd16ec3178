"""What a handler pushes to those who follow it: as JSON, and bytes as characters."""

from datetime import date
from typing import Any

import pytest

from stephttp._core.pushed_values import PushedChunks, encode_push


@pytest.mark.parametrize(
    ("value", "json"),
    [
        ("ä", '"ä"'),
        (b"\xc3\xa4", '"ä"'),
        (bytearray(b"a"), '"a"'),
        (memoryview(b"a"), '"a"'),
        ({"at": date(2030, 5, 6)}, '{"at":"2030-05-06"}'),
        (None, "null"),
    ],
)
def test_a_value_is_json_and_bytes_are_text(value: Any, json: str) -> None:
    assert encode_push(value) == json.encode()


@pytest.mark.parametrize(
    ("value", "start"),
    [
        (object(), "stream.push: object cannot be sent as JSON (builtins.object); push text, "),
        (float("nan"), "stream.push: float cannot be sent as JSON (nan is not JSON); "),
        (b"\xff", "stream.push: bytes cannot be sent as JSON ('utf-8' codec can't decode"),
    ],
)
def test_what_cannot_be_pushed(value: Any, start: str) -> None:
    with pytest.raises(ValueError, match=r"^stream\.push: ") as error:
        encode_push(value)
    assert str(error.value).startswith(start)


@pytest.mark.parametrize(
    ("chunks", "pushed", "rest"),
    [
        ([], [], None),
        (["ä", {"a": 1}, 5], ["ä", {"a": 1}, 5], None),
        ([b"ab", b"c"], ["ab", "c"], None),
        ([b"a\xc3", b"\xa4b"], ["a", "äb"], None),
        ([b"\xe2", memoryview(b"\x82"), bytearray(b"\xac")], [None, None, "€"], None),
        ([b"a\xff"], ["a\ufffd"], None),
        ([b"a\xe2\x82"], ["a"], "\ufffd"),
        ([b""], [None], None),
    ],
)
def test_characters_that_come_in_two_chunks_are_pushed_whole(
    chunks: list[Any], pushed: list[Any], rest: str | None
) -> None:
    source = PushedChunks()
    assert [source.next(chunk) for chunk in chunks] == pushed
    assert source.rest() == rest
