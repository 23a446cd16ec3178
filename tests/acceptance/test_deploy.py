"""What is in `deploy/`, as far as it can be checked without a systemd or a container at work."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests import needs
from tests.acceptance.processes import ROOT, STEPHTTP, Process

UNIT = ROOT / "deploy" / "stephttp.service"
CONTAINER = ROOT / "deploy" / "Containerfile"
SCRIPT = str(Path(sys.executable).with_name("stephttp"))
WORST_EXPOSURE = "25"
"""Of 100, by systemd's own measure; a service without any hardening has 96."""


def joined(path: Path) -> list[str]:
    """Lines without comments, those that go on put together."""
    text = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("#"))
    return [line.strip() for line in re.sub(r"\\\n\s*", "", text).splitlines() if line.strip()]


def unit() -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string("\n".join(joined(UNIT)))
    assert set(parser) == {"DEFAULT", "Unit", "Service", "Install"}
    return dict(parser["Service"])


def starts(words: list[str], folder: Path) -> None:
    """The command line is one that `stephttp start` takes: it says that it is ready."""
    (folder / "signing-keys").write_text("# the present one\n" + "ab" * 32 + "\n")
    (folder / "event-keys").write_text("event-key-1\n")
    with Process([*STEPHTTP, *words], env={"STEPHTTP_DB": str(folder / "runs.sqlite3")}) as engine:
        engine.wait_for('"event": "engine.start"')


def test_the_units_command_line_starts_an_engine(tmp_path: Path) -> None:
    program, *words = shlex.split(unit()["ExecStart"])
    assert program == "/opt/stephttp/bin/stephttp"
    assert words.pop() == "$STEPHTTP_OPTIONS"
    (tmp_path / "stephttp").mkdir()
    words = [word.replace("%S", str(tmp_path)).replace("%d", str(tmp_path)) for word in words]
    starts([*words, "--port", "0"], tmp_path)
    assert (tmp_path / "stephttp" / "runs.sqlite3").exists()


def test_the_unit_gives_the_engine_time_to_drain() -> None:
    settings = unit()
    grace = re.search(r"--grace (\d+)s", settings["ExecStart"])
    assert grace
    assert int(settings["TimeoutStopSec"]) > int(grace[1]) + 5


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    needs.command("systemd-analyze", "systemd")
    copy = tmp_path / "stephttp.service"
    # It looks whether the program is there.
    copy.write_text(UNIT.read_text().replace("/opt/stephttp/bin/stephttp", SCRIPT))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = [line for line in verified.stderr.splitlines() if "stephttp.service" in line]
    assert (verified.returncode, said) == (0, []), verified.stderr
    secured = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", f"--threshold={WORST_EXPOSURE}",
         "--no-pager", str(copy)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert secured.returncode == 0, secured.stdout[-2000:] + secured.stderr


def instructions() -> list[tuple[str, str]]:
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined(CONTAINER))]


def test_the_containers_command_line_starts_an_engine(tmp_path: Path) -> None:
    (entrypoint,) = [rest for word, rest in instructions() if word == "ENTRYPOINT"]
    program, *words = json.loads(entrypoint)
    assert program == "/opt/stephttp/bin/stephttp"
    words[words.index("8288")] = "0"
    keys = ["--signing-key-file", str(tmp_path / "signing-keys")]
    starts([*words, *keys, "--event-key-file", str(tmp_path / "event-keys")], tmp_path)


def test_the_containerfile_is_well_formed() -> None:
    known = {
        "FROM", "WORKDIR", "COPY", "RUN", "USER", "VOLUME", "ENV", "EXPOSE", "STOPSIGNAL",
        "HEALTHCHECK", "ENTRYPOINT",
    }  # fmt: skip
    lines = instructions()
    assert {word for word, _ in lines} == known
    assert lines[0][0] == "FROM"
    for word, rest in lines:
        if word == "COPY" and not rest.startswith("--from"):
            assert all((ROOT / source).exists() for source in rest.split()[:-1]), rest
    last = lines[max(n for n, (word, _) in enumerate(lines) if word == "FROM") :]
    users = [rest for word, rest in last if word == "USER"]
    assert users
    assert all(user not in ("0", "root") for user in users)
    assert not any("KEY" in rest for word, rest in lines if word in ("ENV", "ARG")), "no secrets"
    (health,) = [rest for word, rest in last if word == "HEALTHCHECK"]
    compile(json.loads(health[health.index("CMD ") + 4 :])[2], "healthcheck", "exec")
