import pytest
from msgspec import Raw

from stephttp._wire.stored_state import MemoKind, decode_memos, read_memo


@pytest.mark.parametrize(
    ("entry", "kind", "raw"),
    [  # docs/protocol.md 5.3
        (b'{"data":{"x":1}}', MemoKind.VALUE, b'{"x":1}'),
        (b'{"data":null}', MemoKind.VALUE, b"null"),
        (b"null", MemoKind.VALUE, b"null"),
        (b'"two"', MemoKind.VALUE, b'"two"'),
        (b'{"data":{},"id":"1","name":"demo/go"}', MemoKind.VALUE, None),
        (b'{"input":[1,{}]}', MemoKind.INPUT, b"[1,{}]"),
        (b'{"input":1}', MemoKind.VALUE, None),
        (b'{"pending":true}', MemoKind.PENDING, b"null"),
    ],
)
def test_entries_are_read_by_their_exact_keys(
    entry: bytes, kind: MemoKind, raw: bytes | None
) -> None:
    memo = read_memo(Raw(entry))
    assert memo.kind is kind
    assert bytes(memo.raw) == (entry if raw is None else raw)


def test_errors() -> None:
    memo = read_memo(Raw(b'{"error":{"name":"Error","message":"boom3","extra":1}}'))
    assert memo.kind is MemoKind.ERROR
    assert memo.error is not None
    assert memo.error.message == "boom3"
    text = read_memo(Raw(b'{"error":"boom"}'))
    assert text.error is not None
    assert text.error.message == '"boom"'


def test_the_answer_must_be_an_object() -> None:
    assert decode_memos(b'{"a":null}') == {"a": Raw(b"null")}
    with pytest.raises(ValueError, match="not a JSON object"):
        decode_memos(b"[]")
