"""Each extra can be installed alone: what its modules import, it brings.

Instead of a virtual environment for each, the modules are imported in a process in which everything
is hidden that pip would not install with the extra, as the metadata of the installed packages say.
"""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_DEADLINE = 60
DEVELOPMENT = ("dev", "mutation")
IMPORTS = {
    "": [
        "stephttp", "stephttp.sync", "stephttp.asgi", "stephttp.wsgi", "stephttp.middleware",
        "stephttp._client.api_client", "stephttp._client.transport",
        "stephttp._run.sealing", "cryptography.hazmat.primitives.ciphers.aead",
    ],
    "django": ["stephttp.integrations.django", "stephttp.integrations.django.apps"],
    "engine": ["stephttp.engine.app", "stephttp.cli.commands"],
    "graphql": ["stephttp.engine.app", "stephttp.engine.api.graphql.executing"],
    "inngest": ["stephttp.integrations.inngest"],
    "otel": ["stephttp.integrations.otel"],
    "sqlalchemy": ["stephttp.integrations.sqlalchemy"],
    "testing": ["stephttp.testing.blocking_client", "stephttp.testing.async_client"],
}  # fmt: skip
"""What the documentation imports for an extra, and what is imported only when it is needed."""

PROGRAM = """
import sys

allowed = {allowed!r} | sys.stdlib_module_names

class Hide:
    def find_spec(self, name, path=None, target=None):
        root = name.partition(".")[0]
        if root not in allowed and not root.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(f"{{name}} is not installed with this extra", name=name)

sys.meta_path.insert(0, Hide())
import {modules}
"""


def installed_with(name: str, extra: str, found: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The distributions that pip installs for a distribution with an extra."""
    key = canonicalize_name(name), extra
    if key not in found:
        found.add(key)
        for line in metadata.requires(name) or []:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                for one in {"", *needed.extras}:
                    installed_with(needed.name, one, found)
    return found


def hidden(extra: str, modules: list[str]) -> subprocess.CompletedProcess[str]:
    """Import modules where there is only what comes with an extra."""
    found = installed_with("stephttp", extra, installed_with("stephttp", "", set()))
    distributions = {name for name, _ in found}
    allowed = {"stephttp"} | {
        module
        for module, names in metadata.packages_distributions().items()
        if distributions & {canonicalize_name(name) for name in names}
    }
    program = PROGRAM.format(allowed=allowed, modules=", ".join(modules))
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=_DEADLINE, check=False)


@pytest.mark.parametrize("extra", IMPORTS)
def test_an_extra_brings_what_its_modules_import(extra: str) -> None:
    done = hidden(extra, IMPORTS[extra])
    assert done.returncode == 0, done.stderr


def test_all_extras_are_tried() -> None:
    extras = set(metadata.metadata("stephttp").get_all("Provides-Extra") or ())
    assert extras == {*IMPORTS, *DEVELOPMENT} - {""}


@pytest.mark.parametrize("module", ["ulid", "pydantic", "stephttp.integrations.otel"])
def test_what_does_not_come_with_it_is_not_there(module: str) -> None:
    done = hidden("", ["stephttp", module])
    assert "ModuleNotFoundError" in done.stderr
