"""What a step wrote is there after a wait, or the request fails: nothing is lost in silence."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.signals import request_finished, request_started

import stephttp
from stephttp import Provider
from tests.durable import Durable, durable
from tests.integrations import django_shop, shops
from tests.integrations.shops import Shop

DECORATED = pytest.mark.parametrize("decorated", [True, False], ids=["decorated", "not"])


def name(build: Any) -> str:
    return str(build.__name__)


async def waits_and_commits(world: Durable, shop: Any) -> None:
    first = await world.client.get("/")
    assert await asyncio.to_thread(shop.rows) == [(1, "book")]
    final = await world.follow(first)
    assert (final.status_code, final.json()) == (200, [1, 2])
    assert await asyncio.to_thread(shop.rows) == [(1, "book"), (2, "pen")]


async def fails_without_a_trace(world: Durable, shop: Any) -> None:
    """No row, so no step that is remembered, and a run that says why it failed."""
    if world.to_app.wsgi:
        answer = await world.client.get("/")
        assert answer.status_code == 500
        said = answer.text
    else:
        with pytest.raises(stephttp.UncommittedStepError) as raised:
            await world.client.get("/")
        said = str(raised.value)
    assert "step 'first' wrote in a transaction of " in said
    assert "@provider.endpoint()" in said
    assert "Either commit inside the step" in said
    assert await asyncio.to_thread(shop.rows) == []
    assert await world.provider.wait()
    (run,) = (await world.api.get("/v1/runs")).json()["data"]
    assert run["status"] == "Failed"
    steps = (await world.api.get(f"/v1/runs/{run['run_id']}/steps")).json()["data"]
    assert [one["name"] for one in steps if one["status"] == "Completed"] == []


@DECORATED
@pytest.mark.parametrize("build", shops.AROUND + shops.BODY, ids=name)
async def test_frameworks(build: Any, decorated: bool, tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop.sqlite3")

    def made(provider: Provider) -> Any:
        return build(shop, provider, provider.endpoint() if decorated else lambda handler: handler)

    try:
        async with durable(made, wsgi=build in shops.WSGI) as world:
            if decorated and build in shops.AROUND:
                await waits_and_commits(world, shop)
            else:
                await fails_without_a_trace(world, shop)
    finally:
        await shop.close()


@pytest.fixture(scope="module")
def project() -> Iterator[None]:
    with django_shop.project():
        yield


@DECORATED
@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("wsgi", [True, False], ids=["wsgi", "asgi"])
@pytest.mark.parametrize(
    "view", django_shop.AROUND + django_shop.BODY + django_shop.ALONE, ids=name
)
@pytest.mark.filterwarnings("ignore:Unclosed file <tempfile:ResourceWarning")
async def test_django(view: Any, wsgi: bool, decorated: bool) -> None:
    shop = await asyncio.to_thread(django_shop.DjangoShop)

    def made(provider: Provider) -> Any:
        mark = provider.endpoint() if decorated else lambda handler: handler
        return django_shop.served(view(mark), wsgi, provider)

    signals: Counter[str] = Counter()

    def started(**_: Any) -> None:
        signals["started"] += 1

    def finished(**_: Any) -> None:
        signals["finished"] += 1

    request_started.connect(started)
    request_finished.connect(finished)
    async with durable(made, wsgi=wsgi) as world:
        if view in django_shop.ALONE or (decorated and view in django_shop.AROUND):
            await waits_and_commits(world, shop)
        else:
            await fails_without_a_trace(world, shop)
    request_started.disconnect(started)
    request_finished.disconnect(finished)
    assert signals["started"] == signals["finished"] >= 1
    gc.collect()  # Django leaves the request's body open where a `BaseException` ends a view


@pytest.fixture
def project_in_postgres(postgres_folder: Path) -> Iterator[None]:
    with django_shop.project(postgres=postgres_folder):
        yield


@pytest.mark.usefixtures("project_in_postgres")
@pytest.mark.parametrize("in_savepoint", [True, False])
async def test_an_error_after_which_djangos_commit_rolls_back(in_savepoint: bool) -> None:
    """PostgreSQL takes the commit for a rollback, and does not say so."""
    shop = await asyncio.to_thread(django_shop.DjangoShop)

    def made(provider: Provider) -> Any:
        view = django_shop.with_an_error(provider.endpoint(), in_savepoint)
        return django_shop.served(view, True, provider)

    async with durable(made, wsgi=True) as world:
        if in_savepoint:
            await waits_and_commits(world, shop)
        else:
            answer = await world.client.get("/")
            assert (answer.status_code, "UncommittedStepError" in answer.text) == (500, True)
