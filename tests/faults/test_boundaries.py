"""A crash at every boundary that the code has: the list, and a few of the crashes.

`make boundaries` carries all of them out.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.faults.boundaries import derive
from tests.faults.boundaries.bench import Bench
from tests.faults.boundaries.crashes import boundaries_of, crash, crashes
from tests.faults.boundaries.derive import Module, boundaries
from tests.faults.boundaries.scenarios import SCENARIOS, UNREACHED

_RUN, _API = "stephttp._run", "stephttp._client.api_calls"
_CHECKPOINTS = f"{_RUN}.checkpoints.Checkpoints"
SHORT = {
    "async": (
        "before commit stephttp.engine.work.idempotency.claim, naps",
        "after commit stephttp.engine.work.settle.settle, naps",
        f"after send {_API}.post_new_run < {_RUN}.suspend.suspend, naps",
    ),
    "sync": (
        f"before send {_API}.post_new_run < {_RUN}.idempotency.claim, naps",
        f"after send {_API}.post < {_CHECKPOINTS}.post_steps, reported_in_a_reentry",
    ),
}


def test_every_boundary_has_a_workload_that_reaches_it() -> None:
    reached = {one for scenario in SCENARIOS for one in boundaries_of(scenario)}
    unreached = {one for one in boundaries() if str(one) in UNREACHED}
    assert set(boundaries()) == reached | unreached
    assert not reached & unreached


def test_engine_and_sdk_have_the_boundaries_that_everyone_knows() -> None:
    assert {
        "commit stephttp.engine.work.settle.settle",
        "commit stephttp.engine.store.database.prepare",
        "call stephttp.engine.outbound.reentry_call.EndpointCaller.call",
        "send stephttp._client.api_calls.post_new_run < stephttp._run.suspend.suspend",
        "send stephttp._client.outgoing_events.post",
    } <= {str(one) for one in boundaries()}


def module(name: str, text: str) -> Module:
    made = Module(name, ast.parse(text))
    made.functions = dict(derive._functions(made.tree, ""))
    made.imports = {"work": "engine.work", "Call": "flow.Call"}
    return made


def test_a_new_commit_is_found_wherever_its_unit_of_work_comes_from() -> None:
    found = derive._commits([module("m", """
class A:
    async def direct(self): await self._store.write(partial(work.one, at=1))
    async def named(self):
        unit = partial(work.two)
        await self.store.write(unit, self._follow)
    async def handed(self, unit): await self.store.write(partial(unit, at=1))
    async def hands(self): await self.handed(work.three)
    async def method(self): await self.store.write_together(self._mine, 1)
    async def inline(self): await self.store.write(lambda connection: work.four(connection))
    async def read(self): await self.store.read(work.five)
    async def other(self): await self.stream.write(work.six)
def raw(connection): connection.execute("COMMIT")
""")])  # fmt: skip
    assert found == {
        "engine.work.one", "engine.work.two", "engine.work.three", "m.A._mine",
        "m.A.inline.<locals>.<lambda>", "m.raw",
    }  # fmt: skip


def test_a_commit_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(NotImplementedError, match="which unit of work is units"):
        derive._commits([module("m", "async def f(): await store.write(units[0])")])


def test_a_new_send_is_found_by_its_maker_and_by_who_asks_for_it() -> None:
    found = derive._made([module("m", """
def get() -> Call: return Call("GET", "/")
def post(path) -> Call: return Call("POST", path)
def post_steps() -> Call: return post("/steps")
def first(): yield get()
def second(): yield post_steps()
def third(): yield Call("PUT", "/")
def unused() -> Call: return Call("GET", "/new")
""")], "flow.Call")  # fmt: skip
    assert found == {"m.get < m.first", "m.post < m.second", "m.third", "m.unused"}


@pytest.mark.parametrize("app", SHORT)
async def test_promises_are_kept_by_those_who_die_at_a_boundary(app: str, tmp_path: Path) -> None:
    planned = {str(one): one for one in crashes()}
    async with Bench(tmp_path, app) as bench:
        for line in SHORT[app]:
            assert await crash(bench, planned[f"{app}, {line}"]) == [], line
