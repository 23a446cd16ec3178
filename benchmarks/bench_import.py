"""How long does `import stephttp` take? Each time in a process of its own, with the bytecode that
an installation leaves: `PYTHONDONTWRITEBYTECODE` would have every process compile the sources."""

from __future__ import annotations

import os
import statistics
import subprocess
from pathlib import Path

from benchmarks import harness
from benchmarks.harness import Row
from benchmarks.place import PYTHON

TIMES = 15

BESIDE = """
from stephttp import step
provider = stephttp.setup("https://api.example.com")
app = provider.asgi(fastapi.FastAPI())
"""


def measure(folder: Path) -> list[Row]:
    bytecode = {"PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
    environ = {**os.environ, **bytecode, "PYTHONDONTWRITEBYTECODE": ""}
    timed = {
        "stephttp": ("", "import stephttp"),
        "asyncio": ("", "import asyncio"),
        "fastapi": ("", "import fastapi"),
        "beside": ("import fastapi", "import stephttp" + BESIDE),
    }
    for before, code in timed.values():
        seconds_of(before, code, environ)  # writes the bytecode
    seconds = harness.alternate(
        TIMES,
        **{
            name: lambda before=before, code=code: seconds_of(before, code, environ) * 1000
            for name, (before, code) in timed.items()
        },
    )
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    spread = {name: (min(values), max(values)) for name, values in seconds.items()}
    peers = {"import asyncio": medians["asyncio"], "import fastapi": medians["fastapi"]}
    return [
        Row("import stephttp", medians["stephttp"], "ms", "<= 60", spread["stephttp"], peers),
        Row(
            "what it costs an application of FastAPI: import, setup and asgi",
            medians["beside"], "ms", "", spread["beside"],
        ),
    ]  # fmt: skip


def seconds_of(before: str, code: str, environ: dict[str, str]) -> float:
    """Return the seconds that `code` takes after `before`, without the start of the interpreter."""
    program = (
        f"{before}\nimport time\nbegan = time.perf_counter()\n{code}\n"
        "print(time.perf_counter() - began)"
    )
    command = [str(PYTHON), "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environ)
    return float(done.stdout)
