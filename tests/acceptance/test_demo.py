"""The demo is a newcomer's first impression, so it is tested like any other promise."""

from __future__ import annotations

import signal
import socket
import sys

from tests.acceptance.processes import DEADLINE, Process

DEMO = (sys.executable, "examples/demo.py")
QUICK = {"SIGNUP_COOL_OFF": "0.2"}


def test_demo_is_as_told() -> None:
    with Process(DEMO, env={**QUICK, "DEMO_EXIT": "1"}) as demo:
        assert demo.wait() == 0, demo.said()
        text = "\n".join(demo.out)
    assert "303 See Other" in text
    assert "201 Created" in text
    assert "Everything is as expected." in text


def test_demo_stays_up_until_ctrl_c() -> None:
    with Process(DEMO, env=QUICK) as demo:
        demo.wait_for("Ctrl-C ends both")
        demo.signal(signal.SIGINT)
        assert demo.wait() == 0, demo.said()


def test_demo_says_what_was_not_as_told() -> None:
    # A token that the example does not know: the sign-up is refused.
    spoiled = (
        "import runpy, sys; sys.argv = ['examples/demo.py'];"
        "import examples.demo as demo; demo.TOKEN = {}; sys.exit(demo.main())"
    )
    with Process((sys.executable, "-c", spoiled), env={**QUICK, "DEMO_EXIT": "1"}) as demo:
        assert demo.wait() == 1, demo.said()
        text = "\n".join(demo.out)
    assert "NOT AS EXPECTED" in text
    assert "the sign-up's status: expected 201, found 401" in text


def test_killed_demo_leaves_nothing_behind() -> None:
    with Process(DEMO, env=QUICK) as demo:
        app = demo.wait_for(r"ready on http://127\.0\.0\.1:(\d+)$")
        demo.wait_for("Ctrl-C ends both")
        # This connection lasts until the app ends.
        with socket.create_connection(("127.0.0.1", int(app[1])), timeout=DEADLINE) as connection:
            demo.signal(signal.SIGKILL)
            demo.wait()
            try:
                assert connection.recv(1) == b""
            except ConnectionResetError:
                pass
