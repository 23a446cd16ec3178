"""Results of richer types, which later calls get as the first one did."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pydantic

from tests.matrix.cells import BINARY, NAP, SOON, Flow, cell
from tests.matrix.uses import Use


class Order(pydantic.BaseModel):
    """What a step returns."""

    item: str
    at: datetime
    parts: list["Order"] = []


@dataclass
class Point:
    """What a step returns."""

    x: int
    tags: set[str]


def make_order() -> Order:
    return Order(item="a", at=SOON, parts=[Order(item="b", at=SOON)])


def make_point() -> Point:
    return Point(1, {"t"})


def make_pair() -> tuple[int, bytes]:
    return 1, BINARY


@cell(["Order", "b", 2026])
def result_pydantic(u: Use) -> Flow:
    order = yield u.step.run("order", make_order)
    yield u.step.sleep("nap", NAP)
    return u.json([type(order).__name__, order.parts[0].item, order.parts[0].at.year])


@cell(["Point", 1, ["t"]], when=("first",))
def result_dataclass(u: Use) -> Flow:
    point = yield u.step.run("point", make_point)
    yield u.step.sleep("nap", NAP)
    return u.json([type(point).__name__, point.x, list(point.tags)])


@cell([1, 3], when=("first",))
def result_bytes(u: Use) -> Flow:
    number, data = yield u.step.run("pair", make_pair)
    yield u.step.sleep("nap", NAP)
    assert data == BINARY
    return u.json([number, len(data)])


@cell("Order", when=("first",))
def result_output_type(u: Use) -> Flow:
    def plain() -> Any:
        return make_order().model_dump(mode="json")

    order = yield u.step.options(output_type=Order).run("order", plain)
    yield u.step.sleep("nap", NAP)
    return u.json(type(order).__name__)


@cell({"data": {"data": 1}}, when=("first",))
def result_envelope(u: Use) -> Flow:
    value = yield u.step.run("a", lambda: {"data": {"data": 1}})
    yield u.step.sleep("nap", NAP)
    return u.json(value)
