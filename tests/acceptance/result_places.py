"""Places from which a caller gets a result: the engine's own address and `result_path`, each also
behind nginx with its default timeouts. The engine can be killed, and started again."""

from __future__ import annotations

import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx2

from tests import needs
from tests.acceptance.processes import DEADLINE, STEPHTTP, Process, eventually, free_port

RESULT_PATH = "/_result"
OWN_ADDRESS = ("direct", "nginx, engine")
"""Where the connection of a caller breaks when the engine is killed, or nginx answers 502: such
a caller opens the same address again."""

NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  {servers}
}}
"""
SERVER = "server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass {origin}; }} }}"


class Places:
    """An engine that can be killed, and shops before it, by the place where their results are.

    Args:
        stack: ends what is started.
        folder: for files.
    """

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._port = free_port()
        self.engine = f"http://127.0.0.1:{self._port}"
        self.start_engine()
        own = self.shop({"RESULT_PATH": RESULT_PATH})
        before_shop, before_engine = self._nginx(own, self.engine)
        self.shops = {
            "direct": self.shop({}),
            "result_path": own,
            "nginx, result_path": before_shop,
            "nginx, engine": self.shop({"INNGEST_DEV": before_engine}),
        }

    def start_engine(self) -> None:
        command = [*STEPHTTP, "dev", "--port", str(self._port), "--hold", "15s"]
        self._process = self._stack.enter_context(
            Process([*command, "--db", str(self._folder / "runs.sqlite3")])
        )
        self._process.wait_for("engine ready")

    def kill_engine(self) -> None:
        self._process.signal(signal.SIGKILL)
        self._process.wait()

    def shop(self, env: dict[str, str], *command: str) -> str:
        """Start a shop; by default under uvicorn. Returns its address."""
        port = free_port()
        origin = f"http://127.0.0.1:{port}"
        target = "tests.acceptance.waiting_shop"
        run = command or ("uvicorn", "--port", str(port), f"{target}:app")
        bound = [part.format(port=port, target=target) for part in run]
        known = {"SHOP_ORIGIN": origin, "INNGEST_DEV": self.engine}
        process = Process([sys.executable, "-m", *bound], env={**known, **env})
        self._stack.enter_context(process).wait_for("running on|Listening at")
        return origin

    def _nginx(self, *origins: str) -> list[str]:
        """Start nginx before some servers. Returns the addresses that it has there."""
        ports = [free_port() for _ in origins]
        pairs = zip(ports, origins, strict=True)
        servers = "\n  ".join(SERVER.format(port=port, origin=origin) for port, origin in pairs)
        file = self._folder / "nginx.conf"
        file.write_text(NGINX.format(folder=self._folder, servers=servers))
        nginx = needs.command("nginx")
        process = Process([nginx, "-c", str(file), "-p", str(self._folder)])
        self._stack.enter_context(process)
        addresses = [f"http://127.0.0.1:{port}" for port in ports]
        for address in addresses:
            eventually(lambda address=address: _answers(address))  # type: ignore[misc]
        return addresses

    def waiting(self) -> int:
        """How many runs wait for their event."""
        runs = httpx2.get(f"{self.engine}/v1/runs?limit=100", timeout=DEADLINE).json()["data"]
        return sum(run["status"] == "Running" for run in runs)

    def pay(self) -> None:
        """Send the event that the runs wait for."""
        event = {"name": "order/paid", "data": {}}
        httpx2.post(f"{self.engine}/e/key", json=event, timeout=DEADLINE).raise_for_status()


def _answers(address: str) -> bool:
    try:
        return httpx2.get(f"{address}{RESULT_PATH}", timeout=DEADLINE).status_code < 500
    except httpx2.TransportError:
        return False
