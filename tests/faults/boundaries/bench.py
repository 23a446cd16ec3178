"""A bench: an engine and one application, which come back when they are killed, and their callers.

    callers -> application -> [proxy] -> engine -> application

The proxy spoils nothing; it notes what the engine has acknowledged.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx2

from tests.acceptance.processes import free_port
from tests.faults.boundaries import derive
from tests.faults.boundaries.parts import PATIENCE, PatientProxy, Program
from tests.faults.judge import judge
from tests.faults.ledger import Ledger
from tests.faults.proxy import Message

SIGNING_KEY = "signkey-test-" + "5e" * 32
EVENT_KEY = "event-key-of-the-boundaries"
PASSWORD = "password of the boundaries"
Part = dict[str, Any]

_HERE = "tests.faults.boundaries"
_NONCE = re.compile(rb"N[0-9a-f]{32}")
_AGAIN = frozenset({202, 409, 429, 502, 503, 504})
_APPS = {
    "async": ["uvicorn", f"{_HERE}.app_async:app", "--log-level", "warning"],
    # With threads, connections are kept.
    "sync": ["gunicorn", f"{_HERE}.app_sync:app", "--log-level", "warning", "--threads", "8"],
}


class Bench:
    """An engine on a file and an application; an async context manager.

    Args:
        directory: an empty folder.
        app: `async` (FastAPI under uvicorn) or `sync` (Flask under gunicorn).
        options: further ones of the engine; `{app}` is the address of the application.
        armed: the first moment and boundary, for what happens as the engine starts.
    """

    def __init__(
        self, directory: Path, app: str, options: Sequence[str] = (), armed: str = ""
    ) -> None:
        self.directory, self.kind = directory, app
        self.database = directory / "runs.db"
        self.ledger = Ledger(directory / "ledger")
        self._armed, self._taken = directory / "armed", directory / "taken"
        if armed:
            self._armed.write_text(armed)
        known = {
            kind: {
                "names": [one.name for one in derive.boundaries() if one.kind == kind],
                "makers": derive.makers(kind),
            }
            for kind in ("send", "call")
        }
        (directory / "boundaries.json").write_text(json.dumps(known))
        engine_port, self.app_port = free_port(), free_port()
        self.engine_url = f"http://127.0.0.1:{engine_port}"
        self.app_url = f"http://127.0.0.1:{self.app_port}"
        self.proxy = PatientProxy(engine_port, self._passed)
        common = {
            "INNGEST_SIGNING_KEY": SIGNING_KEY,
            "INNGEST_EVENT_KEY": EVENT_KEY,
            "FAULTS_WORLD": str(directory),
            "FAULTS_ORIGIN": self.app_url,
            "STEPHTTP_DASHBOARD_PASSWORD": PASSWORD,
        }
        self._common = common
        words = [
            "stephttp", "start", "--db", str(self.database), "--allow-host", "127.0.0.1",
            "--port", str(engine_port), "--retry-delay", "100ms", "--retry-max-delay", "500ms",
            "--rate-limit", "0", "--grace", "1s",
            *(one.replace("{app}", self.app_url) for one in options),
        ]  # fmt: skip
        self.engine = Program(words, common)
        self._tasks: list[asyncio.Task[None]] = []
        self._labels = 0

    async def __aenter__(self) -> Bench:
        await self.proxy.start()
        env = self._common | {"INNGEST_BASE_URL": f"http://127.0.0.1:{self.proxy.port}"}
        place = f"127.0.0.1:{self.app_port}"
        where = ["--bind", place] if self.kind == "sync" else ["--port", str(self.app_port)]
        self.app = Program([*_APPS[self.kind], *where], env)
        self._tasks.append(asyncio.create_task(self._keep()))
        self.http = httpx2.AsyncClient(timeout=30)
        await self.alive()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for program in (self.app, self.engine):
            program.end()
        await self.http.aclose()
        await self.proxy.stop()
        self.ledger.close()

    async def _keep(self) -> None:
        while True:
            self.engine.keep()
            self.app.keep()
            await asyncio.sleep(0.02)

    def _passed(self, request: Message, answer: Message) -> None:
        """Note what the engine acknowledged."""
        if answer.status < 300 and b'"error":"' not in answer.body.replace(b'"error":""', b""):
            nonces = [one.decode() for one in _NONCE.findall(request.body)]
            if nonces:
                self.ledger.write("ack", nonces=nonces)

    async def alive(self) -> None:
        """Return once both answer."""
        await self.until(self.engine_url + "/health")
        await self.until(self.app_url + "/up")

    # The boundary.

    def arm(self, moment: str, boundary: derive.Boundary | str) -> None:
        """Let the process die that first gets to a boundary."""
        self._taken.unlink(missing_ok=True)
        # At once: a process may be about to read it.
        new = self._armed.with_suffix(".new")
        new.write_text(f"{moment} {boundary}")
        new.rename(self._armed)

    @property
    def has_died(self) -> bool:
        """Whether a process of the application died; the engine loses nothing."""
        return self._taken.exists() and " send " in self._taken.read_text()

    def disarm(self) -> bool:
        """Let no process die any more; return whether one did."""
        self._armed.unlink(missing_ok=True)
        died = self._taken.exists()
        self._taken.unlink(missing_ok=True)
        return died

    # Callers.

    async def until(self, url: str, method: str = "GET", **how: Any) -> httpx2.Response:
        """Send a request until it is answered by more than an error of a server."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                answer = await self.http.request(method, url, **how)
                if answer.status_code < 500:
                    return answer
                last = f"{answer.status_code} {answer.text[:300]}"
            except httpx2.TransportError as error:
                last = repr(error)
            assert time.monotonic() < deadline, f"{method} {url}: {last}\n{self.said()}"
            await asyncio.sleep(0.05)

    async def manage(self, method: str, path: str, **how: Any) -> httpx2.Response:
        """Ask the engine, with its key."""
        headers = {"authorization": f"Bearer {SIGNING_KEY}"}
        return await self.until(self.engine_url + path, method, headers=headers, **how)

    def label(self) -> str:
        """Return a name that nothing else has."""
        self._labels += 1
        return f"{self.kind}-{self._labels}"

    async def order(
        self, *parts: Part, mode: str = "blended", key: bool = True, label: str = "",
        headers: dict[str, str] | None = None, more: Any = None, judged: bool = True,
        path: str = "/work",
    ) -> None:  # fmt: skip
        """Let the application work through parts, follow the answer, and note all that.

        With a key the request is sent until it is answered, and then once more: that answer must
        be the same. Without one it is sent once.

        Args:
            more: makes the body larger.
            judged: whether the handler's answer is to come; not if the run is cancelled.
            path: of the endpoint.
        """
        label = label or self.label()
        program = {"label": label, "parts": parts, "mode": mode, "more": more}
        self.ledger.write("request", label=label, keyed=key)
        sent = dict(headers or {})
        for _ in range(2 if key else 1):
            if key:
                sent["idempotency-key"] = label
            answer = await self._post(path, program, sent, patient=key)
            if answer is None:
                return  # It was not accepted, as far as this caller can know.
            if not judged:
                return
            self.ledger.write("accepted", label=label, run=answer.headers.get("x-run-id", "?"))
            values = await self._follow(answer)
            self.ledger.write("got", label=label, **values)

    async def _post(
        self, path: str, program: Any, headers: dict[str, str], *, patient: bool
    ) -> httpx2.Response | None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with suppress(httpx2.TransportError):
                url = self.app_url + path
                answer = await self.http.post(url, json=program, headers=headers)
                if answer.status_code == 202 or answer.status_code not in _AGAIN:
                    return answer
            if not patient:
                return None
            await asyncio.sleep(0.05)
        raise AssertionError(f"{program['label']} has a key, and no answer\n{self.said()}")

    async def _follow(self, answer: httpx2.Response) -> dict[str, Any]:
        """Wait at the address of the result for as long as it takes."""
        deadline = time.monotonic() + PATIENCE
        while answer.status_code in (202, 303):
            at = urljoin(str(answer.request.url), answer.headers["location"])
            while True:
                last: Any = None
                with suppress(httpx2.TransportError):
                    last = await self.http.get(at)
                    if last.status_code not in _AGAIN:
                        break
                said = last and f"{last.status_code} {last.text[:300]}"
                assert time.monotonic() < deadline, f"{at}: {said}\n{self.said()}"
                await asyncio.sleep(0.05)
            answer = last
        try:
            values = answer.json()["values"]
        except (ValueError, KeyError, TypeError):
            values = answer.text[:500]
        cookies = answer.headers.get_list("set-cookie")
        return {"status": answer.status_code, "values": values, "cookies": cookies}

    async def runs(self, *states: str) -> list[dict[str, Any]]:
        """Return the runs of the engine that are in one of these states."""
        query = "&".join(f"status={state}" for state in states)
        found: list[dict[str, Any]] = (await self.manage("GET", f"/v1/runs?{query}")).json()["data"]
        return found

    async def was_accepted(self, label: str) -> bool:
        """Return whether an order has an answer, be it the address of its result."""
        found = (one["kind"] for one in self.ledger.entries() if one.get("label") == label)
        return "accepted" in found

    def run_of(self, label: str) -> str:
        """Return the id of the run of an order."""
        found = (one for one in self.ledger.entries() if one.get("label") == label)
        return next(str(one["run"]) for one in found if one["kind"] == "answer")

    async def waiting(self, label: str) -> str:
        """Return the id of the run of an order once it waits, seen from outside."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            began = [one for one in self.ledger.entries() if one.get("label") == label]
            ids = {one["run"] for one in began if one["kind"] == "call"}
            for run in await self.runs("waiting"):
                if run["run_id"] in ids:
                    return str(run["run_id"])
            await asyncio.sleep(0.02)
        raise AssertionError(f"{label} does not wait\n{self.said()}")

    async def broken(self, since: int) -> list[str]:
        """Wait until no run is open; return which promises were broken since then, a line each."""
        deadline = time.monotonic() + PATIENCE
        while True:
            left = await self.runs("running", "waiting")
            if not left or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.05)
        entries = list(self.ledger.entries(since))
        keyed = [one["label"] for one in entries if one["kind"] == "request" and one["keyed"]]
        verdict = judge(entries, keyed)
        verdict.lost += [f"run {run['run_id']} has not ended" for run in left]
        return verdict.broken

    def said(self) -> str:
        """Return the last words of both programs."""
        texts = [
            program.process.said()[-1500:]
            for program in (self.engine, self.app)
            if program.process is not None
        ]
        return "\n".join(texts)
