"""What requests ask of the applications: small programs of steps, as JSON, and how to read them."""

from __future__ import annotations

import random
import time
import uuid
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import stephttp
from stephttp import Checkpointing
from tests.faults.ledger import Ledger

LEASE = timedelta(seconds=3)
"""Shorter than some of the faults: runs with a lease are taken over from processes that live."""
MODES = {
    name: replace(mode, lease=LEASE)
    for name, mode in (
        ("performant", Checkpointing.performant),
        ("blended", Checkpointing.blended),
        ("safe", Checkpointing.safe),
    )
}
RETRIES = 20
"""More than any schedule uses up: no run of theirs is allowed to fail."""


class FlakyError(Exception):
    """The failure of a step that is meant to be tried again."""


class Body:
    """The bodies of the steps of one call of a handler, with the ledger that they write to."""

    def __init__(self, ledger: Ledger, program: dict[str, Any]) -> None:
        self.ledger = ledger
        self.label: str = program["label"]
        self.run_id = stephttp.current_run().id
        ledger.write("call", label=self.label, run=self.run_id)

    def once(self, name: str, milliseconds: float = 0, fails: float = 0) -> str:
        """Run as a step: note that, then return a nonce that no other execution returns."""
        nonce = f"N{uuid.uuid4().hex}"
        self.ledger.write("step", label=self.label, run=self.run_id, step=name, nonce=nonce)
        time.sleep(milliseconds / 1000)
        if random.random() < fails:
            raise FlakyError(name)
        return nonce

    def end(self, values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """Note the answer; return its body, and its cookies, which no other answer has."""
        cookies = {"basket": f"B{uuid.uuid4().hex}", "seen": self.label}
        noted = [f"{name}={value}" for name, value in cookies.items()]
        self.ledger.write("answer", label=self.label, run=self.run_id, values=values, cookies=noted)
        return {"label": self.label, "values": values}, cookies


def provider(directory: Path) -> stephttp.Provider:
    """Make the provider of an application in a world; the environment has the rest."""
    origin = (directory / "origin").read_text()
    return stephttp.setup(
        origin, idempotency_header="Idempotency-Key", checkpointing=MODES["blended"]
    )
