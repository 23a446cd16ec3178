"""Metadata and scores: sent to a run, and reported with its steps."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from stephttp._wire.ids import hash_step_id, ulid

from .support import DONE, RUN, A, World, answer, sleep, step, step_error, world

PAY = hash_step_id("pay")


def score(name: str, value: Any, op: str = "merge") -> dict[str, Any]:
    return {"kind": "inngest.score", "op": op, "values": {name: value}}


def update(kind: str = "userland.default", op: str = "set", **values: Any) -> dict[str, Any]:
    return {"kind": kind, "op": op, "values": values}


async def attach(w: World, *updates: Any, run_id: str = RUN, **target: Any) -> httpx2.Response:
    body = {"target": {"run_id": run_id, **target}, "metadata": list(updates)}
    return await w.http.post(f"/v1/runs/{run_id}/metadata", json=body)


async def attached(w: World) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await w.run())["metadata"]
    return found


async def values(w: World) -> dict[tuple[str | None, str], Any]:
    """The values that a run has, by step and kind."""
    return {(one["step_id"], one["kind"]): one["values"] for one in await attached(w)}


async def test_it_is_kept_with_the_run_and_with_its_steps() -> None:
    async with world() as w:
        await w.post(step(PAY, userland={"id": "pay"}), sleep(text="1h"))
        answers = [
            await attach(w, update(state="packing", n=[1])),
            await attach(w, update(cost=0.2), update("inngest.ai", model="m"), step_id="pay"),
            await attach(w, update(again=True), step_id="pay", step_index=1, step_attempt=2),
            await attach(w, update(rows=3), span_id="ab12"),
        ]
        assert [one.status_code for one in answers] == [204] * 4
        at = "2027-01-15T08:00:00.000Z"
        whole = {"step_id": None, "step": None, "attempt": None, "span_id": None, "set_at": at}
        of_pay = whole | {"step_id": PAY, "step": "pay"}
        expected = [
            whole | {"kind": "userland.default", "values": {"state": "packing", "n": [1]}},
            whole | {"kind": "userland.default", "span_id": "ab12", "values": {"rows": 3}},
            of_pay | {"kind": "inngest.ai", "values": {"model": "m"}},
            of_pay | {"kind": "userland.default", "values": {"cost": 0.2}},
            whole
            | {
                "step_id": hash_step_id("pay", 1),
                "attempt": 2,
                "kind": "userland.default",
                "values": {"again": True},
            },
        ]
        found = await attached(w)
        assert sorted(found, key=json.dumps) == sorted(expected, key=json.dumps)
        assert [one["step_id"] for one in found][:4] == [None, None, PAY, PAY]
        full = (await w.http.get(f"/v1/stephttp/runs/{RUN}")).json()["data"]
        assert full["metadata"] == found
        page = (await w.http.get(f"/runs/{RUN}")).text
        assert "userland.default of pay" in page
        assert "packing" in page


async def test_values_are_replaced_or_merged_by_name() -> None:
    async with world() as w:
        await w.post(sleep(text="1h"))
        await attach(w, update(a=1, b=1))
        await attach(w, update(b=2))
        assert await values(w) == {(None, "userland.default"): {"b": 2}}
        await attach(w, update(a={"deep": [1]}, op="merge"))
        assert await values(w) == {(None, "userland.default"): {"b": 2, "a": {"deep": [1]}}}


async def test_scores_have_names_and_come_after_the_end_as_well() -> None:
    async with world() as w:
        await w.post(DONE)
        for name, value in (("accuracy", 0.75), ("polite", True), ("accuracy", 1)):
            assert (await attach(w, score(name, {"value": value}))).status_code == 204
        assert await values(w) == {
            (None, "inngest.score"): {"accuracy": {"value": 1}, "polite": {"value": True}}
        }


async def test_it_comes_with_the_results_of_steps() -> None:
    reported = [update("userland.a", n=1) | {"scope": "step"}]
    of_run = [update("userland.b", n=2) | {"scope": "run"}]
    retried = [update("userland.c", n=3) | {"scope": "step"}]
    async with world() as w:
        await w.post(step(PAY, metadata=reported), step_error(A) | {"metadata": retried}, retries=3)
        w.script = [answer([step("d" * 40, metadata=of_run), DONE])]
        await w.after(5)
        assert (await w.run())["status"] == "Completed"
        assert await values(w) == {
            (PAY, "userland.a"): {"n": 1},
            (A, "userland.c"): {"n": 3},
            (None, "userland.b"): {"n": 2},
        }


@pytest.mark.parametrize(
    "metadata",
    [
        1,
        None,
        [1],
        {},
        [{}],
        [update("other")],
        [score("s", {"value": "high"})],
        [update("userland.large", x="x" * 70_000)],
    ],
)
async def test_what_a_step_reports_that_cannot_be_read_is_left_out(metadata: Any) -> None:
    good = update("userland.good", n=1)
    several = [*metadata, good] if isinstance(metadata, list) else metadata
    async with world() as w:
        await w.post(step(PAY, metadata=several), sleep(text="1h"))
        assert (await w.run())["status"] == "Running"
        expected = {(PAY, "userland.good"): {"n": 1}} if isinstance(metadata, list) else {}
        assert await values(w) == expected


@pytest.mark.parametrize(
    ("target", "updates", "status", "complaint"),
    [
        ({}, [], 400, "metadata: 0, from 1 to 100 are accepted"),
        ({}, [update(a=1)] * 101, 400, "metadata: 101, from 1 to 100"),
        ({}, [update("mine")], 400, "metadata[0].kind: 'mine' is not a name"),
        ({}, [update("userland.")], 400, "metadata[0].kind: "),
        ({}, [update("userland." + "é" * 60)], 400, "metadata[0].kind: "),
        ({}, [update(a=1), update(op="add")], 400, "metadata[1].op: 'add' is not one of set, "),
        ({}, [{"kind": "userland.x", "op": "set", "values": 1}], 400, "metadata[0].values: "),
        ({}, [update(x="x" * 66_000)], 413, "metadata: 'userland.default' has 660"),
        ({"step_id": "s" * 1001}, [update(a=1)], 400, "target.step_id: must have at most 1000"),
        ({"step_index": 1}, [update(a=1)], 400, "target.step_index: needs a step_id"),
        ({"step_id": "s", "step_attempt": -1}, [update(a=1)], 400, "target.step_attempt: -1 is"),
        ({"step_id": "s", "step_index": 2**31}, [update(a=1)], 400, "target.step_index: "),
        ({"span_id": "a b"}, [update(a=1)], 400, "target.span_id: "),
        ({}, [score("s", 1)], 400, "metadata[0].values.s: expected an object with"),
        ({}, [score("s", {"value": "1"})], 400, "metadata[0].values.s: "),
        ({}, [score("s", {})], 400, "metadata[0].values.s: "),
        ({}, [score("it's", {"value": 1})], 400, "metadata[0].values: "),
        ({}, [score(" ", {"value": 1})], 400, "metadata[0].values: ' ' is"),
        ({}, [score("n" * 129, {"value": 1})], 400, "metadata[0].values: "),
    ],
)
async def test_what_is_not_acceptable_is_refused_and_nothing_of_it_is_kept(
    target: Any, updates: Any, status: int, complaint: str
) -> None:
    async with world() as w:
        await w.post(sleep(text="1h"))
        refused = await attach(w, *updates, **target)
        assert refused.status_code == status, refused.text
        assert refused.json()["error"].startswith(complaint)
        assert refused.json().keys() >= {"error", "status"}  # as the SDK reads it
        assert await attached(w) == []


async def test_the_run_is_named_twice_and_must_be_there() -> None:
    async with world() as w:
        await w.post(sleep(text="1h"))
        other = ulid(w.clock.now_ms() - 3_601_000, 1)
        body = {"target": {"run_id": other}, "metadata": [update(a=1)]}
        refused = await w.http.post(f"/v1/runs/{RUN}/metadata", json=body)
        assert (refused.status_code, refused.json()["error"]) == (
            400,
            "target.run_id: is not the run that the path names",
        )
        assert (await attach(w, update(a=1), run_id=other)).status_code == 404
        assert (await attach(w, update(a=1), run_id="x")).status_code == 400


async def test_it_may_come_before_its_run() -> None:
    """A run that never waits is reported when it is over."""
    async with world() as w:
        early = ulid(w.clock.now_ms(), 7)
        for one in (update(a=1), update(b=2, op="merge"), update("userland.x", c=3)):
            assert (await attach(w, one, run_id=early)).status_code == 204
        large = [update(f"userland.{n}", x="x" * 60_000) for n in range(19)]
        assert (await attach(w, *large, run_id=early)).status_code == 204
        await w.post(DONE, run_id=early)
        await w.engine.metadata.early.stop()
        found = {one["kind"]: one["values"] for one in (await w.run(early))["metadata"]}
        assert found["userland.default"] == {"a": 1, "b": 2}
        assert found["userland.x"] == {"c": 3}
        assert len(found) == 2 + 17  # as far as there is room
        assert len(w.engine.metadata.early.run_ids) == 0


async def test_what_waits_for_runs_that_never_come_is_dropped() -> None:
    async with world() as w:
        for n in range(80):
            run_id = ulid(w.clock.now_ms(), n)
            assert (await attach(w, update(x="x" * 60_000), run_id=run_id)).status_code == 204
        assert len(w.engine.metadata.early.run_ids) == 69  # 4 MiB
        w.clock.advance(601)
        last = ulid(w.clock.now_ms(), 0)
        await attach(w, update(a=1), run_id=last)
        assert [*w.engine.metadata.early.run_ids] == [last]


async def test_a_run_has_no_more_than_a_bound() -> None:
    async with world() as w:
        await w.post(sleep(text="1h"))
        large = "x" * 60_000
        answers = [await attach(w, update(f"userland.k{n}", x=large)) for n in range(18)]
        assert [one.status_code for one in answers] == [204] * 17 + [413]
        assert "at most 1048576 are kept" in answers[-1].json()["error"]
        # What replaces something does not add to it.
        assert (await attach(w, update("userland.k0", x=large))).status_code == 204


async def test_it_goes_with_its_run() -> None:
    async with world(retain=60.0) as w:
        await w.post(DONE)
        await attach(w, update(a=1))
        w.clock.advance(61)
        await w.engine._retention.sweep(60.0)
        assert (await w.http.get(f"/v1/runs/{RUN}")).status_code == 404
        # The rules of the schema, which are looked at after each test, know the rest.


async def test_those_who_look_at_the_run_see_it_come() -> None:
    async with world() as w:
        await w.post(sleep(text="1h"))
        with w.engine.changes.listening() as listener:
            await attach(w, update(a=1))
            assert RUN in listener.take().run_ids


async def test_traces_of_other_apis_show_what_is_attached_where() -> None:
    query = "query ($id: String!) { run(runID: $id) { trace { metadata { scope kind values } "
    query += "childrenSpans { stepID metadata { scope kind values updatedAt } } } } }"
    async with world() as w:
        await w.post(step(PAY, userland={"id": "pay"}), step(A), sleep(text="1h"))
        answers = [
            await attach(w, score("good", {"value": True})),
            await attach(w, update(rows=3), span_id="ab12"),
            await attach(w, update(cost=0.2), step_id="pay"),
            await attach(w, update(again=True), step_id="pay", step_attempt=1),
        ]
        assert [one.status_code for one in answers] == [204] * 4
        asked = await w.http.post("/v0/gql", json={"query": query, "variables": {"id": RUN}})
        root = asked.json()["data"]["run"]["trace"]
        (one,) = root["metadata"]
        assert (one["scope"], one["kind"]) == ("run", "inngest.score")
        assert one["values"]["good"]["value"] is True
        steps = {one["stepID"]: one["metadata"] for one in root["childrenSpans"]}
        assert [(one["scope"], one["values"]) for one in steps[PAY]] == [
            ("step", {"cost": 0.2}), ("step_attempt", {"again": True}),
        ]  # fmt: skip
        assert steps[PAY][0]["updatedAt"] == "2027-01-15T08:00:00.000Z"
        assert steps[A] == []
        trace = (await w.http.get(f"/v2/runs/{RUN}/trace")).json()["data"]["rootSpan"]
        assert trace["children"][0]["metadata"] == [
            {**one, "values": {name: json.dumps(value) for name, value in one["values"].items()}}
            for one in steps[PAY]
        ]


async def test_a_run_has_so_many_kinds_of_metadata_at_most() -> None:
    async with world() as w:
        await w.post(sleep(text="1h"))
        for first in range(0, 10_000, 100):
            kinds = [update(f"userland.k{n}") for n in range(first, first + 100)]
            assert (await attach(w, *kinds)).status_code == 204
        refused = await attach(w, update("userland.k10000"))
        assert refused.status_code == 413
        assert "would have 10001 kinds, at most 10000 are kept" in refused.json()["error"]
        # What is there may still change.
        assert (await attach(w, update("userland.k9999", a=1))).status_code == 204
