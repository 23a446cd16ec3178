"""What the two applications share: their provider, and the bodies of their steps."""

from __future__ import annotations

import os
import signal
import time
import uuid
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import stephttp
import stephttp.sync
from stephttp import Checkpointing
from stephttp._wire import canonical_json, signatures
from tests.faults.ledger import Ledger

HERE = Path(os.environ["FAULTS_WORLD"])
LEDGER = Ledger(HERE / "ledger")
RESULT_PATH = "/result"
DAYS = timedelta(days=3)
_LEASE = timedelta(seconds=2)
MODES = {
    "performant": replace(Checkpointing.performant, lease=_LEASE),
    "blended": replace(Checkpointing.blended, lease=_LEASE),
    "safe": replace(Checkpointing.safe, lease=_LEASE),
}
PROVIDER = stephttp.setup(
    os.environ["FAULTS_ORIGIN"],
    idempotency_header="Idempotency-Key",
    checkpointing=MODES["blended"],
    result_path=RESULT_PATH,
)

LIMITED = stephttp.setup(
    os.environ["FAULTS_ORIGIN"], checkpointing=MODES["blended"], result_path=RESULT_PATH
)
"""Of an endpoint that refuses requests over its limits, which have no idempotency keys."""

STEP = "6f2b3c0e" * 5
OF_PACK = "event.data.function_id == '{name}-pack'"
CLOCK = "clock"
"""The app whose function time starts."""


def serve(name: str, body: dict[str, Any] | None) -> tuple[int, Any, dict[str, str]]:
    """Do what an SDK does for an app with three functions, each with one step: the second is there
    for the runs of the first that fail, or are cancelled; the third takes events in batches.

    Args:
        name: of the app.
        body: of a call of a function; `None`: the engine asks for what there is.

    Returns:
        Status, JSON and headers.
    """
    headers = {"x-inngest-sdk": "test:v1", "x-inngest-req-version": "2"}
    url = f"{os.environ['FAULTS_ORIGIN']}/functions/{name}"
    if body is None:
        ended = [
            {"event": f"inngest/function.{how}", "expression": OF_PACK.replace("{name}", name)}
            for how in ("failed", "cancelled")
        ]
        functions = [
            {
                "id": f"{name}-{one}",
                "triggers": triggers,
                "steps": {"step": {"runtime": {
                    "type": "http", "url": f"{url}?fnId={name}-{one}&stepId=step",
                }}},
                **options,
            }
            for one, triggers, options in (
                ("tick", [{"cron": "@every 1s"}], {}),
                ("pack", [{"event": f"{name}/paid"}], {
                    "cancel": [{
                        "event": f"{name}/stopped",
                        "if": "event.data.label == async.data.label",
                    }],
                    # So that its calls pass gates, which are crossed and left when the engine dies.
                    "concurrency": [{"limit": 4}],
                    "throttle": {"limit": 1000, "period": "1s"},
                }),
                ("unpack", ended, {}),
                ("ship", [{"event": f"{name}/packed"}], {"batchEvents": {
                    "maxSize": 3, "timeout": "200ms",
                }}),
            )
            if (name == CLOCK) == (one == "tick")
        ]  # fmt: skip
        said = {"app_id": name, "url": url, "functions": functions}
        signed = signatures.sign(
            os.environ["INNGEST_SIGNING_KEY"], canonical_json.dumps(said), int(time.time())
        )
        in_band = {"x-inngest-sync-kind": "in_band", "x-inngest-signature": signed}
        return 200, said, headers | in_band
    data, run_id = body["event"]["data"], body["ctx"]["run_id"]
    data = data["event"]["data"] if "function_id" in data else data
    label, is_first = str(data.get("label", name)), data is body["event"]["data"]
    if STEP in body["steps"]:
        if is_first and data.get("fails"):
            error = {"name": "ValueError", "message": "no"}
            return 400, error, headers | {"x-inngest-no-retry": "true"}
        if is_first and data.get("sleeps"):
            return 206, [{"op": "Sleep", "id": STEP[::-1], "name": "1h"}], headers
        return 200, body["steps"][STEP]["data"], headers
    nonce = f"N{uuid.uuid4().hex}"
    LEDGER.write("step", label=label, run=run_id, step=STEP, nonce=nonce)
    return 206, [{"op": "StepRun", "id": STEP, "name": "pack", "data": nonce}], headers


class Bodies:
    """The bodies of the steps of one call of a handler. Each execution gives another nonce."""

    def __init__(self, program: dict[str, Any]) -> None:
        self.label: str = program["label"]
        self.run_id = stephttp.current_run().id
        LEDGER.write("call", label=self.label, run=self.run_id)

    def run(self, name: str, part: dict[str, Any]) -> str:
        """Write to the ledger; then take as long as the part says, or die, once, by its mark."""
        nonce = f"N{uuid.uuid4().hex}"
        LEDGER.write("step", label=self.label, run=self.run_id, step=name, nonce=nonce)
        if part.get("pushes"):
            stephttp.sync.stream.push(f"in {name}")
        time.sleep(part.get("ms", 0) / 1000)
        if part.get("dies"):
            mark = HERE / f"died-{self.label}"
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return nonce + "." * int(part.get("size", 0))

    def end(self, values: dict[str, Any]) -> dict[str, Any]:
        """Note the answer, and return it."""
        LEDGER.write("answer", label=self.label, run=self.run_id, values=values, cookies=[])
        return {"label": self.label, "values": values}


def client(kind: type[Any]) -> Any:
    """Make a client of the checkpoint API, for those who use it by hand."""
    return kind(os.environ["INNGEST_BASE_URL"], os.environ["INNGEST_SIGNING_KEY"])
