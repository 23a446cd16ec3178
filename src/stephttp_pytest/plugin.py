"""Fixtures of pytest (`durable_client`, `durable_app`, ...), and for a test that failed: its
runs as text, its database (`--durable-db`).
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Generator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from stephttp.testing import AsyncDurableClient, DurableClient

__tracebackhide__ = True
_clients = pytest.StashKey[list["DurableClient"]]()
_has_failed = pytest.StashKey[bool]()
_files = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this plugin."""
    parser.addini(
        "stephttp_app",
        "the durable application that the fixture durable_client tests, as module:attribute",
        default="",
    )
    parser.getgroup("stephttp").addoption(
        "--durable-db",
        metavar="FILE",
        help="keep the engine's database of the first test that fails in this file (FILE-2 of the "
        "second, and so on); `stephttp start --db FILE` shows it in the dashboard",
    )


@pytest.fixture
def durable_app(pytestconfig: pytest.Config) -> Any:
    """The application under test: that of the option `stephttp_app`. Define a fixture of this name
    to test another one."""
    target = str(pytestconfig.getini("stephttp_app"))
    if not target:
        raise pytest.UsageError(
            "stephttp_app: not set, so durable_client does not know the application; set it in the "
            'options of pytest (stephttp_app = "shop:app"), or define a fixture durable_app'
        )
    return _loaded(target, pytestconfig.rootpath)


@pytest.fixture
def durable_options() -> dict[str, Any]:
    """The options of the clients of the two fixtures below. Define a fixture of this name for
    others, such as `base_url` or `always_replay`."""
    return {}


@pytest.fixture
def durable_client(
    durable_app: Any, durable_options: dict[str, Any], request: pytest.FixtureRequest
) -> Generator[DurableClient]:
    """A client of the application, with an engine of its own; for plain tests."""
    from stephttp.testing import DurableClient

    client = DurableClient(durable_app, **durable_options).open()
    request.node.stash.setdefault(_clients, []).append(client)
    try:
        yield client
    except BaseException:
        client.close()
        raise
    if request.node.stash.get(_has_failed, False):  # that stubs are left over says nothing then
        client.close()
    else:
        client.__exit__(None, None, None)


@pytest.fixture
def async_durable_client(
    durable_app: Any, durable_options: dict[str, Any], request: pytest.FixtureRequest
) -> AsyncDurableClient:
    """A client of the application, with an engine of its own; for `async def` tests under any
    plugin that runs them. It is open while the test runs."""
    from stephttp.testing import AsyncDurableClient

    if not inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        raise pytest.UsageError(
            "async_durable_client is for `async def` tests; use durable_client in others"
        )
    return AsyncDurableClient(durable_app, **durable_options)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Open the client of an async test on the loop that runs the test, whose plugin is not ours."""
    client = getattr(item, "funcargs", {}).get("async_durable_client")
    if client is None or not isinstance(item, pytest.Function):
        return (yield)
    test = item.obj

    @functools.wraps(test)
    async def opened(*args: Any, **kwargs: Any) -> None:
        async with client:
            try:
                await test(*args, **kwargs)
            except (Exception, pytest.fail.Exception) as error:
                if (path := _next_file(item)) is not None:
                    try:
                        await client.save(path)
                    except Exception as lost:  # what the test has raised counts
                        error.add_note(_not_kept(path, lost))
                raise

    item.obj = opened
    try:
        return (yield)
    finally:
        item.obj = test  # it may run once more


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the runs of a test that has failed, and keep its database."""
    report = yield
    if report.when == "call" and report.failed:
        item.stash[_has_failed] = True
        for client in item.stash.get(_clients, []):
            # What fails here may have failed with the test, whose own error counts.
            try:
                report.sections.append(("stephttp runs", _text(client)))
            except Exception as error:
                report.sections.append(("stephttp runs", f"cannot be read: {error}"))
            if problems := client._world.taken_problems():
                text = "\n".join(map(str, problems))
                report.sections.append(("stephttp problems", text))
            if (path := _next_file(item)) is not None:
                try:
                    client.save(path)
                    said = str(path)
                except Exception as error:
                    said = _not_kept(path, error)
                report.sections.append(("stephttp database", said))
    return report


def _not_kept(path: Path, error: Exception) -> str:
    return f"--durable-db: {path} cannot be written: {type(error).__name__}: {error}"


def _text(client: DurableClient) -> str:
    return "\n\n".join(map(str, client.runs)) or "(no run)"


def _next_file(item: pytest.Item) -> Path | None:
    """Return where the database of a test that failed is kept, if it is."""
    wanted = item.config.getoption("--durable-db")
    if not wanted:
        return None
    path = Path(wanted)
    worker = getattr(item.config, "workerinput", {}).get("workerid", "")
    count = item.config.stash[_files] = item.config.stash.get(_files, 0) + 1
    parts = [path.stem, *([worker] if worker else []), *([str(count)] if count > 1 else [])]
    return path.with_name("-".join(parts) + path.suffix)


def _loaded(target: str, root: Path) -> Any:
    """Import an application.

    Raises:
        pytest.UsageError: there is no such attribute or module.
    """
    name, _, attribute = target.partition(":")
    if str(root) not in sys.path:
        sys.path.append(str(root))
    try:
        found: Any = import_module(name)
        for part in (attribute or "app").split("."):
            found = getattr(found, part)
    except (ModuleNotFoundError, AttributeError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name != name:
            raise
        raise pytest.UsageError(
            f"stephttp_app: cannot find {target!r} ({error}); write module:attribute, with a "
            f"module that can be imported in {root}"
        ) from error
    return found
