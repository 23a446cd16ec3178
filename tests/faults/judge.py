"""Judges what the ledger says of a schedule: the promises of docs/guarantees.md, one by one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

CREATED = 201
"""The status with which the handlers answer."""
_NOT_NOW = 503
"""The only status with which a request may be refused."""


@dataclass
class Verdict:
    """What was broken, a sentence each, by promise; and how much was looked at."""

    lost: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    requests: int = 0
    accepted: int = 0
    executions: int = 0
    acknowledged: int = 0

    @property
    def broken(self) -> list[str]:
        return [
            f"{name}: {one}"
            for name in ("lost", "repeated", "wrong", "twice")
            for one in getattr(self, name)
        ]

    def figures(self) -> str:
        """Return all of it as one line of numbers."""
        return (
            f"{self.requests} requests, {self.accepted} accepted, {self.executions} executions of "
            f"steps, {self.acknowledged} steps acknowledged: {len(self.lost)} lost, "
            f"{len(self.repeated)} acknowledged steps repeated, {len(self.wrong)} wrong answers, "
            f"{len(self.twice)} keys with two executions"
        )

    def add(self, other: Verdict) -> None:
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


def judge(
    entries: Iterable[dict[str, Any]],
    keyed: Collection[str] = (),
    unknown: Collection[str] = (),
) -> Verdict:
    """Judge the entries of a ledger; see `Ledger` for what they hold.

    - lost: a request was accepted (answered, or redirected to its result), and has no answer.
    - repeated: the body of a step began after an acknowledgement of that step had arrived.
    - wrong: a caller's answer is not what the handler returned for it, with status and cookies,
      lacks what was acknowledged before (with a key: ever), or differs from an earlier answer to
      the same request; or a caller that was not accepted got something else than a 503.
    - twice: the handler was called for a request with a key in more than one run.

    Args:
        entries: in any order.
        keyed: labels of the requests that have an idempotency key.
        unknown: of those among them that show no credential: their cookies are not repeated.
    """
    verdict = Verdict()
    ordered = sorted(entries, key=lambda entry: int(entry["t"]))
    steps: dict[str, dict[str, Any]] = {}  # by nonce
    answers: dict[str, list[dict[str, Any]]] = defaultdict(list)
    got: dict[str, list[dict[str, Any]]] = defaultdict(list)
    runs: dict[str, set[str]] = defaultdict(set)
    accepted: dict[str, str] = {}
    # nonce, by label; and by run and step
    acknowledged: dict[str, dict[tuple[str, str], str]] = defaultdict(dict)
    since: dict[str, int] = {}  # when it was acknowledged, by nonce
    gave_up: dict[str, str] = {}
    for entry in ordered:
        match entry["kind"]:
            case "request":
                verdict.requests += 1
            case "accepted":
                accepted.setdefault(entry["label"], entry["run"])
            case "call":
                runs[entry["label"]].add(entry["run"])
            case "refused" if entry["status"] != _NOT_NOW:
                text = f"{entry['status']} {entry['text']}"
                verdict.wrong.append(f"{entry['label']}: not accepted, with {text}")
            case "gave-up":
                gave_up[entry["label"]] = entry["last"]
            case "step":
                steps[entry["nonce"]] = entry
                verdict.executions += 1
                label, run, name = entry["label"], entry["run"], entry["step"]
                if (run, name) in acknowledged[label]:
                    verdict.repeated.append(f"step {name} of {label}, run {run}")
            case "ack":
                for nonce in entry["nonces"]:
                    if (step := steps.get(nonce)) is not None:
                        known = acknowledged[step["label"]]
                        first = known.setdefault((step["run"], step["step"]), nonce)
                        since.setdefault(first, entry["t"])
            case "answer":
                answers[entry["label"]].append(entry)
            case "got":
                got[entry["label"]].append(entry)
    verdict.accepted = len(accepted)
    verdict.acknowledged = sum(map(len, acknowledged.values()))
    verdict.lost = [
        f"{label}, run {run}; last: {gave_up.get(label)}"
        for label, run in accepted.items()
        if label not in got
    ]
    for label, received in got.items():
        full = _with_cookies_of(answers[label], received) if label in unknown else received
        # Without a key, nothing holds an answer back until it is stored. If the process dies before
        # it is, what was not acknowledged by then runs again.
        end = float("inf") if label in keyed else full[0]["t"]
        known = {key: one for key, one in acknowledged[label].items() if since[one] <= end}
        verdict.wrong += _wrong(label, full, answers[label], known)
    verdict.twice = [
        f"{label}: {sorted(runs[label])}" for label in sorted(keyed) if len(runs[label]) > 1
    ]
    return verdict


def _wrong(
    label: str,
    received: list[dict[str, Any]],
    returned: list[dict[str, Any]],
    acknowledged: dict[tuple[str, str], str],
) -> list[str]:
    first = received[0]
    if any(_seen(other) != _seen(first) for other in received):
        return [f"{label}: answers differ: {[_seen(other) for other in received]}"]
    given = [answer for answer in returned if _seen({"status": CREATED, **answer}) == _seen(first)]
    if not given:
        return [f"{label}: no handler returned {_seen(first)}"]
    run = given[0]["run"]
    return [
        f"{label}: step {step} was acknowledged as {nonce}, answered as {first['values'].get(step)}"
        for (within, step), nonce in acknowledged.items()
        if within == run and first["values"].get(step) != nonce
    ]


def _with_cookies_of(
    returned: list[dict[str, Any]], received: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Give answers without cookies those that some of them have, or that a handler returned."""
    known = [one["cookies"] for one in received if one["cookies"]]
    known += [one["cookies"] for one in returned if one["values"] == received[0]["values"]]
    return [{**one, "cookies": one["cookies"] or next(iter(known), [])} for one in received]


def _seen(answer: dict[str, Any]) -> tuple[Any, ...]:
    """Return what a caller can see of an answer."""
    return answer["status"], answer["values"], answer["cookies"]
