from __future__ import annotations

import io
import os
import threading

import pytest

from stephttp.cli.terminal import mute, on_reader_gone, pass_lines, wants_colour


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def passed(data: bytes, target: io.TextIOWrapper) -> bytes:
    pass_lines(io.BytesIO(data), target, "app")
    target.flush()
    buffer = target.buffer
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue()


def test_each_line_gets_the_prefix() -> None:
    assert (
        passed(b"one\n\ntwo", io.TextIOWrapper(io.BytesIO())) == b"app | one\napp | \napp | two\n"
    )


def test_bytes_pass_unchanged() -> None:
    assert passed(b"\xff\xfe\x00\r\n", io.TextIOWrapper(io.BytesIO())) == b"app | \xff\xfe\x00\r\n"


def test_line_without_end_is_cut_not_collected() -> None:
    lines = passed(b"x" * (3 << 20), io.TextIOWrapper(io.BytesIO())).splitlines()
    assert [len(line) for line in lines] == [len("app | ") + (1 << 20)] * 3


def test_colour_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert passed(b"one\n", Terminal(io.BytesIO())) == b"\x1b[36mapp |\x1b[0m one\n"
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colour(Terminal(io.BytesIO()))


def test_reader_that_is_gone_is_reported() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    target = io.TextIOWrapper(io.BufferedWriter(io.FileIO(write_end, "w")))
    with pytest.raises(BrokenPipeError):
        pass_lines(io.BytesIO(b"one\n"), target, "app")
    # What is still in the buffer would fail once more at the end.
    mute(target)
    target.close()


def test_reader_that_is_gone_is_noticed_though_nothing_is_written() -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "w") as target:
        told = threading.Event()
        on_reader_gone(target, told.set)
        # A write that failed may do this before the watcher has looked.
        mute(target)
        os.close(read_end)
        assert told.wait(60)
