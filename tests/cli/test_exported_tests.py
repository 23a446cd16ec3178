"""What `runs export --as-test` writes, where the engine is not to be trusted."""

from __future__ import annotations

import ast
from typing import Any

import pytest

from stephttp.cli.exits import RemoteError
from stephttp.cli.history_sources import RemoteHistories
from stephttp.cli.test_files import test_file as written
from stephttp.errors import ConfigurationError
from stephttp.testing.engine_history import history_of
from stephttp.testing.history import ExportedRequest, ExportedRun, ExportedStep, History

RUN = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
BEGAN = "2026-01-01T00:00:00Z"
CODE = [
    'x"""\nprint("ran")\n"""', "x\'\'\'\nprint(1)\n\'\'\'", "\\", '\\"', '"', "\\N{", "a\r\nb",
    "x():\n    print(1)\ndef y", "\x00\x0c\u2028", '\\\'""',
]  # fmt: skip
STATE = b'{"stephttp:steps":{}}'


@pytest.mark.parametrize("code", CODE)
def test_texts_of_the_engine_do_not_become_code(code: str) -> None:
    run = ExportedRun(code, code, code, code)
    request = ExportedRequest("POST", code, query=code, body=code, headers=[(code, code)])
    steps = [ExportedStep("a" * 40, code, op=code, branch=code)]
    tree = ast.parse(written(History(run, request, steps, exported_by=code), "shop:app"))
    kinds = [type(node).__name__ for node in tree.body]
    assert kinds == ["Expr", "ImportFrom", "ImportFrom", "Assign", "FunctionDef"]
    text = tree.body[3]
    assert isinstance(text, ast.Assign)
    history = History.load(ast.literal_eval(text.value))
    assert (history.run, history.request, history.steps) == (run, request, steps)


def full(**changes: Any) -> dict[str, Any]:
    """What an engine says of a run."""
    request = {
        "method": "GET", "path": "/", "origin": "http://app.test", "query": "", "content_type": "",
        "body": None, "sealed": False,
    }  # fmt: skip
    run = {"run_id": RUN, "function": "hello", "state": "waiting", "began_at": BEGAN}
    return run | {"request": request} | changes


@pytest.mark.parametrize("name", ["run_id", "began_at"])
@pytest.mark.parametrize("value", [*CODE, "", RUN + "\n", BEGAN + "\n", "2026", None, 7])
def test_a_run_has_a_ulid_and_a_time(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError):
        history_of(full(**{name: value}), STATE, "1.0")


class Engine:
    """An engine that describes a run of its own choice."""

    def __init__(self, **changes: Any) -> None:
        self.changes = changes

    def data(self, method: str, path: str) -> dict[str, Any]:
        return full(**self.changes)

    def send(self, method: str, path: str, headers: object) -> Any:
        return self

    is_success = True
    content = STATE


def test_only_the_run_that_was_asked_for_is_exported() -> None:
    engine: Any = Engine()
    assert RemoteHistories(engine).history(RUN).run == ExportedRun(RUN, "hello", "waiting", BEGAN)
    other: Any = Engine(run_id=RUN[:-1] + "W")
    with pytest.raises(RemoteError, match="instead"):
        RemoteHistories(other).history(RUN)
