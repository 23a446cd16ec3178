"""The events of a run's stream on the wire (docs/protocol.md 8.1)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stephttp._wire import stream_frames
from stephttp._wire.stream_frames import COMMIT, ROLLBACK, STREAM, Frame, FrameReader

A = "86f7e437faa5a7fce15d1ddcb9eaeaea377667b8"


_OF_A = '{"hashedStepId":"' + A + '"}'
_ANSWER = '{"body":"hi","statusCode":201,"headers":{"k":"v, w"}}'


@pytest.mark.parametrize(
    ("written", "event", "data"),
    [
        (stream_frames.pushed(b'{"in":"a"}', A), "stream", '{"data":{"in":"a"},' + _OF_A[1:]),
        (stream_frames.pushed(b'"x"'), "stream", '{"data":"x"}'),
        (stream_frames.committed(A), "commit", _OF_A),
        (stream_frames.rolled_back(""), "rollback", '{"hashedStepId":null}'),
        (stream_frames.metadata("R"), "metadata", '{"runId":"R"}'),
        (
            stream_frames.redirect("R", "http://x"),
            "redirect_info",
            '{"runId":"R","url":"http://x"}',
        ),
        (
            stream_frames.response(201, [("k", "v"), ("k", "w")], b"hi", failed=False),
            "response",
            '{"status":"succeeded","response":' + _ANSWER + "}",
        ),
    ],
)
def test_events_are_written_as_the_typescript_sdk_reads_them(
    written: bytes, event: str, data: str
) -> None:
    assert written.decode() == f"event: inngest.{event}\ndata: {data}\n\n"


def test_a_push_may_say_which_one_it_is() -> None:
    assert stream_frames.pushed(b"1", place=3).startswith(b"id: 3\nevent: inngest.stream\n")


def test_a_body_that_is_not_text_says_so() -> None:
    event = stream_frames.response(500, [], b"\xff", failed=True)
    data = json.loads(event.split(b"data: ")[1])
    assert data["status"] == "failed"
    assert data["response"] == {
        "body": "/w==", "statusCode": 500, "headers": {}, "encoding": "base64",
    }  # fmt: skip


_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_FRAMES = st.lists(
    st.one_of(
        st.builds(lambda v, s: Frame(STREAM, json.dumps(v), s), _TEXT, st.sampled_from(["", A])),
        st.builds(lambda v, n: Frame(STREAM, json.dumps(v), "", n), _TEXT, st.integers(1, 9999)),
        st.builds(Frame, st.sampled_from([COMMIT, ROLLBACK]), st.just(""), st.sampled_from([A])),
        st.builds(Frame, st.just("other"), st.sampled_from(["1", "a\nb"])),
    )
)


@given(_FRAMES, st.data())
def test_what_is_written_is_read_in_whatever_pieces_it_comes(
    frames: list[Frame], data: st.DataObject
) -> None:
    whole = b"".join(map(stream_frames.written, frames))
    reader, read, at = FrameReader(), [], 0
    while at < len(whole):
        size = data.draw(st.integers(1, len(whole) - at))
        read += reader.feed(whole[at : at + size])
        at += size
    assert read == frames


@pytest.mark.parametrize(
    ("block", "read"),
    [
        (b":\n\n", []),
        (b"\n\n\n\n", []),
        (b"event: inngest.stream\ndata: nonsense\n\n", [Frame("message", "nonsense")]),
        (b"event: inngest.commit\ndata: []\n\n", [Frame("message", "[]")]),
        (b"event: x\ndata: \xff\n\n", [Frame("x", "\ufffd")]),
        (b"event: inngest.stream\r\ndata: {\"data\":1}\r\n\r\n", [Frame(STREAM, "1")]),
        (b"event: x\ndata: 1", []),
        (b"event: x\rdata: 1\rdata: 2\n\n", [Frame("x", "1\n2")]),
        (
            b'event: inngest.commit\ndata: {"hashedStepId":"a\\"}\\n\\nevent: b"}\n\n',
            [Frame("message", '{"hashedStepId":"a\\"}\\n\\nevent: b"}')],
        ),
    ],
)  # fmt: skip
def test_what_is_no_event_of_ours(block: bytes, read: list[Frame]) -> None:
    assert stream_frames.read(block) == read
