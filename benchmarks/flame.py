"""Draws where the time of an endpoint with two steps goes: `python -m benchmarks.flame [FILE]`.

py-spy looks at the application's process a few hundred times a second, under the load of
`bench_steps`, and writes a flame graph (docs/performance.svg).
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import harness, place

SECONDS = 10
TITLE = "An endpoint with two steps, FastAPI under uvicorn, at full load"


def main(target: Path) -> None:
    place.prepare()
    place.pip("py-spy")
    spy = place.PYTHON.with_name("py-spy")
    with (
        tempfile.TemporaryDirectory() as folder,
        harness.engine(Path(folder) / "engine.db") as engine,
        harness.uvicorn("apps:durable", engine.url) as app,
    ):
        url = f"{app.url}/orders/book"
        harness.load(url, seconds=1)
        command = [str(spy), "record", "--pid", str(app.process.pid), "--rate", "400"]
        options = ["--duration", str(SECONDS), "--format", "flamegraph", "--output", str(target)]
        with subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL) as recording:
            time.sleep(0.5)
            harness.load(url, seconds=SECONDS + 2)
        assert recording.returncode == 0
    text = target.read_text().replace(str(place.ROOT), "").replace(str(place.FOLDER), "")
    # py-spy takes its command for the title.
    target.write_text(re.sub(r'(<text id="title"[^>]*>)[^<]*', rf"\g<1>{TITLE}", text, count=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else place.ROOT / "docs" / "performance.svg")
