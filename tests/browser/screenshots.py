"""`make screenshots`: every page, light and dark, wide and narrow, of an engine with a busy hour.

The hour is made on a virtual clock that ends now; then a real engine takes over the file, and the
shop beside it makes the runs that are shown in full.

    python -m tests.browser.screenshots [folder]
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

import httpx2
from playwright.sync_api import Page, sync_playwright

from stephttp._wire.ids import hash_step_id
from stephttp.engine import Settings, VirtualClock, create_app
from stephttp.engine.model.tokens import new_ulid
from tests.acceptance.processes import free_port
from tests.browser.conftest import Site, chromium, site

SIZES = {"wide": (1440, 900), "narrow": (360, 780)}
THEMES = ("light", "dark")
HOUR = 3600
EMPTY = {"welcome": "/runs", "events-empty": "/events"}
SDK = {"x-inngest-sdk": "stephttp-py:v0.1.0"}

ENDPOINTS = {
    "get-price": ("GET", "/prices/sku-{n}", 0.006, 0.0, 0.006, 7.0),
    "place-order": ("POST", "/orders", 0.12, 1.0, 0.02, 1.4),
    "sign-up": ("POST", "/signups", 0.03, 0.85, 0.03, 0.8),
    "import-catalogue": ("POST", "/imports", 0.4, 0.5, 0.22, 0.3),
}
"""Method, path, seconds of the first phase, parts that go async and that fail, runs a minute."""


class Hour:
    """An hour of traffic, on a clock of its own."""

    def __init__(self, path: Path, origin: str) -> None:
        self.rng = Random(11)
        self.origin = origin
        self.clock = VirtualClock(int(time.time() * 1000) - HOUR * 1000)
        transport = httpx2.MockTransport(self._endpoint)
        settings = Settings(db_path=str(path))
        self.app = create_app(settings, clock=self.clock, rng=self.rng, transport=transport)
        self.failing: set[str] = set()

    async def pass_by(self) -> None:
        """Let the hour pass."""
        engine = self.app.state.engine
        await engine.start()
        wire = httpx2.ASGITransport(app=self.app)
        async with httpx2.AsyncClient(transport=wire, base_url="http://localhost") as client:
            for minute in range(60):
                busy = 0.6 + 0.4 * ((minute * 7) % 11) / 10 + (1.1 if 34 <= minute <= 41 else 0)
                for name, (*_, rate) in ENDPOINTS.items():
                    for _ in range(round(rate * busy * self.rng.uniform(0.5, 1.6))):
                        await self._request(client, name, trouble=36 <= minute <= 40)
                for _ in range(12):
                    self.clock.advance(5)
                    await engine.idle()
        await engine.stop()

    async def _request(self, client: httpx2.AsyncClient, name: str, *, trouble: bool) -> None:
        method, path, seconds, share, failures, _ = ENDPOINTS[name]
        took = seconds * self.rng.lognormvariate(0, 0.45) * (4 if trouble else 1)
        now_ms = self.clock.now_ms()
        began_ms = now_ms - round(took * 1000)
        run_id = new_ulid(began_ms, self.rng)
        fails = self.rng.random() < failures * (3 if trouble else 1)
        ops: list[dict[str, Any]] = [self._step("load", began_ms, took * 0.7)]
        if self.rng.random() < share:
            if fails:
                self.failing.add(run_id)
            wait = self.rng.uniform(2, 240)
            step_id = hash_step_id("cool-off")
            ops.append({"op": "Sleep", "id": step_id, "name": f"{wait:.0f}s",
                        "userland": {"id": "cool-off"}})  # fmt: skip
        elif fails:
            ops.append(
                self._complete(500, took, "TimeoutError: no answer from the database in 2 s")
            )
        else:
            ops.append(self._complete(200, took))
        data = {
            "domain": self.origin, "method": method, "path": path.format(n=self.rng.randrange(90)),
            "fn": name, "content_type": "application/json", "ip": "192.0.2.10",
            "body": base64.b64encode(b'{"id": "o-1"}').decode(),
        }  # fmt: skip
        event = {"name": "inngest/http.request", "ts": began_ms, "data": data}
        first = {"run_id": run_id, "event": event, "steps": ops, "retries": 0}
        answer = await client.post("/v1/checkpoint", json=first, headers=SDK)
        assert answer.status_code == 200, answer.text

    def _endpoint(self, request: httpx2.Request) -> httpx2.Response:
        run_id = request.headers["x-run-id"]
        if run_id in self.failing:
            return httpx2.Response(500, headers=SDK, text="CardError: the issuer does not answer")
        return httpx2.Response(206, headers=SDK, json=self._complete(201, 0.01))

    def _step(self, name: str, began_ms: int, seconds: float) -> dict[str, Any]:
        timing = {"a": began_ms * 1_000_000, "b": round(seconds * 1e9)}
        return {"op": "StepRun", "id": hash_step_id(name), "name": name, "data": 1,
                "userland": {"id": name}, "timing": timing}  # fmt: skip

    def _complete(self, status: int, seconds: float, error: str = "") -> dict[str, Any]:
        answer = {
            "status_code": status, "headers": {"content-type": "application/json"},
            "body": base64.b64encode(b"{}").decode(), "duration": round(seconds * 1e9),
            "error": error,
        }  # fmt: skip
        return {"op": "RunComplete", "id": hash_step_id("c"), "data": answer}


def scenes(live: Site) -> dict[str, str]:
    """Make runs worth a picture; names of pictures, with the paths of their pages."""
    done = live.order("o-1041", amount=6400)
    live.pack("o-1041")
    failing = live.request("POST", "/imports", name="winter", failures=9)
    flaky = live.request("POST", "/imports", name="autumn", failures=2)
    asleep = live.request("POST", "/signups", name="Grace")
    waiting = live.order("o-1042", amount=4200)
    for sku in ("lamp", "book", "missing-chair"):
        live.request("GET", f"/prices/{sku}")
    deadline = time.monotonic() + 60
    while {live.run(one)["status"] for one in (done, failing, flaky)} & {"Running"}:
        assert time.monotonic() < deadline, "the runs do not end"
        time.sleep(0.2)
    for name in ("ink", "lamps"):
        invoked = {"data": {"order": name, "total": 17.5, "urgent": name == "ink"}}
        live.http.post(f"{live.engine}/invoke/shop-send-invoice", json=invoked).raise_for_status()
    live.queue_up()
    event = live.http.get(f"{live.engine}/v1/events").json()["data"][0]["internal_id"]
    return {
        "overview": "/", "runs": "/runs", "run-waiting": f"/runs/{waiting}",
        "run-failed": f"/runs/{failing}", "run-completed": f"/runs/{flaky}",
        "run-asleep": f"/runs/{asleep}", "events": "/events", "event": f"/events/{event}",
        "send": "/events/new", "apps": "/apps",
        "queues": "/queues", "queue": f"/functions/{live.function('shop-print-label')}",
        "function": f"/functions/{live.function('shop-send-invoice')}",
    }  # fmt: skip


def open_details(page: Page, name: str) -> None:
    """Unfold what tells the most."""
    if name == "run-failed":
        page.locator(".entry", has_text="save-rows").locator("summary").first.click()
    if name == "run-completed":
        page.locator(".entry", has_text="download").locator("summary").first.click()


def shoot(browser: Any, base: str, pages: dict[str, str], folder: Path) -> None:
    """Take all pictures of some pages."""
    for theme in THEMES:
        for size, (width, height) in SIZES.items():
            context = browser.new_context(
                viewport={"width": width, "height": height}, color_scheme=theme,
                reduced_motion="reduce",
            )  # fmt: skip
            page = context.new_page()
            for name, path in pages.items():
                page.goto(f"{base}{path}")
                if "login" not in name:
                    page.wait_for_selector('[data-live-state="on"]', state="attached")
                page.evaluate("document.fonts.ready")
                open_details(page, name)
                page.evaluate("scrollTo(0, 0)")
                page.screenshot(path=folder / f"{name}-{theme}-{size}.png", full_page=True)
            context.close()


def main() -> None:
    """Write all pictures into a folder."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    path = chromium()
    if path is None:
        sys.exit("make screenshots needs chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory() as made:
        password, database = Path(made) / "password", Path(made) / "runs.sqlite3"
        password.write_text("a password for pictures\n", encoding="utf-8")
        port = free_port()
        asyncio.run(Hour(database, f"http://127.0.0.1:{port}").pass_by())
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            with site("--dashboard-password-file", str(password)) as closed:
                shoot(browser, closed.engine, {"login": "/login"}, folder)
            with site() as fresh:
                shoot(browser, fresh.engine, EMPTY, folder)
            with site("--db", str(database), port=port, functions=True) as live:
                shoot(browser, live.engine, scenes(live), folder)
            browser.close()
    print(json.dumps({"folder": str(folder), "pictures": len(list(folder.glob("*.png")))}))


if __name__ == "__main__":
    main()
