"""What README and docs tell a reader to type is typed here."""

from __future__ import annotations

import argparse
import ast
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.acceptance.processes import DEADLINE, ROOT, STEPHTTP, Process

PAGES = sorted(
    page
    for page in (ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md"))
    if "node_modules" not in page.parts
)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


PYTHON = [
    pytest.param(code, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, code in enumerate(blocks(page, "python"), 1)
]


def command(page: Path, start: str) -> list[str]:
    """The words of the first command of the page, or docstring, that begins with `start`."""
    return commands(page, start)[0]


def commands(page: Path, start: str) -> list[list[str]]:
    if page.suffix == ".py":
        text, prompt = ast.get_docstring(ast.parse(page.read_text())) or "", "    "
    else:
        text, prompt = "\n".join(blocks(page, "console")).replace("\\\n", " "), "$ "
    found = [line for line in text.splitlines() if line.startswith(prompt + start)]
    return [shlex.split(line.removeprefix(prompt)) for line in found]


@pytest.mark.parametrize("code", PYTHON)
def test_python_block_runs(code: str, tmp_path: Path) -> None:
    file = tmp_path / "block.py"
    file.write_text(code)
    command = [sys.executable, "-m", "tests.acceptance.import_block", str(file)]
    with Process(command) as program:
        assert program.wait() == 0, program.said()


def test_quick_start(tmp_path: Path) -> None:
    page = ROOT / "README.md"
    (shop,) = [code for code in blocks(page, "python") if code.startswith("# shop.py\n")]
    (tmp_path / "shop.py").write_text(shop)
    answer = start_and_call(page, "stephttp dev", tmp_path)
    assert "303 See Other" in answer
    assert "201 Created" in answer
    (told,) = re.findall(r'`(\{"receipt".*?\})`', page.read_text())
    assert json.loads(answer.splitlines()[-1]) == json.loads(told)


def test_example_readme(tmp_path: Path) -> None:
    environment = {"SIGNUP_DB": str(tmp_path / "signup.sqlite3"), "SIGNUP_COOL_OFF": "0.1"}
    page = ROOT / "examples" / "fastapi_signup" / "README.md"
    answer = start_and_call(page, "stephttp dev", ROOT, environment)
    assert "201 Created" in answer
    assert re.search(r"location: http://\S+/users/1\b", answer)


SERVERS = {
    "uvicorn": (["--port", "0"], "Uvicorn running on"),
    "gunicorn": (["--bind", "127.0.0.1:0"], "Listening at:"),
}
"""How to let the kernel choose the port, and what they then say."""

EXAMPLES = {
    "starlette_app": "starlette",
    "litestar_app": "litestar",
    "quart_app": "quart",
    "django_asgi": "django",
    "django_wsgi": "django",
    "falcon_asgi": "falcon",
    "falcon_wsgi": "falcon",
    "flask_app": "flask",
    "plain_asgi": "asgi",
    "plain_wsgi": "wsgi",
}
"""And the guides that show them."""


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_of_a_guide(name: str) -> None:
    """It is as the guide shows it, and does what its docstring and the guide say."""
    example, page = (
        ROOT / "examples" / f"{name}.py",
        ROOT / "docs" / "guides" / (f"{EXAMPLES[name]}.md"),
    )
    text = example.read_text()
    docstring = ast.get_docstring(ast.parse(text), clean=False)
    assert text.removeprefix(f'"""{docstring}"""').lstrip() in blocks(page, "python")
    for start in ("stephttp dev", "curl"):
        of_example = [word.replace(f"examples.{example.stem}", "app") for word in
                      command(example, start)]  # fmt: skip
        assert of_example in commands(page, start)
    check_order(page, start_and_call(example, "stephttp dev", ROOT))


def test_fastapi_guide(tmp_path: Path) -> None:
    page = ROOT / "docs" / "guides" / "fastapi.md"
    (tmp_path / "app.py").write_text(blocks(page, "python")[0])
    check_order(page, start_and_call(page, "stephttp dev", tmp_path))


def check_order(page: Path, answer: str) -> None:
    assert "303 See Other" in answer
    assert "201 Created" in answer
    assert re.search(r"\nlocation: http://\S+/orders/7\n", answer.replace("\r", "").lower())
    told = re.findall(r'`(\{"receipt".*?\})`', page.read_text())[-1]
    assert json.loads(answer.splitlines()[-1]) == json.loads(told)


def start_and_call(
    page: Path, start: str, cwd: Path, environment: dict[str, str] | None = None
) -> str:
    """Run a page's `stephttp dev` and `curl` on ports that are free; what curl printed."""
    _, dev, *rest = command(page, start)
    (name,) = SERVERS.keys() & {*rest}
    any_port, listening = SERVERS[name]
    whole = [*STEPHTTP, dev, "--port", "0", *rest, *any_port]
    whole[whole.index(name)] = str(Path(sys.executable).with_name(name))
    with Process(whole, cwd=cwd, env=environment) as server:
        port = server.wait_for(listening + r" http://127\.0\.0\.1:(\d+)")[1]
        answer = curl(
            [word.replace("localhost:8000", f"localhost:{port}") for word in command(page, "curl")]
        )
        server.signal(signal.SIGINT)
        assert server.wait() == 0, server.said()
    return answer


def curl(words: list[str]) -> str:
    """The call as the reader makes it; where there is no curl, what it would do."""
    if shutil.which("curl"):
        call = subprocess.run(
            [*words, "--silent", "--show-error"],
            capture_output=True,
            text=True,
            check=False,
            timeout=DEADLINE,
        )
        assert call.returncode == 0, call.stderr
        return call.stdout
    parser = argparse.ArgumentParser()
    parser.add_argument("-i", action="store_true")
    parser.add_argument("-L", action="store_true")
    parser.add_argument("-H", action="append", default=[])
    parser.add_argument("-d", default="")
    parser.add_argument("url")
    options = parser.parse_args(words[1:])
    with httpx2.Client(follow_redirects=options.L, timeout=DEADLINE) as client:
        headers = dict(header.split(": ", 1) for header in options.H)
        answer = client.post(
            f"http://{options.url.removeprefix('http://')}", content=options.d, headers=headers
        )
    heads = [
        f"HTTP/1.1 {one.status_code} {one.reason_phrase}\n"
        + "".join(f"{name}: {value}\n" for name, value in one.headers.items())
        for one in [*answer.history, answer]
    ]
    return "\n".join([*heads, answer.text])
