"""The program behind `make demo-events`: an endpoint, a Python function and a TypeScript function,
started by one event, and a client that explains what happened.

It stays up until Ctrl-C. With DEMO_EXIT=1 it ends when the client is done, with exit code 0, or
with 1 and a list of the differences. Without Node it says so, and leaves the TypeScript half out.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx2

from examples.demo import (
    START_DEADLINE,
    DemoError,
    Servers,
    app_port,
    run,
    show_answer,
    table,
    title,
)

HERE = Path(__file__).resolve().parent / "order_events"
ORDER = {"id": "o1", "item": "a book"}
INSTALL_DEADLINE = 150.0
# Node ends with this process, however that ends: then its standard input is closed.
WITH_US = "data:text/javascript,process.stdin.resume().on('end',()=>process.exit())"


class NodeApp:
    """The TypeScript function, served by Node.

    Args:
        servers: whose log gets its lines, too.
        engine_url: the engine.
    """

    def __init__(self, servers: Servers, engine_url: str) -> None:
        words = ["node", "--import", WITH_US, "functions.mjs"]
        print(
            f"$ cd examples/{HERE.name} && INNGEST_DEV={engine_url} {words[0]} {words[-1]}",
            flush=True,
        )
        self._log = servers.log
        self._process = subprocess.Popen(
            words,
            cwd=HERE,
            env={**os.environ, "INNGEST_DEV": engine_url, "PORT": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )
        self._up = threading.Event()
        self.url = ""
        threading.Thread(target=self._read, daemon=True).start()
        if not self._up.wait(START_DEADLINE) or not self.url:
            self.stop()
            raise DemoError("the TypeScript function did not start")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._log.append(line.rstrip("\n"))
            if "listening on " in line:
                self.url = line.partition("listening on ")[2].strip()
                self._up.set()
        self._up.set()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


def why_without_node() -> str:
    """Install what the TypeScript function needs, and return why that is not possible, if so."""
    lacking = [name for name in ("node", "npm") if shutil.which(name) is None]
    if lacking:
        return f"there is no {' and no '.join(lacking)} here (Debian: apt-get install nodejs npm)"
    major = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    if int(major.strip().lstrip("v").split(".")[0]) < 20:
        return f"it needs Node 20, and this is {major.strip()}"
    if (HERE / "node_modules" / "inngest" / "package.json").is_file():
        return ""
    print(f"$ cd examples/{HERE.name} && npm install", flush=True)
    try:
        done = subprocess.run(
            ["npm", "install"], cwd=HERE, capture_output=True, text=True, check=False,
            timeout=INSTALL_DEADLINE,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"npm install took longer than {INSTALL_DEADLINE:.0f} seconds"
    return "" if done.returncode == 0 else f"npm install failed: {done.stderr.strip()[-500:]}"


class EventsDemo:
    """The scripted client, and the problems that it found.

    Args:
        engine_url: of the engine.
        app_url: of the endpoint and the Python function.
        with_node: whether the TypeScript function is there.
    """

    def __init__(self, engine_url: str, app_url: str, *, with_node: bool) -> None:
        self.engine = httpx2.Client(base_url=engine_url, timeout=60.0)
        self.app = httpx2.Client(base_url=app_url, timeout=60.0)
        self.with_node = with_node
        self.problems: list[str] = []

    def expect(self, what: str, wanted: object, found: object) -> None:
        if wanted != found:
            self.problems.append(f"{what}: expected {wanted!r}, found {found!r}")

    def register(self, name: str, url: str) -> None:
        """Let an app tell the engine which functions it has."""
        print(f"$ curl -X PUT {url}")
        answer = httpx2.put(url, timeout=60.0)
        print(f"  {answer.status_code} {answer.text}")
        self.expect(f"the status for registering {name}", 200, answer.status_code)

    def order(self) -> None:
        title("POST /orders: the endpoint charges, sends order/placed, and waits for order/packed")
        print(f"  {json.dumps(ORDER)}")
        started = time.monotonic()
        answer = self.app.post("/orders", json=ORDER)
        show_answer(answer, started)
        self.expect("the first answer's status", 303, answer.status_code)
        if answer.status_code == 303:
            print("  following the redirect; it answers when the order is packed ...", flush=True)
            answer = self.engine.get(answer.headers["location"])
            show_answer(answer, started)
        self.expect("the order's status", 201, answer.status_code)
        told = "the customer: a book is paid"
        wanted = {"charge": "paid for a book", "shelf": 6, "told": told}
        self.expect("the order's body", wanted, answer.json())

    def functions(self) -> None:
        title("What the event order/placed has started")
        wanted: dict[str, Any] = {
            "shop-pack": "the warehouse: a book is on shelf 6",
        }
        if self.with_node:
            wanted["mail-thank"] = {"note": "Thank you for a book!", "sent": True}
        runs = self.started(len(wanted))
        outputs = {run["function"]: json.loads(base64.b64decode(run["output"])) for run in runs}
        lines: list[tuple[Any, ...]] = []
        for one in runs:
            lines.append((one["function"], one["status"], "", json.dumps(outputs[one["function"]])))
            steps = self.engine.get(f"/v1/runs/{one['run_id']}/steps").json()["data"]
            lines += [("", step["status"], step["name"], "") for step in steps]
        table(("function", "status", "step", "returned"), lines)
        self.expect("what the functions returned", wanted, outputs)

    def started(self, number: int) -> list[dict[str, Any]]:
        """Return the runs that the event has started, once they have ended."""
        deadline = time.monotonic() + START_DEADLINE
        while True:
            (event,) = self.engine.get("/v1/events", params={"name": "order/placed"}).json()["data"]
            listed = self.engine.get(f"/v1/events/{event['internal_id']}/runs").json()["data"]
            ended = [run for run in listed if run["ended_at"]]
            if len(ended) >= number or time.monotonic() > deadline:
                paths = [f"/v1/runs/{run['run_id']}" for run in ended]
                found = [self.engine.get(path).json()["data"] for path in paths]
                return sorted(found, key=lambda run: str(run["function"]), reverse=True)
            time.sleep(0.05)

    def messages(self) -> None:
        title("What was said by `tell`, which the endpoint and the Python function share")
        found = self.app.get("/messages").json()
        for message in found:
            print(f"  {message}")
        wanted = ["the customer: a book is paid", "the warehouse: a book is on shelf 6"]
        self.expect("the messages, once each", wanted, found)


def drive(stack: ExitStack, servers: Servers) -> list[str]:
    """Show everything, and return the problems.

    Args:
        stack: ends the TypeScript function.
        servers: the others.
    """
    reason = why_without_node()
    engine_url = servers.wait_until_ready()
    node = None
    if reason:
        print(f"SKIPPED: the TypeScript function: {reason}")
    else:
        node = NodeApp(servers, engine_url)
        stack.callback(node.stop)
    demo = EventsDemo(engine_url, servers.app_url, with_node=node is not None)
    with demo.engine, demo.app:
        demo.register("the Python function", f"{servers.app_url}/api/inngest")
        if node is not None:
            demo.register("the TypeScript function", f"{node.url}/api/inngest")
        demo.order()
        demo.functions()
        demo.messages()
    return demo.problems


def main() -> int:
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="stephttp-demo-"))
        app = "examples.order_events.app:app"
        # No app of this machine that happens to listen takes part.
        servers = Servers(directory, app_port(), app, ["--no-discovery"])
        return run(partial(drive, stack), servers)


if __name__ == "__main__":
    sys.exit(main())
