"""What the server makes of ops and answers (docs/protocol.md 6.3 to 6.5, 13.1).

    answer with several ops, one of which plans,    its ids replace the pending ones
        at request version 2
    a step is saved for the first time              its id is not pending any more
    an op has ended                                 a call, if no id is pending, or it races
    a checkpoint                                    its ops one by one, waits for events first

A job is made once under each name, so an op that is reported again does nothing; but a gateway
makes its request again, and a signal takes its name again.
"""

from __future__ import annotations

import heapq
import itertools
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

import httpx2

from stephttp._wire.durations import parse_duration
from tests.realserver.state import MAX_STEPS, Item, Op, Pause, RealRun

START = 1_795_352_000.0
TABLE = (15, 30, 60, 120, 300, 600, 1200, 2400, 3600, 7200)
CHECKPOINT_RETRY = 5.0
YEAR = 365 * 86_400.0
LAZY = frozenset({"DeferAdd", "DeferAbort"})
PLANNING = frozenset({
    "StepPlanned", "Sleep", "WaitForEvent", "WaitForSignal", "InvokeFunction", "Gateway",
    "AIGateway",
})  # fmt: skip
OPS = PLANNING | LAZY | {
    "None", "Step", "StepRun", "StepError", "StepFailed", "RunComplete", "SyncRunComplete",
    "DiscoveryRequest",
}  # fmt: skip
_EARLY = LAZY | {"WaitForEvent"}
"""Ops of a checkpoint that are applied before the others, wherever they stand."""


class Executor:
    """Runs, queue and clock. Time is virtual."""

    def __init__(self) -> None:
        self.now = START
        self.runs: dict[str, RealRun] = {}
        self.signals: dict[str, tuple[str, str]] = {}
        """Who waits for a signal: run and step."""
        self.fetched: list[str] = []
        """The steps for which a request was made, once for each."""
        self.fetch: Callable[[Op], dict[str, Any]] = lambda op: {
            "data": {"url": op["opts"]["url"], "status_code": 200, "headers": {}, "body": "{}"}
        }
        self.private: bool = True
        """Whether the addresses of gateways are private ones."""
        self.cloud = False
        """Whether it is `inngest start`, and not the development server."""
        self.between_ops: Callable[[RealRun], Awaitable[None]] | None = None
        """Called in a checkpoint after the waits for events, and after each further op."""
        self.rng = random.Random(7)
        self.queue: list[tuple[float, int, Item]] = []
        self.order = itertools.count()

    # --- the queue ----------------------------------------------------------------------------

    def push(self, seconds: float, item: Item) -> None:
        """Queue an item again."""
        heapq.heappush(self.queue, (self.now + seconds, next(self.order), item))

    def enqueue(self, run: RealRun, job: str, seconds: float, item: Item) -> None:
        """Queue a new item, unless there was one of this name."""
        if job not in run.jobs:
            run.jobs.add(job)
            item.job = f"{run.run_id}-{job}"
            self.push(seconds, item)

    def discover(self, run: RealRun, job: str, race: bool = False, seconds: float = 0) -> None:
        """Call the whole handler, if something that has ended leads to that."""
        if run.wakes(race):
            self.enqueue(run, job, seconds, Item(run.run_id, race=race))

    def again(self, run: RealRun, item: Item, table: Sequence[int] = TABLE) -> None:
        """Call again after a failure, if an attempt is left. If not, nobody ever ends the run."""
        if item.attempt < run.function.config.retries:
            delay = table[min(item.attempt, len(table) - 1)] + self.rng.uniform(0, 30)
            self.push(delay, Item(
                run.run_id, item.attempt + 1, item.generation + 1, item.step_id, "", item.job,
                item.race,
            ))  # fmt: skip

    def due(self, item: Item) -> RealRun | None:
        """Take an item that is due. Returns its run, if the application is to be called."""
        run = self.runs[item.run_id]
        if run.over:
            return None  # "cannot load metadata", which is not tried again
        if item.saves:
            saves, item.saves = item.saves, ""
            if self._is_timeout(item) and run.pauses.pop(saves, None) is None:
                return None  # what it waited for has come
            run.save(saves, None)
            if not run.wakes(item.race):
                return None
        return run

    def _is_timeout(self, item: Item) -> bool:
        return item.job.endswith("-timeout")

    # --- checkpoints --------------------------------------------------------------------------

    async def checkpoint(self, run: RealRun, ops: Sequence[Op]) -> None:
        """Apply the ops of a checkpoint."""
        run.force_plan = run.force_plan or sum(op["op"] not in LAZY for op in ops) > 1
        ends = any(op["op"] == "RunComplete" for op in ops)
        failed = 0
        early = [op for op in ops if op["op"] in _EARLY]
        late = [op for op in ops if op["op"] not in _EARLY]
        for op in early:
            self._single(run, op, checkpoint=True)
        for op in late:
            if self.between_ops is not None:
                await self.between_ops(run)
            if run.over:
                return
            if op["op"] in ("StepRun", "Step"):
                if not ends:
                    run.save(op["id"], {"data": op.get("data")})
            elif op["op"] == "RunComplete":
                # Whatever status and headers it has, only the body is kept (docs/protocol.md 7.2).
                run.end("Completed", peel(op["data"]["body"]))
            elif op["op"] == "StepError":
                failed += 1  # each counts as an attempt of the same item
                self._failed_in_checkpoint(run, op, failed)
            else:
                self._single(run, op, checkpoint=True)
            if not run.reentered and len(run.memos) > MAX_STEPS:
                run.end("Failed", {"error": {"error": "function has too many steps"}})

    def _failed_in_checkpoint(self, run: RealRun, op: Op, attempt: int) -> None:
        if run.function.config.retries >= attempt and not (op["error"] or {}).get("noRetry"):
            self.push(CHECKPOINT_RETRY, Item(run.run_id, attempt, job=f"{run.run_id}-{op['id']}-r"))
        else:
            run.save(op["id"], {"error": op["error"]})
            self.discover(run, f"{op['id']}-ended")

    # --- answers ------------------------------------------------------------------------------

    def answered(self, run: RealRun, item: Item, answer: httpx2.Response) -> None:
        """Take the answer to a call."""
        if run.over:
            return
        good = 200 <= answer.status_code < 300
        if "x-inngest-sdk" not in answer.headers:
            error = {"error": "", "name": "Server returned a fatal error"}
            run.end("Completed", answer.text if good else error)
            return
        if run.version == -1:
            run.version = int(answer.headers.get("x-inngest-req-version", "0"))
        no_retry = answer.headers.get("x-inngest-no-retry") == "true"
        if answer.content[:1] == b"[":
            ops = json.loads(answer.content)
            if all(op["op"] in OPS for op in ops):
                self._ops(run, item, ops, answer)
            else:
                run.end("Completed", answer.text)
        elif good or no_retry:
            op = json_or_none(answer.content)
            complete = isinstance(op, dict) and op.get("op") == "RunComplete"
            whole = isinstance(op, dict) and op.keys() == {"data"}
            output = {"data": op["data"]} if op and (complete or whole) else answer.text
            run.end("Failed" if no_retry else "Completed", output)
        else:
            self.again(run, item)  # retry-after is ignored here

    def _ops(self, run: RealRun, item: Item, ops: list[Op], answer: httpx2.Response) -> None:
        work = [op for op in ops if op["op"] != "None" and op["op"] not in LAZY]
        if not work:
            if not any(op.get("id") for op in ops):
                self._drive_again(run)
            return
        run.force_plan = len(work) > 1 or (run.force_plan and run.version < 2)
        if len(work) > 1 and run.version >= 2 and any(op["op"] in PLANNING for op in work):
            run.pending = {op["id"] for op in work}
        retried = False
        for op in work:
            if run.over:
                return
            if op["op"] != "StepError":
                self._single(run, op)
                continue
            final = item.attempt >= run.function.config.retries or op["error"].get("noRetry")
            if final or answer.headers.get("x-inngest-no-retry") == "true":
                run.save(op["id"], {"error": op["error"]})
                self.discover(run, f"{op['id']}-ended", races(op))
            elif not retried:  # several are one item
                retried = True
                after = answer.headers.get("retry-after")
                self.again(run, item, (self._seconds_after(after),) if after else TABLE)

    def _seconds_after(self, text: str) -> int:
        seconds = int(text) if len(text) <= 7 else seconds_of(text, self.now)
        return min(86_400, max(1, int(seconds)))

    def _drive_again(self, run: RealRun) -> None:
        """Take an answer without ops: a call named after the last saved step, if that had none."""
        last = run.saved[-1] if run.saved else ""
        if last and not run.jobs & {last, f"{last}-ended", f"{last}-timeout"}:
            self.enqueue(run, f"{last}-ended", 0, Item(run.run_id))

    # --- ops ----------------------------------------------------------------------------------

    def _single(self, run: RealRun, op: Op, *, checkpoint: bool = False) -> None:
        """Carry out an op, other than a failure that may be tried again."""
        kind, step, opts = op["op"], op["id"], op.get("opts") or {}
        race = races(op)
        if kind in ("StepRun", "Step"):
            run.save(step, {"data": op.get("data")})
            self.discover(run, f"{step}-ended", race)
        elif kind == "StepFailed":
            if run.save(step, {"error": op["error"]}):
                self.discover(run, f"{step}-ended", race)
        elif kind in ("RunComplete", "SyncRunComplete"):
            run.end("Completed", None)  # in an array the body is lost
        elif kind == "Sleep":
            seconds = seconds_of(opts.get("duration") or op.get("name") or "", self.now)
            self.enqueue(run, step, seconds, Item(run.run_id, saves=step, race=race))
        elif kind == "WaitForEvent":
            name = opts.get("event") or op["name"]
            self._wait(run, step, Pause(name, opts, race), seconds_of(opts["timeout"], self.now))
        elif kind == "WaitForSignal":
            self._wait_for_signal(run, step, Pause(opts["signal"], opts, race), checkpoint)
        elif kind == "InvokeFunction":
            self._invoke(run, step, opts, race)
        elif kind == "StepPlanned":
            self.enqueue(run, f"{step}-plan", 0, Item(run.run_id, step_id=step, race=race))
        elif kind == "DiscoveryRequest":
            self.discover(run, f"{step}-asked", race, 0.1)
        elif kind in ("Gateway", "AIGateway"):
            self._fetch(run, op, race, checkpoint)

    def _wait(self, run: RealRun, step: str, pause: Pause, seconds: float) -> None:
        if step not in run.memos:  # one that has ended is written again, and can do nothing
            run.pauses[step] = pause
        self.enqueue(run, f"{step}-timeout", seconds, Item(run.run_id, saves=step, race=pause.race))

    def _wait_for_signal(self, run: RealRun, step: str, pause: Pause, checkpoint: bool) -> None:
        owner_id, owned = self.signals.get(pause.name, ("", ""))
        owner = self.runs.get(owner_id)
        taken = owner is not None and not owner.over and owned in owner.pauses
        taken = taken and (owner_id, owned) != (run.run_id, step)
        if taken and pause.opts.get("conflict") != "replace":
            if not checkpoint:  # there it is only logged
                message = f"Signal conflict; {pause.name}"
                run.end("Failed", {"error": {
                    "error": f"Error: {message}", "name": "Error", "message": message,
                }})  # fmt: skip
            return
        self.signals[pause.name] = run.run_id, step
        timeout = pause.opts.get("timeout")
        self._wait(run, step, pause, seconds_of(timeout, self.now) if timeout else YEAR)

    def _invoke(self, run: RealRun, step: str, opts: dict[str, Any], race: bool) -> None:
        slugs = {one.event["data"].get("fn") for one in self.runs.values()}
        if opts["function_id"] in slugs:  # found, and then looked up under another id
            pause = Pause("", opts, race)
            timeout = opts.get("timeout")
            self._wait(run, step, pause, seconds_of(timeout, self.now) if timeout else YEAR)
            return
        message = f"could not find function with ID: {opts['function_id']}"
        run.save(step, {"error": {"error": "Error", "name": "Error", "message": message}})
        self.discover(run, f"{step}-ended", race)

    def _fetch(self, run: RealRun, op: Op, race: bool, checkpoint: bool) -> None:
        """Make the request of a gateway, in the handler of the ops: each time."""
        step = op["id"]
        if checkpoint and self.private:
            if not self.cloud:  # `inngest start` only logs it, and the run waits for ever
                message = "Error making gateway request: private IP range"
                run.save(step, {"error": {"name": "GatewayError", "message": message}})
                self.discover(run, f"{step}-ended", race)
            return
        self.fetched.append(step)
        run.save(step, self.fetch(op))
        self.discover(run, f"{step}-ended", race)

    # --- what comes from outside --------------------------------------------------------------

    def send_event(self, name: str, data: Any = None, *, event_id: str = "e1") -> None:
        """Let an event come in. Every wait for its name matches."""
        event = {"data": data or {}, "id": event_id, "name": name, "ts": int(self.now * 1000)}
        for run in list(self.runs.values()):
            for step, pause in list(run.pauses.items()):
                if pause.name == name and "event" in pause.opts:
                    self._resume(run, step, event)

    def send_signal(self, name: str, data: Any = None) -> str | None:
        """Let a signal come in. Returns the run that has waited for it."""
        run_id, step = self.signals.pop(name, ("", ""))
        run = self.runs.get(run_id)
        if run is None or step not in run.pauses:
            return None
        self._resume(run, step, {"data": {"signal": name, "data": data}})
        return run_id

    def _resume(self, run: RealRun, step: str, memo: Any) -> None:
        pause = run.pauses.pop(step)
        run.save(step, memo)
        if not run.over:
            self.discover(run, f"{step}-ended", pause.race)


def races(op: Op) -> bool:
    """Whether the end of an op leads to a call whatever else is pending."""
    return (op.get("opts") or {}).get("parallelMode") == "race"


def peel(body: str) -> Any:
    """Trick 7.3: a body that is itself an envelope is understood."""
    value = json_or_none(body.encode())
    return value if isinstance(value, dict) and "data" in value else body


def json_or_none(text: bytes) -> Any:
    """Read JSON, if it is that."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def seconds_of(text: str, now: float) -> float:
    """Read a duration or a date."""
    if len(text) >= 10:
        try:
            return max(0.0, round(datetime.fromisoformat(text).timestamp()) - now)
        except ValueError:
            pass
    return parse_duration(text).total_seconds() if text else 0.0
