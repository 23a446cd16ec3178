"""`stephttp check` and `stephttp runs export`, on databases and engines with real runs."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from stephttp.cli.commands import app as command
from stephttp.testing import History
from tests.durable import ENGINE, Durable, durable
from tests.wsgi import Blocking

KEY = "ab" * 16
OLD = """
import datetime, flask, stephttp
from fastapi import FastAPI, Header
from stephttp import step
from stephttp.sync import step as blocking

NAP = datetime.timedelta(days=1)
RAN = []

def build(provider):
    api = FastAPI()

    @api.get("/plain/{number}")
    async def plain(number: int, authorization: str = Header("")):
        await step.run("charge", RAN.append, number)
        await step.sleep("pack", NAP)
        return number

    @api.get("/renamed/{number}")
    async def renamed(number: int):
        await step.run("charge", RAN.append, number)
        await step.sleep("pack", NAP)
        return number

    @api.get("/kind/{number}")
    async def kind(number: int):
        await step.run("charge", RAN.append, number)
        await step.sleep("pack", NAP)
        return number

    @api.get("/login/{number}")
    async def login(number: int):
        got = await step.run("login", lambda: {"user": "ann", "password": f"hunter2-{number}"})
        await step.run("use " + got["password"], RAN.append, number)
        await step.sleep("pack", NAP)
        return got

    return provider.asgi(api)
"""
NEW = (
    OLD.replace(
        '''async def renamed(number: int):
        await step.run("charge"''',
        '''async def renamed(number: int):
        await step.run("debit"''',
    ).replace(
        """async def kind(number: int):
        await step.run("charge", RAN.append, number)""",
        """async def kind(number: int):
        await step.sleep("charge", NAP)""",
    )
    + '\napp = build(stephttp.setup("http://app.test"))\n'
)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the code at hand, in which commands run."""
    (tmp_path / "new_shop.py").write_text(NEW)
    (tmp_path / "old_shop.py").write_text(
        OLD + '\napp = build(stephttp.setup("http://app.test"))\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("INNGEST_SIGNING_KEY", KEY)
    yield tmp_path
    for name in ("new_shop", "old_shop"):
        sys.modules.pop(name, None)


@asynccontextmanager
async def runs_of(shop: Path, **counts: int) -> AsyncGenerator[tuple[Durable, dict[str, str]]]:
    """An engine with runs of the old code that wait, and their ids by path."""
    names: dict[str, Any] = {}
    exec(OLD, names)
    async with durable(names["build"], key=KEY, path=shop / "runs.db") as world:
        paths = [f"/{name}/{n}" for name, count in counts.items() for n in range(count)]
        found: dict[str, str] = {}
        for path in paths:
            answer = await world.client.get(path, headers={"authorization": "Bearer abc"})
            found[answer.headers["x-run-id"]] = path
        yield world, found


def run(*arguments: str) -> Any:
    return CliRunner().invoke(command, list(arguments))


async def test_exactly_the_runs_that_do_not_fit_are_named(shop: Path) -> None:
    async with runs_of(shop, plain=170, renamed=20, kind=10) as (_, paths):
        pass  # the engine has stopped
    database = shop / "runs.db"
    before = hashlib.sha256(database.read_bytes()).hexdigest()
    result = run("check", "--app", "new_shop:app", "--db", str(database), "--json")
    assert result.exit_code == 1, result.output
    document = json.loads(result.stdout)
    assert (document["safe"], document["diverges"], document["unchecked"]) == (170, 30, 0)
    found = {
        (paths[one["run_id"]].split("/")[1], one["findings"][0]["kind"], one["findings"][0]["line"])
        for one in document["runs"]
        if one["state"] == "diverges"
    }
    lines = NEW.splitlines()
    assert {(name, kind) for name, kind, _ in found} == {
        ("renamed", "step_not_met"), ("kind", "step_changed")
    }  # fmt: skip
    assert {lines[line - 1].strip().split("(")[1] for _, _, line in found} == {
        '"debit", RAN.append, number)', '"charge", NAP)'
    }  # fmt: skip
    assert hashlib.sha256(database.read_bytes()).hexdigest() == before
    assert sys.modules["new_shop"].RAN == []
    kinds = ("--db", "runs.db", "--endpoint", "GET /kind/{number}")
    assert run("check", "--app", "old_shop:app", *kinds).exit_code == 0
    only = run("check", "--app", "new_shop:app", *kinds)
    assert "10 unfinished runs: 0 safe, 10 diverge" in only.stdout
    assert "new_shop.py:" in only.stdout


async def test_runs_of_functions_are_not_replayed(shop: Path) -> None:
    """They belong to another SDK, so a check of the application's endpoints must not stop them."""
    async with runs_of(shop, plain=1) as (world, _):
        url = "http://app.test/api/inngest"
        runtime = {"type": "http", "url": f"{url}?fnId=shop-pack&stepId=step"}
        pack = {
            "id": "shop-pack",
            "triggers": [{"event": "order/placed"}],
            "steps": {"step": {"runtime": runtime}},
        }
        registered = await world.api.post(
            "/fn/register", json={"appName": "shop", "url": url, "functions": [pack]}
        )
        assert registered.status_code == 200, registered.text
        event = {"name": "order/placed", "data": {"id": "o1"}}
        sent = await world.api.post("/v1/stephttp/events", json=event)
        assert sent.is_success, sent.text
    arguments = ("check", "--app", "new_shop:app", "--db", str(shop / "runs.db"))
    result = run(*arguments, "--json")
    assert result.exit_code == 2, result.output
    document = json.loads(result.stdout)
    assert (document["safe"], document["diverges"], document["unchecked"]) == (1, 0, 1)
    (unchecked,) = [one for one in document["runs"] if one["state"] == "unchecked"]
    assert unchecked["endpoint"] == "shop-pack"
    assert "a function of Inngest's SDKs" in unchecked["reason"]
    assert run(*arguments, "--endpoint", "GET /plain/{number}").exit_code == 0
    export = ("runs", "export", unchecked["run_id"], "--db", str(shop / "runs.db"))
    assert History.load(run(*export).stdout).run.of_function
    refused = run(*export, "--as-test", "--app", "new_shop:app")
    assert (refused.exit_code, "only requests to endpoints" in refused.stderr) == (2, True)


async def test_an_engine_at_work_is_asked(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with runs_of(shop, plain=2, kind=1, login=1) as (world, paths):

        def client(ca_file: str, **options: Any) -> httpx2.Client:
            transport = Blocking(world.to_engine)
            transport.loop = loop
            return httpx2.Client(transport=transport, **options)

        loop = asyncio.get_running_loop()
        monkeypatch.setattr("stephttp.cli.remote.direct_client", client)
        arguments = ("--app", "new_shop:app", "--url", ENGINE)
        result = await asyncio.to_thread(run, "check", *arguments, "--json")
        assert result.exit_code == 1, result.output
        document = json.loads(result.stdout)
        assert (document["safe"], document["diverges"]) == (3, 1)
        diverging = next(one for one in document["runs"] if one["state"] == "diverges")
        assert paths[diverging["run_id"]] == "/kind/0"
        wanted = next(run_id for run_id, path in paths.items() if path == "/login/0")
        await world.turn()
        assert (await world.api.get(f"/v1/runs/{wanted}")).json()["data"]["status"] == "Completed"
        exported = await asyncio.to_thread(run, "runs", "export", wanted, "--url", ENGINE)
        assert exported.exit_code == 0, exported.output
        history = History.load(exported.stdout)
        assert history.ended
        assert [one.is_done for one in history.user_steps] == [True, True, True]
        assert "hunter2" not in exported.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--app: name the application"),
        (("--app", "new_shop"), "is not MODULE:NAME"),
        (("--app", "no_shop:app"), "No module named 'no_shop'"),
        (("--app", "new_shop:api"), "has no attribute 'api'"),
        (("--app", "new_shop:NAP"), "must be an ASGI or WSGI application"),
        (("--app", "json:dumps"), "found no stephttp middleware"),
        (("--app", "new_shop:app", "--url", "http://x.test"), "--db and --url"),
    ],
)
async def test_what_cannot_be_checked_has_code_two(
    shop: Path, arguments: tuple[str, ...], message: str
) -> None:
    async with runs_of(shop, plain=1):
        pass
    result = run("check", "--db", "runs.db", *arguments)
    assert (result.exit_code, message in result.output) == (2, True), result.output


async def test_an_application_that_does_not_start_has_code_two(shop: Path) -> None:
    (shop / "no_start.py").write_text(
        "import contextlib, fastapi, stephttp\n"
        "@contextlib.asynccontextmanager\n"
        "async def lifespan(app):\n"
        "    raise OSError('no database')\n"
        "    yield\n"
        "app = stephttp.setup('http://app.test').asgi(fastapi.FastAPI(lifespan=lifespan))\n"
    )
    async with runs_of(shop, plain=1):
        pass
    result = run("check", "--db", "runs.db", "--app", "no_start:app")
    assert (result.exit_code, "OSError: no database" in result.output) == (2, True), result.output
    result = run("check", "--db", "runs.db", "--app", "no_start:app", "--no-lifespan")
    assert (result.exit_code, "not_reached" in result.output) == (1, False), result.output


async def test_a_file_that_is_no_database_has_code_two(shop: Path) -> None:
    (shop / "text.db").write_text("hello, this is not a database of any kind" * 30)
    result = run("check", "--app", "new_shop:app", "--db", "text.db")
    assert (result.exit_code, "--db" in result.output) == (2, True), result.output


async def test_runs_whose_secrets_cannot_be_read_are_not_checked(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with runs_of(shop, plain=1):
        pass
    monkeypatch.delenv("INNGEST_SIGNING_KEY")
    monkeypatch.setenv("INNGEST_DEV", "1")
    result = run("check", "--app", "new_shop:app", "--db", "runs.db")
    assert result.exit_code == 2
    assert "1 unfinished runs: 0 safe, 0 diverge, 1 could not be checked" in result.output


async def test_an_export_has_no_secrets_and_replays(shop: Path) -> None:
    async with runs_of(shop, login=1) as (_, paths):
        pass
    (run_id,) = paths
    result = run("runs", "export", run_id, "--db", "runs.db")
    assert result.exit_code == 0, result.output
    assert "hunter2" not in result.stdout
    history = History.load(json.loads(result.stdout))
    assert [one.id for one in history.user_steps] == ["login", "use masked-1", "pack"]
    assert (
        run("runs", "export", run_id, "--db", "runs.db", "--mask", "user").stdout.count("ann") == 0
    )
    assert run("runs", "export", "0" * 26, "--db", "runs.db").exit_code == 1
    assert run("runs", "export", "no", "--db", "runs.db").exit_code == 2


async def test_an_export_may_be_a_test_that_passes(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with runs_of(shop, login=1) as (world, paths):
        (run_id,) = paths
        for _ in range(3):
            await world.engine.idle()
            if (await world.api.get(f"/v1/runs/{run_id}")).json()["data"]["status"] != "Running":
                break
            await world.turn()
    arguments = ("--as-test", "--app", "new_shop:app", "--output", "test_run.py")
    assert run("runs", "export", run_id, "--db", "runs.db", "--as-test").exit_code == 2
    result = run("runs", "export", run_id, "--db", "runs.db", *arguments)
    assert (result.exit_code, result.stdout) == (0, "test_run.py\n"), result.output
    assert "hunter2" not in (shop / "test_run.py").read_text()
    monkeypatch.syspath_prepend(str(shop))
    test_file: dict[str, Any] = {}
    exec(compile((shop / "test_run.py").read_text(), "test_run.py", "exec"), test_file)
    test_file[f"test_run_{run_id.lower()}"]()


def test_the_help_says_what_runs() -> None:
    text = " ".join(run("check", "--help").output.split())
    assert "No step runs" in text
    assert "its dependencies and the code between steps run" in text


async def test_an_application_that_cannot_be_imported_is_told_where(shop: Path) -> None:
    (shop / "no_import.py").write_text('"""A shop."""\n\nimport not_there_at_all\n')
    async with runs_of(shop, plain=1):
        pass
    result = run("check", "--db", "runs.db", "--app", "no_import:app")
    assert result.exit_code == 2
    assert "No module named 'not_there_at_all'" in result.output
    assert "no_import.py:3" in result.output.replace("\n", "")
    result = run("check", "--db", "runs.db", "--app", "no_such_module:app")
    assert "no_such_module:app cannot be imported" in result.output.replace("\n", " ")
    assert ".py:" not in result.output


def beside(shop: Path, name: str) -> dict[str, Path]:
    return {one.name: one for one in shop.glob(f"{name}*")}


async def test_a_database_that_is_only_read_gets_no_files(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with runs_of(shop, plain=1):
        pass
    before = set(beside(shop, "runs.db"))
    assert before == {"runs.db", "runs.db-lock"}
    assert run("check", "--app", "new_shop:app", "--db", "runs.db").exit_code == 0
    assert set(beside(shop, "runs.db")) == before
    # One that an engine has left behind when it died has a log, which counts.
    async with runs_of(shop, plain=1):
        for one in beside(shop, "runs.db").values():
            (shop / one.name.replace("runs", "died")).write_bytes(one.read_bytes())
        (shop / "died.db-shm").unlink()
        result = run("check", "--app", "new_shop:app", "--db", "died.db")
        assert "2 unfinished runs: 2 safe" in result.output, result.output
        (shop / "died.db-shm").unlink(missing_ok=True)
        monkeypatch.setattr("os.geteuid", lambda: 12345)
        result = run("check", "--app", "new_shop:app", "--db", "died.db")
        assert (result.exit_code, "as its owner" in " ".join(result.output.split())) == (2, True)
        assert not (shop / "died.db-shm").exists()
