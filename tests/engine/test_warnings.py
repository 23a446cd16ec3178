"""Warnings of an SDK about a run: kept once, for people."""

from typing import Any

import pytest

from stephttp.cli import human_readable

from .support import DONE, RUN, A, Z, answer, sleep, step, world

CHANGED = {"kind": "step_changed", "step_id": Z, "message": "it was a sleep"}
UNMET = {"kind": "step_not_met", "step_id": A, "message": "x" * 3_000}


def nothing(*warnings: Any) -> dict[str, Any]:
    return {"op": "None", "id": "0" * 40, "opts": {"warnings": list(warnings)}}


async def test_they_are_kept_once_with_the_first_answer_that_has_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with world() as w:
        await w.post(step(userland={"id": "pay"}), sleep(text="1s"))
        w.script = [answer([sleep("c" * 40, "1s"), nothing(CHANGED)])]
        await w.after(1)
        path = f"/v1/stephttp/runs/{RUN}"
        kept = {"kind": "step_changed", "step_id": Z, "step": "z", "message": "it was a sleep"}
        (first,) = (await w.http.get(path)).json()["data"]["warnings"]
        assert first == {**kept, "at": first["at"]}
        assert "it was a sleep" in (await w.http.get(f"/runs/{RUN}")).text
        w.script = [answer({**DONE, "opts": {"warnings": [UNMET, CHANGED]}})]
        await w.after(1)
        again, unmet = (await w.http.get(path)).json()["data"]["warnings"]
        assert again == first
        assert (unmet["step"], unmet["message"]) == ("pay", "x" * 2_000)
        assert (await w.run())["status"] == "Completed"
        human_readable.run((await w.http.get(path)).json()["data"])
        shown = capsys.readouterr().out.splitlines()
        assert [line for line in shown if line.startswith("warning")] == [
            "warning    it was a sleep",
            f"warning    {'x' * 2_000}",
        ]


async def test_what_is_no_warning_is_left_out() -> None:
    bad = [1, None, {}, {"kind": "k"}, {"kind": 1, "message": "m"}, {"kind": "k", "message": "m"}]
    async with world(script=[answer([DONE | {"opts": {"warnings": bad}}])]) as w:
        await w.post(sleep(text="1s"), {**nothing(), "opts": {"warnings": "text"}})
        await w.after(1)
        assert (await w.run())["status"] == "Completed"
        (one,) = (await w.http.get(f"/v1/stephttp/runs/{RUN}")).json()["data"]["warnings"]
        assert (one["kind"], one["step_id"], one["step"], one["message"]) == ("k", None, None, "m")


@pytest.mark.parametrize("many", [101, 5_000])
async def test_there_are_bounds(many: int) -> None:
    found = [{"kind": f"k{n}", "message": "m"} for n in range(many)]
    async with world(script=[answer([nothing(*found), DONE])]) as w:
        await w.post(sleep(text="1s"))
        await w.after(1)
        data = (await w.http.get(f"/v1/stephttp/runs/{RUN}")).json()["data"]
        assert len(data["warnings"]) == 100
