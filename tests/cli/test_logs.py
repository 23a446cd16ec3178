"""Lines of the log: one each, whatever is in them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Generator

import pytest

from stephttp.cli.log_format import LogFormat, set_up
from stephttp.engine.logs import log_event

log = logging.getLogger("stephttp.test")


@pytest.fixture(autouse=True)
def as_before() -> Generator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def lines(form: LogFormat) -> list[str]:
    stream = io.StringIO()
    set_up(form, stream)
    log_event(
        log, logging.WARNING, "reentry", "endpoint called", run_id="R", detail="a\nb", none=None
    )
    logging.getLogger("library").info("plain %s", "text\nwith two lines")
    logging.getLogger("httpx2").info("HTTP Request: GET http://x.test/?token=secret")
    logging.getLogger("library").debug("not shown")
    return stream.getvalue().splitlines()


def test_json() -> None:
    first, second = map(json.loads, lines(LogFormat.JSON))
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "warning",
        "event": "reentry",
        "message": "endpoint called",
        "run_id": "R",
        "detail": "a\nb",
    }
    assert (second["event"], second["logger"]) == ("log", "library")
    assert second["message"] == "plain text\nwith two lines"


def test_text() -> None:
    first, second = lines(LogFormat.TEXT)
    assert first.endswith(r' WARNING reentry endpoint called run_id="R" detail="a\nb"')
    assert second.endswith(r' INFO log plain text\nwith two lines logger="library"')


@pytest.mark.parametrize("form", LogFormat)
def test_a_fault_has_its_traceback(form: LogFormat) -> None:
    stream = io.StringIO()
    set_up(form, stream)
    try:
        raise ZeroDivisionError("no")
    except ZeroDivisionError:
        log.exception("fault")
    said = stream.getvalue()
    assert "ZeroDivisionError: no" in (
        json.loads(said)["traceback"] if form is LogFormat.JSON else said
    )
