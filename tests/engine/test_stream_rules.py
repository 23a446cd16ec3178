"""What becomes of frames that arrive for a run's stream (`rules.stream_rules`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from stephttp._wire.stream_frames import (
    COMMIT,
    FIRST_CALL,
    LOST,
    METADATA,
    REDIRECT,
    RESPONSE,
    ROLLBACK,
    STREAM,
    Frame,
)
from stephttp.engine.model.refused import Refused
from stephttp.engine.model.stream_state import Arrival, StreamState
from stephttp.engine.model.stream_state import Kept as KeptFrames
from stephttp.engine.rules.stream_rules import keep

A, B = "a" * 40, "b" * 40
LIMIT = 1024 * 1024


def push(data: str, step: str = "", place: int = 0) -> Frame:
    return Frame(STREAM, data, step, place)


def commit(step: str) -> Frame:
    return Frame(COMMIT, "", step)


def rollback(step: str) -> Frame:
    return Frame(ROLLBACK, "", step)


class Kept:
    """A stream in memory: what is kept, by number."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.state = StreamState()
        self.frames: dict[int, Frame] = {}
        self.limit = limit

    def put(
        self, frames: Sequence[Frame], writer: str = "w", before: int | None = None
    ) -> list[Frame]:
        kept = keep(self.state, Arrival("r", frames, writer, before), self.limit)
        self.state = kept.state
        first = kept.state.last - len(kept.frames) + 1
        for number, frame in enumerate(kept.frames, first):
            assert number not in self.frames
            assert number > max(self.frames, default=0)
            self.frames[number] = frame
        return list(kept.frames)


def test_the_frames_of_the_first_call_have_low_numbers() -> None:
    kept = Kept()
    kept.put([push("1"), push("2", A), commit(A)], FIRST_CALL, 0)
    kept.put([push("3")], "second", 0)
    kept.put([push("4")], "third", 0)
    assert list(kept.frames) == [1, 2, 3, 1_000_001, 2_000_001]


def test_a_call_after_the_first_has_higher_numbers_even_if_that_sent_nothing() -> None:
    kept = Kept()
    kept.put([push("1")], "second", 0)
    assert list(kept.frames) == [1_000_001]
    with pytest.raises(Refused, match="the first call is over"):
        kept.put([push("2")], FIRST_CALL, 0)


def test_what_is_sent_twice_counts_once() -> None:
    kept = Kept()
    kept.put([push("1"), push("2")], before=0)
    assert kept.put([push("1"), push("2")], before=0) == []
    assert kept.put([push("2"), push("3")], before=1) == [push("3")]


def test_a_gap_is_refused() -> None:
    kept = Kept()
    with pytest.raises(Refused, match="missing") as refused:
        kept.put([push("2")], before=1)
    assert refused.value.status == 409


def test_a_writer_that_was_superseded_writes_no_more() -> None:
    kept = Kept()
    kept.put([push("1")], "old", 0)
    kept.put([push("1")], "new", 0)
    with pytest.raises(Refused):
        kept.put([push("2")], "old", 1)


def test_pushes_outside_of_steps_count_once() -> None:
    kept = Kept()
    kept.put([push("1", place=1), push("2", place=2)], "first", 0)
    again = [push("1", place=1), push("2", place=2), push("3", place=3)]
    assert kept.put(again, "second", 0) == [push("3")]


def test_a_step_that_begins_again_takes_back_what_it_pushed() -> None:
    kept = Kept()
    kept.put([push("1", A)], "first", 0)
    assert kept.put([push("1", A), push("2", A)], "second", 0) == [
        rollback(A), push("1", A), push("2", A),
    ]  # fmt: skip
    # Also if it seemed to have finished, but its result got lost with the process.
    assert kept.put([commit(A)], "second", 2) == [commit(A)]
    assert kept.put([push("3", A)], "third", 0) == [rollback(A), push("3", A)]


def test_a_step_that_took_its_pushes_back_itself_just_pushes() -> None:
    kept = Kept()
    kept.put([push("1", A), rollback(A)], "first", 0)
    assert kept.put([push("2", A)], "second", 0) == [push("2", A)]


def test_marks_of_steps_that_pushed_nothing_are_not_kept() -> None:
    assert Kept().put([commit(A), rollback(B)]) == []


def test_what_is_beyond_the_limit_is_lost_and_that_is_said_once() -> None:
    kept = Kept(limit=100)
    frames = kept.put([push("x" * 40, A), push("y" * 40, B), push("z" * 40, A), push("1")])
    assert frames == [push("x" * 40, A), Frame(LOST, '{"limit":100}')]
    assert kept.put([push("1"), rollback(A), commit(B)]) == [rollback(A)]
    assert kept.state.full


def test_the_answer_is_kept_aside_and_a_later_call_makes_it_void() -> None:
    kept = Kept()
    assert kept.put([push("1"), Frame(RESPONSE, '{"status":"failed"}')], "one") == [push("1")]
    assert kept.state.response == b'{"status":"failed"}'
    kept.put([push("2")], "two")
    assert kept.state.response is None


def _frames() -> st.SearchStrategy[list[Frame]]:
    steps = st.sampled_from([A, B])
    outside = st.builds(push, st.just("0"))
    return st.lists(
        st.one_of(
            st.builds(push, st.just("1"), steps),
            outside,
            st.builds(commit, steps),
            st.builds(rollback, steps),
        ),
        max_size=6,
    )


def _placed(frames: list[Frame]) -> list[Frame]:
    place, placed = 0, []
    for frame in frames:
        if frame.event == STREAM and not frame.step:
            place += 1
            placed.append(push(frame.data, "", place))
        else:
            placed.append(frame)
    return placed


@given(st.lists(_frames(), max_size=4), st.data())
def test_numbers_grow_and_no_step_has_pushes_of_two_calls(
    calls: list[list[Frame]], data: st.DataObject
) -> None:
    """However often parts are sent again, in whatever portions."""
    kept, most = Kept(), 0
    for index, frames in enumerate(map(_placed, calls)):
        sent = 0
        while sent < len(frames):
            begin = data.draw(st.integers(0, sent))
            end = data.draw(st.integers(sent + 1, len(frames)))
            kept.put(frames[begin:end], f"w{index}", begin)
            sent = end
        most = max([most, *(frame.place for frame in frames)])
    live: dict[str, set[int]] = {}
    for number, frame in kept.frames.items():
        if frame.event == STREAM and frame.step:
            live.setdefault(frame.step, set()).add(number // 1_000_000)
            assert len(live[frame.step]) == 1
        elif frame.event == ROLLBACK:
            live.pop(frame.step, None)
    outside = [f for f in kept.frames.values() if f.event == STREAM and not f.step]
    assert len(outside) == most


METADATA_FRAME, REDIRECT_FRAME = Frame(METADATA, "m"), Frame(REDIRECT, "r")
BEFORE = StreamState(writer="w", sent=2, last=3_000_004, size=70, outside=2, live={A: 3, B: 2})


@pytest.mark.parametrize(
    ("frames", "kept", "changed", "answer"),
    [
        ([push("1")], [push("1")], {"size": 103}, None),
        ([push("123456", A)], [push("123456", A)], {"size": 108}, None),
        ([push("1", B)], [rollback(B), push("1", B)], {"size": 103, "live": {A: 3, B: 3}}, None),
        ([push("1", "c")], [push("1", "c")], {"size": 103, "live": {A: 3, B: 2, "c": 3}}, None),
        ([rollback(A)], [rollback(A)], {"size": 102, "live": {B: 2}}, None),
        ([rollback("c")], [], {}, None),
        ([commit(A)], [commit(A)], {"size": 102}, None),
        ([Frame(COMMIT, ""), Frame(ROLLBACK, "")], [Frame(COMMIT, ""), Frame(ROLLBACK, "")],
         {"size": 134}, None),
        ([push("1", place=2)], [], {}, None),
        ([push("1", place=3)], [push("1")], {"size": 103, "outside": 3}, None),
        ([METADATA_FRAME, push("1"), REDIRECT_FRAME], [push("1")], {"size": 103}, None),
        ([Frame(RESPONSE, "\xe4"), push("1")], [push("1")],
         {"size": 103, "response": b"\xc3\xa4"}, Frame(RESPONSE, "\xe4")),
    ],
)  # fmt: skip
def test_what_each_frame_changes(
    frames: list[Frame], kept: list[Frame], changed: dict[str, Any], answer: Frame | None
) -> None:
    state = replace(BEFORE, sent=2 + len(frames), last=BEFORE.last + len(kept), **changed)
    assert keep(BEFORE, Arrival("r", frames, "w", 2), LIMIT) == KeptFrames(state, kept, answer)


@pytest.mark.parametrize(("limit", "fits"), [(103, True), (102, False)])
def test_the_last_byte_of_a_stream(limit: int, fits: bool) -> None:
    state = replace(BEFORE, sent=5, last=BEFORE.last + 2)
    lost = Frame(LOST, f'{{"limit":{limit}}}')
    frames = [push("1"), push("2"), push("3")]
    found = keep(replace(BEFORE, outside=0), Arrival("r", frames, "w", 2), limit)
    size, kept = (103, [push("1"), lost]) if fits else (70, [lost])
    last = BEFORE.last + len(kept)
    assert found.state == replace(state, size=size, last=last, full=True, outside=0)
    assert found.frames == kept
    # An answer is kept, although nothing else fits.
    more = keep(found.state, Arrival("r", [push("4"), Frame(RESPONSE, "x")], "w"), limit)
    assert (more.frames, more.state.response) == ([], b"x")


def test_a_writer_has_a_number_of_frames() -> None:
    state = replace(BEFORE, last=3_998_999)
    found = keep(state, Arrival("r", [push("1"), push("2"), commit(A)], "w", 2), LIMIT)
    assert found.frames == [push("1"), Frame(LOST, f'{{"limit":{LIMIT}}}'), commit(A)]
    assert (found.state.last, found.state.full) == (3_999_002, True)


@pytest.mark.parametrize(
    ("before", "sent", "kept"),
    [(None, 4, ["1", "2"]), (2, 4, ["1", "2"]), (1, 3, ["2"]), (0, 2, [])],
)
def test_frames_that_were_sent_twice(before: int | None, sent: int, kept: list[str]) -> None:
    found = keep(BEFORE, Arrival("r", [push("1"), push("2")], "w", before), LIMIT)
    assert (found.state.sent, [one.data for one in found.frames]) == (sent, kept)


def test_a_later_writer_begins_with_its_own_numbers() -> None:
    before = replace(BEFORE, response=b"x")
    found = keep(before, Arrival("r", [push("1")], "next", 0), LIMIT)
    expected = replace(BEFORE, writer="next", sent=1, last=4_000_001, size=103)
    assert found == KeptFrames(expected, [push("1")], None)
    for writer, count, message in (
        (FIRST_CALL, 0, "frames: the first call is over, and another one writes now"),
        ("next", 1, "frames: those before them are missing, or another call writes now"),
    ):
        with pytest.raises(Refused) as refused:
            keep(before, Arrival("r", [push("1")], writer, count), LIMIT)
        assert (str(refused.value), refused.value.status) == (message, 409)
    first = keep(StreamState(), Arrival("r", [push("1")], FIRST_CALL, 0), LIMIT)
    assert first.state == StreamState(FIRST_CALL, 1, 1, 33)
