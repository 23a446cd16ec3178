"""`make demo-events`: what it promises, with Node and without."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from tests import needs
from tests.acceptance.processes import ROOT, Process

DEMO = (sys.executable, "-m", "examples.demo_events")
# Other demos may be looking for the usual port at the same time.
ANY_PORT = {"DEMO_APP_PORT": "0"}
EXIT = {**ANY_PORT, "DEMO_EXIT": "1"}


@pytest.fixture(scope="module")
def _packages() -> None:
    needs.command("node", "nodejs")
    needs.npm_packages(ROOT / "examples" / "order_events")


@pytest.mark.usefixtures("_packages")
def test_functions_in_two_languages_run_and_the_endpoint_answers() -> None:
    with Process(DEMO, env=EXIT) as demo:
        assert demo.wait() == 0, demo.said()
        text = "\n".join(demo.out)
    assert "303 See Other" in text
    assert "201 Created" in text
    assert "shop-pack   Completed" in text
    assert "mail-thank  Completed" in text
    assert text.endswith("Everything is as expected.")


def test_without_node_it_says_so_and_shows_the_rest(tmp_path: Path) -> None:
    with Process(DEMO, env={**EXIT, "PATH": str(tmp_path)}) as demo:
        assert demo.wait() == 0, demo.said()
        text = "\n".join(demo.out)
    assert "SKIPPED: the TypeScript function: there is no node and no npm here" in text
    assert "shop-pack  Completed" in text
    assert "mail-thank" not in text
    assert text.endswith("Everything is as expected.")


def test_it_says_what_was_not_as_promised(tmp_path: Path) -> None:
    # Another order than the one whose answer it knows.
    spoiled = (
        "import sys, examples.demo_events as demo;"
        "demo.ORDER = {'id': 'o1', 'item': 'a pen'}; sys.exit(demo.main())"
    )
    command = (sys.executable, "-c", spoiled)
    with Process(command, env={**EXIT, "PATH": str(tmp_path)}) as demo:
        assert demo.wait() == 1, demo.said()
        text = "\n".join(demo.out)
    assert "NOT AS EXPECTED" in text
    assert "the order's body: expected {'charge': 'paid for a book'" in text


@pytest.mark.usefixtures("_packages")
def test_it_stays_up_until_ctrl_c() -> None:
    with Process(DEMO, env=ANY_PORT) as demo:
        demo.wait_for("Ctrl-C ends both")
        demo.signal(signal.SIGINT)
        assert demo.wait() == 0, demo.said()
