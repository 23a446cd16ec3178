"""Schedules: what is asked of a world and what is done to it, made of a seed alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Any

APPS = ("uvicorn-1", "uvicorn-2", "gunicorn")

EXCHANGE_FAULTS = (
    "delay", "drop", "lost", "reset", "truncate", "truncate-request", "corrupt", "corrupt-request",
    "duplicate", "duplicate-later", "page", "page-after",
)  # fmt: skip
"""What the proxy does to one exchange; see `proxy.Proxy`."""

PROCESS_FAULTS = (
    "kill engine", "terminate engine", "stop engine",
    "kill app", "kill worker", "terminate app", "terminate worker", "stop worker",
    "reload app", "partition api", "partition calls",
    "disk full", "disk read-only", "disk slow", "clock ahead",
)  # fmt: skip
"""What is done to a world; see `world.World.suffer`."""

_SHORT, _LEASE, _LONG_SHARE = 2.0, 3.2, 0.25
"""Seconds that most faults last at most; a little more than a lease has; the share of faults that
last longer than that."""


@dataclass(frozen=True)
class Request:
    """A request of a caller: its program, when it is sent, and how."""

    at: float
    program: dict[str, Any]
    key: str | None
    authorization: str | None
    event_at: float | None

    @property
    def label(self) -> str:
        label: str = self.program["label"]
        return label


@dataclass(frozen=True)
class Blow:
    """A fault of a process, or of what is below it; it lasts `seconds`."""

    at: float
    what: str
    seconds: float


@dataclass(frozen=True)
class Schedule:
    """All of one schedule. `rates` says how many exchanges have a fault, by direction."""

    seed: int
    app: str
    rates: dict[str, float]
    faults: tuple[str, ...]
    requests: tuple[Request, ...]
    blows: tuple[Blow, ...]


def schedule(
    seed: int, requests: int = 20, span: float = 4.0, blows: int = 4, longest: float = 5.0
) -> Schedule:
    """Make the schedule of a seed.

    Args:
        seed: any number.
        requests: how many requests.
        span: seconds within which they are sent.
        blows: how many faults of processes there are at most.
        longest: seconds that one of them lasts at most; a few last longer than a lease.
    """
    rng = Random(f"schedule {seed}")  # of text: those of small numbers begin alike
    app = rng.choice(APPS)
    faults = tuple(rng.sample(EXCHANGE_FAULTS, rng.randint(3, len(EXCHANGE_FAULTS))))
    return Schedule(
        seed=seed,
        app=app,
        rates={name: rng.choice((0.0, 0.05, 0.1, 0.25)) for name in ("api", "calls", "callers")},
        faults=faults,
        requests=tuple(_request(rng, seed, number, span) for number in range(requests)),
        blows=tuple(
            Blow(rng.uniform(0.2, span), rng.choice(PROCESS_FAULTS), _seconds(rng, longest))
            for _ in range(rng.randint(0, blows))
        ),
    )


def short(seed: int) -> Schedule:
    """Make a schedule that takes a few seconds, for continuous integration."""
    return schedule(seed, requests=8, span=1.5, blows=2, longest=2.0)


def rolling(seed: int, app: str, blows: tuple[Blow, ...], requests: int = 24) -> Schedule:
    """Make a schedule without faults of exchanges or of steps, for what is done on purpose: a
    deploy, the restart of an engine."""
    plan = schedule(seed, requests=requests, span=3.0, blows=0)
    for request in plan.requests:
        for part in request.program["parts"]:
            part["fails"] = 0.0
    return replace(plan, app=app, rates={}, blows=blows)


def _seconds(rng: Random, longest: float) -> float:
    if longest > _SHORT and rng.random() < _LONG_SHARE:
        return rng.uniform(_LEASE, longest)
    return rng.uniform(0.1, _SHORT)


def _request(rng: Random, seed: int, number: int, span: float) -> Request:
    label = f"s{seed}-{number}"
    parts = [_part(rng) for _ in range(rng.randint(1, 6))]
    events = [part for part in parts if part["kind"] == "event"]
    for part in events[1:]:  # one event ends one wait
        parts.remove(part)
    waits = bool(events)
    program = {
        "label": label,
        "mode": rng.choice(("performant", "blended", "safe")),
        "parts": parts,
    }
    return Request(
        at=rng.uniform(0, span),
        program=program,
        key=f"key-{label}" if rng.random() < 0.5 else None,
        authorization=f"Bearer secret-{label}" if rng.random() < 0.5 else None,
        event_at=rng.uniform(0, span) if waits else None,
    )


def _part(rng: Random) -> dict[str, Any]:
    kind = rng.choices(("run", "sleep", "side", "event"), (6, 3, 2, 1))[0]
    ms = rng.choice((0, 0, 5, 60))
    fails = rng.choice((0.0, 0.0, 0.0, 0.3))
    if kind == "sleep":
        return {"kind": kind, "ms": rng.randint(1, 500)}
    if kind == "event":
        return {"kind": kind}
    return {"kind": kind, "ms": ms, "fails": fails, "branches": rng.randint(2, 3)}
