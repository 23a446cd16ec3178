"""Uvicorn puts its root path in front of each path, so it must not be called with it again."""

from __future__ import annotations

import signal

from tests.acceptance.processes import Process
from tests.frameworks.conftest import Application, Engine
from tests.frameworks.rows import ROWS


def test_a_server_with_a_root_path_is_called_as_its_callers_do(engine: Engine) -> None:
    row = next(row for row in ROWS if row.name == "starlette")
    command = [*row.command, "--root-path", "/api"]
    with Process(command, env={"INNGEST_DEV": engine.url}) as process:
        app = Application(row, f"http://127.0.0.1:{process.wait_for(row.listening)[1]}", engine)
        first = app.call("POST", "/orders/7", json={"item": "a"})
        final = app.finally_answers(first)
        assert (final.status_code, final.json()) == (201, {"order": 7, "item": "a"})
        assert app.run(first)["status"] == "Completed"
        app.close()
        process.signal(signal.SIGTERM)
        assert process.wait() in (0, -signal.SIGTERM), process.said()
