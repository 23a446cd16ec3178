"""The program behind `make demo`: engine, example app, and a client that explains each answer.

It stays up until Ctrl-C. With DEMO_EXIT=1 it ends when the client is done, with exit code 0, or
with 1 and a list of the differences.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import httpx2

ROOT = Path(__file__).resolve().parent.parent
COOL_OFF = float(os.environ.get("SIGNUP_COOL_OFF", "5"))
APP_PORT = 8000
START_DEADLINE = 45.0
ANSWER_DEADLINE = COOL_OFF + 60.0
LOG_LINES = 200

ADA = {"name": "Ada", "email": "ada@example.com"}
TOKEN = {"Authorization": "Bearer secret-of-the-shop"}
SHOWN_HEADERS = ("location", "x-run-id", "x-welcome-mail", "content-type")


class DemoError(Exception):
    """The demo cannot continue."""


class Servers:
    """`stephttp dev` with an example app beside it, as a newcomer would start them.

    Args:
        directory: for the engine's database.
        app_port: of the app; 0 lets the kernel choose.
        app: what uvicorn starts.
        options: further ones of `stephttp dev`.
        env: further environment variables.
    """

    def __init__(
        self,
        directory: str,
        app_port: int,
        app: str,
        options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.app_url = ""
        self._directory = directory
        self._app = app
        self._options = options
        self._env = env or {}
        self.log: deque[str] = deque(maxlen=LOG_LINES)
        self.echo = False
        self._lines: Queue[str | None] = Queue()
        self._start(app_port)

    def _start(self, app_port: int) -> None:
        self._app_port = app_port
        db = f"{self._directory}/runs.sqlite3"
        command = [sys.executable, "-m", "stephttp", "dev", "--db", db, *self._options]
        app = ["uvicorn", self._app, "--port", str(app_port)]
        print(f"$ stephttp {' '.join([*command[3:], '--', *app])}")
        self._process = subprocess.Popen(
            [*command, "--", sys.executable, "-m", *app],
            cwd=ROOT,
            env={**os.environ, **self._env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Ctrl-C reaches only this process, which passes it on when it is ready.
            process_group=0,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            text = line.rstrip("\n")
            self.log.append(text)
            self._lines.put(text)
            if self.echo:
                print(text, flush=True)
        self._lines.put(None)

    def wait_until_ready(self) -> str:
        """Read until engine and app say that they are up, and return the engine's URL."""
        engine_url = ""
        deadline = time.monotonic() + START_DEADLINE
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                raise DemoError(f"not up after {START_DEADLINE:.0f} seconds") from None
            if line is None:
                if not self._app_port or "address already in use" not in " ".join(self.log):
                    raise DemoError("engine and app ended while they started")
                print(f"port {self._app_port} was taken just now, so the app gets another one")
                self._start(0)
                deadline = time.monotonic() + START_DEADLINE
                continue
            if line.startswith("stephttp: "):
                print(line)
            if "engine ready on " in line:
                engine_url = line.partition("engine ready on ")[2].partition(" ")[0]
            if "Uvicorn running on " in line:
                self.app_url = line.partition("Uvicorn running on ")[2].partition(" ")[0]
                print(f"app: ready on {self.app_url}")
                return engine_url

    def ended(self) -> bool:
        return self._process.poll() is not None

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Demo:
    """The scripted client, and the problems that it found."""

    def __init__(self, engine_url: str, app_url: str) -> None:
        self.engine = httpx2.Client(base_url=engine_url, timeout=ANSWER_DEADLINE)
        self.app_url = app_url
        self.app = httpx2.Client(base_url=app_url, timeout=ANSWER_DEADLINE)
        self.problems: list[str] = []

    def expect(self, what: str, wanted: object, found: object) -> None:
        if wanted != found:
            self.problems.append(f"{what}: expected {wanted!r}, found {found!r}")

    def request(self, path: str, body: object, headers: dict[str, str]) -> httpx2.Response:
        """Send a request, follow its redirect by hand, and print both answers."""
        for name, value in headers.items():
            print(f"  {name}: {value}")
        print(f"  {json.dumps(body)}")
        started = time.monotonic()
        answer = self.app.post(path, json=body, headers=headers)
        show_answer(answer, started)
        if answer.status_code == 303:
            print("  following the redirect; it answers when the run has ended ...", flush=True)
            answer = self.engine.get(answer.headers["location"])
            show_answer(answer, started)
            return answer
        self.expect(f"POST {path} answers first with a redirect", 303, answer.status_code)
        return answer

    def sign_up(self) -> None:
        title(f"POST /users: two steps, {COOL_OFF:g} seconds of sleep, two more steps")
        answer = self.request("/users", ADA, TOKEN)
        self.expect("the sign-up's status", 201, answer.status_code)
        self.expect(
            "the sign-up's Location", f"{self.app_url}/users/1", answer.headers.get("location")
        )
        self.expect("the sign-up's own header", "1", answer.headers.get("x-welcome-mail"))
        wanted = {"id": 1, "greeting": "Hello Ada", "email": ADA["email"], "by": "the shop"}
        self.expect("the sign-up's body", wanted, answer.json())

    def flaky(self) -> None:
        title("POST /flaky: a step that fails twice and then works")
        answer = self.request("/flaky", {"key": "order-7"}, {})
        self.expect("the flaky order's status", 201, answer.status_code)
        wanted = {"key": "order-7", "receipt": "confirmed order-7 at attempt 3"}
        self.expect("the flaky order's body", wanted, answer.json())

    def refused(self) -> None:
        title("POST /users with an unknown token: the answer comes at once")
        started = time.monotonic()
        body = {"name": "Eve", "email": "eve@example.com"}
        print(f"  {json.dumps(body)}")
        answer = self.app.post("/users", json=body, headers={"Authorization": "Bearer guess"})
        show_answer(answer, started)
        self.expect("the status for an unknown token", 401, answer.status_code)

    def executions(self) -> None:
        title("How often each step's body ran (the app's own table)")
        calls = self.app.get("/calls").json()
        table(("step", "for", "executions"), [tuple(call.values()) for call in calls])
        steps = ("authenticate", "validate", "create-user", "welcome-mail")
        wanted = {(name, "ada@example.com"): 1 for name in steps}
        wanted |= {("call-shaky-service", "order-7"): 3, ("authenticate", "eve@example.com"): 1}
        found = {(call["step"], call["subject"]): call["executions"] for call in calls}
        self.expect("executions of the steps", wanted, found)

    def runs(self) -> None:
        title("The runs (the engine's record)")
        lines: list[tuple[Any, ...]] = []
        found: dict[str, list[str]] = {}
        # A run that never waited is reported in the background, so it may come a moment later.
        deadline = time.monotonic() + START_DEADLINE
        while True:
            runs = self.engine.get("/v1/runs", params={"limit": 10}).json()["data"]
            if len(runs) >= 3 or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        self.expect("number of runs", 3, len(runs))
        for run in reversed(runs):
            lines.append((run["run_id"], run["function"], run["status"], "", ""))
            steps = [
                step
                for step in self.engine.get(f"/v1/runs/{run['run_id']}/steps").json()["data"]
                # The SDK keeps the request's headers in a step of its own.
                if not step["name"].startswith("stephttp:")
            ]
            for step in steps:
                took = "" if step["duration_ms"] is None else f"{step['duration_ms']:.1f} ms"
                lines.append(("", step["name"], step["status"], step["attempts"], took))
            found[run["run_id"]] = [f"{step['name']} {step['attempts']}" for step in steps]
        table(("run", "endpoint and steps", "status", "attempts", "took"), lines)
        wanted = [
            ["authenticate 1", "validate 1", "cool-off 1", "create-user 1", "welcome-mail 1"],
            ["call-shaky-service 3"],
            ["authenticate 1"],
        ]
        self.expect("steps and attempts of the runs", wanted, list(found.values()))
        self.expect("status of the runs", {"Completed"}, {run["status"] for run in runs})


def title(text: str) -> None:
    print(f"\n{bold(text)}")


def bold(text: str) -> str:
    plain = os.environ.get("NO_COLOR") or not sys.stdout.isatty()
    return text if plain else f"\x1b[1m{text}\x1b[0m"


def show_answer(answer: httpx2.Response, started: float) -> None:
    took = time.monotonic() - started
    print(f"  -> {bold(f'{answer.status_code} {answer.reason_phrase}')} after {took:.3f} s")
    for name in SHOWN_HEADERS:
        if name in answer.headers:
            value = answer.headers[name]
            print(f"     {name}: {value if len(value) < 90 else value[:90] + '...'}")
    if answer.content:
        print(f"     {answer.text}")


def table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    texts = [head, *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(head))]
    for row in texts:
        print("  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())


def app_port() -> int:
    """Return DEMO_APP_PORT, or the usual port, or 0 (the kernel chooses) if that is taken."""
    if "DEMO_APP_PORT" in os.environ:
        return int(os.environ["DEMO_APP_PORT"])
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", APP_PORT))
        except OSError:
            print(f"port {APP_PORT} is taken, so the app gets another one")
            return 0
    return APP_PORT


def drive(servers: Servers) -> list[str]:
    """Show everything, and return the problems."""
    demo = Demo(servers.wait_until_ready(), servers.app_url)
    with demo.engine, demo.app:
        demo.sign_up()
        demo.flaky()
        demo.refused()
        demo.executions()
        demo.runs()
    return demo.problems


def stay_up(servers: Servers) -> None:
    try:
        print(f"\nEngine and app stay up; try it yourself, for example {servers.app_url}/docs")
        print("Ctrl-C ends both.\n", flush=True)
        servers.echo = True
        while not servers.ended():
            time.sleep(0.2)
    except KeyboardInterrupt:
        print("\nstopping")


def conclude(problems: list[str], servers: Servers) -> int:
    """Say what was not as expected, or stay up until Ctrl-C. Returns the exit code."""
    if problems:
        print("\nNOT AS EXPECTED:", *problems, "", "The last lines of the servers:", sep="\n  ")
        print(*servers.log, sep="\n  ")
        return 1
    print(f"\n{bold('Everything is as expected.')}", flush=True)
    if not os.environ.get("DEMO_EXIT"):
        stay_up(servers)
    return 0


def run(drive: Callable[[Servers], list[str]], servers: Servers) -> int:
    """Show everything, and end the servers. Returns the exit code.

    Args:
        drive: returns the problems.
        servers: they may not be ready yet.
    """
    # `kill` works like Ctrl-C, also in the background of a shell, which ignores Ctrl-C there.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        try:
            problems = drive(servers)
        except (DemoError, httpx2.HTTPError, ValueError, KeyError) as error:
            problems = [f"the demo broke off: {type(error).__name__}: {error}"]
        return conclude(problems, servers)
    except KeyboardInterrupt:
        print()
        return 130
    finally:
        servers.stop()


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="stephttp-demo-") as directory:
        env = {"SIGNUP_DB": f"{directory}/signup.sqlite3"}
        app = "examples.fastapi_signup.app:app"
        return run(drive, Servers(directory, app_port(), app, env=env))


if __name__ == "__main__":
    sys.exit(main())
