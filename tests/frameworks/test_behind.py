"""What an application does behind its response does not keep the answer from the caller."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

from tests.acceptance.processes import Process
from tests.frameworks.conftest import Application, Engine
from tests.frameworks.rows import ROWS


@pytest.mark.parametrize("name", ["fastapi", "flask"])
def test_the_caller_has_the_answer_first(engine: Engine, name: str, tmp_path: Path) -> None:
    row = next(row for row in ROWS if row.name == name)
    gate, done = tmp_path / "gate", tmp_path / "gate.done"
    with Process(row.command, env={"INNGEST_DEV": engine.url}) as process:
        app = Application(row, f"http://127.0.0.1:{process.wait_for(row.listening)[1]}", engine)
        first = app.call("GET", f"/behind?gate={gate}")
        final = app.finally_answers(first)
        assert (final.status_code, final.json()) == (200, "answered")
        assert app.run(first)["status"] == "Completed"
        assert not done.exists(), "it waits for the gate"
        gate.touch()
        while not done.exists():
            threading.Event().wait(0.01)
        app.close()
        process.signal(signal.SIGTERM)
        assert process.wait() in (0, -signal.SIGTERM), process.said()
    assert done.read_text() == "done ", "once"
