"""Every command that speaks with an engine, before real engines and apps."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx2
import pytest

from stephttp._version import __version__
from tests.acceptance.commands import Ended, run
from tests.acceptance.processes import STEPHTTP, Process, eventually, free_port, serving

KEY, WRONG = "signkey-prod-" + "0a" * 32, "signkey-prod-" + "2c" * 32
EVENT_KEY = "event-key-of-the-tests"
UNKNOWN = "01M81KWY4BC292NS2P7Q9MNAN7"

APP = """
import os, pathlib
from datetime import timedelta
from fastapi import FastAPI
from fastapi.responses import JSONResponse
import stephttp
from stephttp import step

app = FastAPI()
app.add_middleware(stephttp.ASGIMiddleware, provider=stephttp.setup(os.environ["ORIGIN"]))


@app.post("/orders", status_code=201)
async def orders(body: dict[str, str]) -> dict[str, str]:
    item = await step.run("charge", lambda: body["item"])
    packed = await step.wait_for_event("packed", event="order/packed", timeout=timedelta(hours=1))
    return {"item": item, "packed": await step.run("ship", lambda: str(packed is not None))}


@app.post("/naps")
async def naps() -> None:
    await step.sleep("nap", timedelta(hours=1))


@app.post("/approvals")
async def approvals() -> str:
    signal = await step.wait_for_signal("by", signal="approval:1", timeout=timedelta(hours=1))
    return "nobody" if signal is None else str(signal.data)


@app.post("/functions")
async def functions(call: dict[str, object]) -> JSONResponse:
    return JSONResponse({"packed": call["event"]}, headers={"x-inngest-sdk": "py:v0"})


@app.post("/broken")
async def broken() -> str:
    await step.sleep("nap", timedelta(milliseconds=1))
    raise RuntimeError("no \\x1b[31mink\\x1b[0m left")
"""


@dataclass
class Shop:
    """An engine, and an application beside it."""

    url: str
    origin: str
    db: Path
    env: dict[str, str]
    http: httpx2.Client

    def order(self, item: str) -> str:
        """Make a run that waits for an event; its id."""
        answer = self.http.post(f"{self.origin}/orders", json={"item": item})
        assert answer.status_code == 303, answer.text
        run_id: str = answer.headers["x-run-id"]
        return run_id

    def run(self, *words: str, code: int = 0, env: Mapping[str, str] | None = None) -> Ended:
        """A command, which has ended with this exit code."""
        return command(*words, code=code, env={**self.env, **(env or {})})

    def json(self, *words: str, code: int = 0) -> Any:
        return json.loads("\n".join(self.run(*words, "--json", code=code).out))

    def watched(self, run_id: str, code: int = 0) -> Any:
        """The run at its end. It may be seen on its way there, in lines before that."""
        return json.loads(self.run("runs", "watch", run_id, "--json", code=code).out[-1])


def command(*words: str, code: int = 0, env: Mapping[str, str] | None = None) -> Ended:
    ended = run(*words, env={"TZ": "UTC", **(env or {})})
    assert ended.code == code, ended.said()
    # Nobody looks: no colours, no cursor.
    assert "\x1b" not in ended.said()
    return ended


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Generator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    (folder / "shop.py").write_text(APP)
    port, db = free_port(), folder / "runs.db"
    origin = f"http://127.0.0.1:{port}"
    start = [*STEPHTTP, "start", "--port", "0", "--db", str(db), "--allow-host", "127.0.0.1"]
    keys = {"INNGEST_SIGNING_KEY": KEY, "INNGEST_EVENT_KEY": EVENT_KEY}
    uvicorn = [sys.executable, "-m", "uvicorn", "shop:app", "--port", str(port)]
    with Process([*start, "--log-format", "text"], env=keys) as engine:
        url = engine.wait_for(r'engine ready url="(\S+)"')[1]
        env = {**keys, "INNGEST_BASE_URL": url}
        with Process(uvicorn, cwd=folder, env={**env, "ORIGIN": origin}) as app:
            app.wait_for("Uvicorn running")
            with httpx2.Client(timeout=60) as http:
                yield Shop(url, origin, db, env, http)


def columns(line: str) -> list[str]:
    return re.split(r" {2,}", line)


def test_runs_are_listed_for_people_and_for_programs(shop: Shop) -> None:
    run_id = shop.order("a listed book")
    out = shop.run("runs", "list", "--text", "a listed book").out
    assert columns(out[0]) == ["RUN", "STATE", "ENDPOINT", "BEGAN", "LASTED", "STEPS"]
    found = columns(out[1])
    assert found[:3] == [run_id, "waiting", "POST /orders"]
    assert found[-1].startswith("event packed order/packed until ")
    (item,) = shop.json("runs", "list", "--text", "a listed book")
    assert (item["run_id"], item["state"], item["function"]) == (run_id, "waiting", "POST /orders")
    assert item["waiting_for"][0]["key"] == "order/packed"


def test_filters_of_runs(shop: Shop) -> None:
    ids = [shop.order("filtered") for _ in range(3)]

    def listed(*words: str) -> list[str]:
        runs = shop.json("runs", "list", "--text", "filtered", *words)
        return [run["run_id"] for run in runs]

    assert listed() == ids[::-1]
    assert listed("--limit", "2") == ids[:0:-1]
    assert listed("--status", "waiting", "--status", "failed", "--after", "1h") == ids[::-1]
    assert listed("--status", "failed") == []
    assert listed("--endpoint", "POST /orders", "--before", "1h") == []
    assert listed("--after", "2026-01-01T00:00", "--endpoint", "POST /nothing") == []
    out = shop.run("runs", "list", "--text", "filtered", "--status", "failed").out
    assert len(out) == 1


def test_lists_go_on_over_pages(shop: Shop) -> None:
    answers = [
        shop.http.post(f"{shop.url}/e/{EVENT_KEY}", json=[{"name": "many", "data": {"n": n}}] * 50)
        for n in range(5)
    ]
    assert all(answer.is_success for answer in answers)
    found = shop.json("events", "list", "--name", "many", "--limit", "230")
    assert len({event["internal_id"] for event in found}) == 230
    run_ids = [shop.order("one of many") for _ in range(103)]
    listed = shop.json("runs", "list", "--text", "one of many", "--limit", "102")
    assert [run["run_id"] for run in listed] == run_ids[:0:-1]


def test_a_run_is_shown_watched_and_completed_by_an_event(shop: Shop) -> None:
    run_id = shop.order("a book")
    shown = "\n".join(shop.run("runs", "show", run_id).out)
    assert f"{run_id}  waiting" in shown
    assert f"request    POST {shop.origin}/orders" in shown
    assert "waits for  event packed order/packed until" in shown
    with Process([*STEPHTTP, "runs", "watch", run_id], env=shop.env) as watch:
        watch.wait_for(f"^{run_id} +waiting .*waits for event packed")
        (sent,) = shop.json("events", "send", "order/packed", "--data", '{"by": "hand"}')["ids"]
        assert watch.wait() == 0, watch.said()
        assert re.match(rf"{run_id} +completed +POST /orders", watch.out[-1])
        assert "\x1b" not in watch.said()
    shown = "\n".join(shop.run("runs", "show", run_id).out)
    assert re.search(r"charge +completed +StepRun +1 .* \"a book\"", shown)
    assert "response   201" in shown
    detail = shop.json("runs", "show", run_id)
    assert [event["internal_id"] for event in detail["events"]] == [sent]
    assert shop.watched(run_id)["state"] == "completed"


def test_a_failure_is_an_exit_code_and_its_text_moves_no_cursor(shop: Shop) -> None:
    answer = httpx2.post(f"{shop.origin}/broken", timeout=60)
    run_id = answer.headers["x-run-id"]
    watch = shop.run("runs", "watch", run_id, code=1)
    assert re.match(rf"{run_id} +failed +POST /broken", watch.out[-1])
    assert "\\x1b[31mink" in shop.run("runs", "show", run_id).said()
    assert "\\x1b[31mink" in shop.run("runs", "list", "--status", "failed").said()
    error = shop.json("runs", "show", run_id)["error"]
    assert "\x1b[31mink" in error["message"]


def test_a_watch_goes_on_after_a_restart_of_the_engine(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    engine = [*STEPHTTP, "dev", "--port", str(port), "--db", str(tmp_path / "runs.db")]
    wait = {"op": "WaitForEvent", "id": "a" * 40, "opts": {"event": "never", "timeout": "1d"}}
    event = {"name": "e", "data": {"domain": "http://app.test", "method": "GET"}}
    first = {"run_id": UNKNOWN, "event": event, "steps": [wait]}
    with Process(engine) as old:
        old.wait_for("engine ready")
        assert httpx2.post(f"{url}/v1/checkpoint", json=first).status_code == 200
        watch = Process([*STEPHTTP, "runs", "watch", UNKNOWN, "--url", url])
        with watch:
            watch.wait_for(f"^{UNKNOWN} +waiting")
            old.signal(signal.SIGTERM)
            assert old.wait() == 0
            with Process(engine) as new:
                new.wait_for("engine ready")
                command("runs", "cancel", UNKNOWN, "--url", url)
                assert watch.wait() == 1, watch.said()
            assert watch.err == []
            assert [columns(line)[1] for line in watch.out] == ["waiting", "cancelled"]


@pytest.mark.usefixtures("measured")
def test_all_runs_are_followed_until_ctrl_c(shop: Shop) -> None:
    with Process([*STEPHTTP, "runs", "watch", "--json"], env=shop.env) as watch:
        # What came before the stream was open is not told, so there is one more until it is.
        eventually(lambda: [shop.order("followed")] and watch.out)
        run = json.loads(watch.out[0])
        assert (run["function"], run["state"]) == ("POST /orders", "waiting")
        watch.signal(signal.SIGINT)
        assert watch.wait() == 130, watch.said()
        assert "Traceback" not in watch.said()


def test_runs_are_cancelled(shop: Shop) -> None:
    first, second = shop.order("one"), shop.order("two")
    assert shop.run("runs", "cancel", first).out == [f"{first} cancelled"]
    # Again, with one that is not there between those that are.
    process = shop.run("runs", "cancel", first, UNKNOWN, second.lower(), "--json", code=1)
    assert json.loads("\n".join(process.out)) == [
        {"run_id": first, "status": "cancelled"},
        {"run_id": second, "status": "cancelled"},
    ]
    assert process.err == [f"stephttp: run_id: there is no run {UNKNOWN}"]


def test_a_run_is_run_again(shop: Shop) -> None:
    run_id = shop.order("again")
    shop.run("events", "send", "order/packed")
    assert shop.run("runs", "watch", run_id).out
    (new,) = shop.run("runs", "rerun", run_id).out
    assert new != run_id
    assert shop.json("runs", "show", new)["rerun_of"] == run_id
    told = shop.json("runs", "rerun", run_id, "--from-step", "packed")
    assert told["rerun_of"] == run_id
    whole = shop.run("runs", "rerun", run_id, "--from-step", "ship", "--watch").out
    assert re.match(rf"{whole[0]} +completed", whole[-1])
    bad = shop.run("runs", "rerun", run_id, "--from-step", "nothing", code=2)
    assert bad.err == [
        "stephttp: --from-step: 'nothing': no such step, it has: charge, packed, ship"
    ]


def test_a_run_that_waits_is_resumed(shop: Shop) -> None:
    first = shop.order("one")
    asleep = httpx2.post(f"{shop.origin}/naps", timeout=60, follow_redirects=False)
    second = asleep.headers["x-run-id"]
    (refused,) = shop.run("runs", "resume", first, code=1).err
    assert refused.startswith(f"stephttp: run {first} waits for event packed order/packed until ")
    assert refused.endswith("; end one with --step packed")
    assert shop.json("runs", "resume", first, "--step", "packed") == {"run_id": first, "waits": 1}
    assert shop.run("runs", "resume", second).out == [f"{second} continues; waits that ended: 1"]
    for run_id in (first, second):
        assert shop.watched(run_id)["state"] == "completed"
    assert shop.run("runs", "resume", first, code=1).err
    bad = shop.run("runs", "resume", first, "--step", "nothing", code=2)
    assert bad.err[0].startswith("stephttp: --step: 'nothing': no such step, it has: charge, ")


def test_a_signal_ends_the_wait_for_it(shop: Shop) -> None:
    answer = httpx2.post(f"{shop.origin}/approvals", timeout=60, follow_redirects=False)
    run_id = answer.headers["x-run-id"]
    assert shop.run("signals", "send", "approval:1", "--data", '"by hand"').out == [run_id]
    ended = shop.watched(run_id)
    assert ended["state"] == "completed"
    late = shop.run("signals", "send", "approval:1", "--json", code=1)
    assert late.err == ["stephttp: no run waits for the signal 'approval:1'"]
    assert shop.run("signals", "send", "", code=2).err == ["stephttp: NAME: must not be empty"]


def test_functions_are_paused_resumed_and_invoked(shop: Shop) -> None:
    where = {"runtime": {"type": "http", "url": f"{shop.origin}/functions?fnId=shop-pack"}}
    body = {
        "appName": "shop",
        "url": f"{shop.origin}/functions",
        "functions": [
            {
                "id": "shop-pack",
                "triggers": [{"event": "order/paid", "expression": "event.data.n > 1"}],
                "steps": {"step": {"id": "step", "name": "step", **where}},
            },
            {
                "id": "shop-held",
                "triggers": [{"event": "order/held"}],
                "debounce": {"period": "1h"},
                "steps": {"step": {"id": "step", "name": "step", **where}},
            },
            {
                "id": "shop/none",
                "triggers": [],
                "connect": {"a": 1},
                "steps": {"step": {"id": "step", "name": "step", **where}},
            },
        ],
    }
    key = {"authorization": f"Bearer {KEY}"}
    shop.http.post(f"{shop.url}/fn/register", json=body, headers=key).raise_for_status()
    heading, held, first, second = shop.run("functions", "list").out
    assert columns(heading) == ["FUNCTION", "STATE", "STARTS WITH"]
    assert columns(held) == ["shop-held", "ready", "order/held"]
    assert columns(first) == ["shop-pack", "ready", "order/paid if event.data.n > 1"]
    assert columns(second) == ["shop/none", "refused", "connect: this engine cannot do that yet"]
    assert shop.run("functions", "pause", "shop-pack").out == ["shop-pack is paused"]
    assert shop.run("functions", "pause", "shop-pack").out == ["shop-pack is already paused"]
    assert shop.json("functions", "pause", "shop-pack") == {"paused": True, "modified": False}
    assert columns(shop.run("functions", "list").out[2])[1] == "paused"
    assert shop.run("functions", "invoke", "shop-pack", code=1).err == [
        "stephttp: function: 'shop-pack' is not started: it is paused"
    ]
    later = shop.run("functions", "invoke", "shop-held")
    held_by = "its options (debounce, batchEvents) hold the event until it starts one"
    assert (later.out, later.err) == ([], [f"stephttp: shop-held: no run yet; {held_by}"])
    assert shop.run("functions", "resume", "shop-pack").out == ["shop-pack is resumed"]
    assert shop.run("functions", "resume", "shop/none").out == ["shop/none was not paused"]
    invoked = shop.json("functions", "invoke", "shop-pack", "--data", '{"n": 7}')
    ended = shop.watched(invoked["run_id"])
    assert (ended["state"], ended["started_by"]["data"]) == ("completed", {"n": 7})
    whole = shop.run("functions", "invoke", "shop-pack", "--watch").out
    assert re.match(rf"{whole[0]} +completed", whole[-1])
    assert shop.run("functions", "invoke", "shop-pack", "--data", "[]", code=2).err == [
        "stephttp: --data: must be a JSON object, such as '{\"id\": 1}'"
    ]
    assert shop.run("functions", "pause", "gone", code=1).err == [
        "stephttp: FUNCTION: there is no 'gone'; the engine knows: shop-held, shop-pack, shop/none"
    ]


def test_events_are_sent_and_listed(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "data.json"
    file.write_text('{"from": "a file"}')
    (first,) = shop.run("events", "send", "cli/sent", "--data", f"@{file}", "--id", "one").out
    # With no event key, the signing key is enough.
    (second,) = shop.run("events", "send", "cli/sent", env={"INNGEST_EVENT_KEY": ""}).out
    out = shop.run("events", "list", "--name", "cli/sent").out
    assert columns(out[0]) == ["EVENT", "NAME", "RECEIVED", "DATA"]
    assert [columns(line)[0] for line in out[1:]] == [second, first]
    listed = shop.json("events", "list", "--name", "cli/sent", "--after", "1h", "--limit", "1")
    assert [event["internal_id"] for event in listed] == [second]
    listed = shop.json("events", "list", "--name", "cli/sent")
    assert listed[1]["data"] == {"from": "a file"}
    assert shop.json("events", "list", "--name", "cli/sent", "--before", "1h") == []


SPEAKING = {
    "runs list": (),
    "runs show": (UNKNOWN,),
    "runs cancel": (UNKNOWN,),
    "runs rerun": (UNKNOWN,),
    "runs resume": (UNKNOWN,),
    "runs watch": (UNKNOWN,),
    "functions list": (),
    "functions pause": ("name",),
    "functions resume": ("name",),
    "functions invoke": ("name",),
    "signals send": ("name",),
    "events send": ("name",),
    "events list": (),
}


@pytest.mark.parametrize("name", SPEAKING)
def test_no_engine_is_told(name: str) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    process = command(*name.split(), *SPEAKING[name], "--url", url, code=3)
    assert process.out == []
    assert process.err == [
        f"stephttp: no engine at {url} (--url): {process.err[0].split(': ')[-1]}"
    ]


@pytest.mark.parametrize("name", SPEAKING)
def test_wrong_keys_are_told(shop: Shop, name: str) -> None:
    options = ("--event-key", "wrong-event-key") if name == "events send" else ()
    words = (*name.split(), *SPEAKING[name], "--url", shop.url, "--signing-key", WRONG, *options)
    process = command(*words, code=4)
    assert process.out == []
    which = "event" if options else "signing"
    assert process.err == [f"stephttp: {shop.url}: wrong {which} key (401)"]


@pytest.mark.parametrize("name", SPEAKING)
def test_missing_keys_are_told(shop: Shop, name: str) -> None:
    process = command(*name.split(), *SPEAKING[name], code=4, env={"INNGEST_DEV": shop.url})
    which = "an event key" if name == "events send" else "a signing key"
    assert f"asks for {which}: set INNGEST_" in process.err[0]


def test_keys_come_from_files_and_a_fallback_is_tried(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# rotated\n{WRONG}\n{KEY}\n")
    command("runs", "list", "--url", shop.url, "--signing-key-file", str(file))
    keys = {"INNGEST_SIGNING_KEY": WRONG, "INNGEST_SIGNING_KEY_FALLBACK": KEY}
    command("runs", "list", env={"INNGEST_BASE_URL": shop.url, **keys})
    file.write_text(EVENT_KEY)
    command("events", "send", "x", "--url", shop.url, "--event-key-file", str(file))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("runs", "list", "--after", "soon"), "--after: 'soon' is neither a time"),
        (("runs", "list", "--limit", "0"), "Invalid value for '--limit'"),
        (("runs", "list", "--url", "nonsense"), "--url: 'nonsense' is not a URL such as"),
        (("runs", "list", "--signing-key", "xyz"), "hexadecimal"),
        (("runs", "list", "--signing-key-file", "/nowhere"), "cannot read the key file '/nowhere'"),
        (("runs", "list", "--nothing"), "No such option: --nothing"),
        (("runs", "show"), "Missing argument 'RUN'"),
        (("runs", "show", "../x"), "'../x' is not the id of a run, which has 26"),
        (("runs", "cancel"), "Missing argument 'RUN...'"),
        (("runs", "cancel", "x"), "'x' is not the id of a run"),
        (("runs", "watch", "x"), "'x' is not the id of a run"),
        (("runs", "rerun", UNKNOWN, "--input", "1"), "--input: name the step with --from-step"),
        (("runs", "rerun", UNKNOWN, "--from-step", "a", "--input", "{"), "--input: not JSON"),
        (("events", "send"), "Missing argument 'NAME'"),
        (("events", "send", ""), "NAME: must not be empty"),
        (("events", "send", "n", "--data", "{"), "--data: not JSON"),
        (("events", "send", "n", "--data", "[]"), "--data: must be a JSON object"),
        (("events", "send", "n", "--data", "@/nowhere"), "--data: [Errno 2]"),
        (("events", "list", "--before", "x"), "--before: 'x' is neither"),
        (("nothing",), "No such command 'nothing'"),
        (("runs", "nothing"), "No such command 'nothing'"),
        (("doctor", "--url", "ftp://x"), "--url: 'ftp://x' is not a URL"),
        (("backup",), "Missing argument 'FILE'"),
        (("check-db", "/nowhere"), "does not exist"),
        (("dev", "--port", "x"), "Invalid value for '--port'"),
        (("start",), "Missing option '--db'"),
    ],
)
def test_bad_arguments_are_named(words: tuple[str, ...], complaint: str) -> None:
    process = command(*words, code=2, env={"COLUMNS": "300"})
    assert process.out == []
    assert complaint in re.sub(r"[│╭╮╰╯─\s]+", " ", " ".join(process.err))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("runs", "show", UNKNOWN), f"run_id: there is no run {UNKNOWN}"),
        (("runs", "watch", UNKNOWN), f"run_id: there is no run {UNKNOWN}"),
        (("runs", "rerun", UNKNOWN), f"run_id: there is no run {UNKNOWN}"),
        (("runs", "list", "--status", "asleep"), "status: 'asleep' is not one of"),
    ],
)
def test_what_the_engine_refuses_is_told(
    shop: Shop, words: tuple[str, ...], complaint: str
) -> None:
    process = shop.run(*words, code=1)
    assert process.out == []
    assert complaint in process.err[0]


def test_what_is_no_engine_is_told() -> None:
    with other_server(lambda path: (200, {}, b"<html>")) as url:
        process = command("runs", "list", "--url", url, code=1)
        assert process.err == [f"stephttp: {url} does not answer as an engine does"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("runs", "list"), 0),
        (("runs", "show", UNKNOWN), 1),
        (("runs", "list", "--limit", "0"), 2),
        (("runs", "list", "--url", "http://127.0.0.1:1"), 3),
        (("runs", "list", "--signing-key", WRONG), 4),
    ],
)
def test_a_process_says_and_ends_as_the_tests_have_it(
    shop: Shop, words: tuple[str, ...], code: int
) -> None:
    ended = shop.run(*words, code=code)
    script = str(Path(sys.executable).with_name("stephttp"))
    with Process([script, *words], env={"TZ": "UTC", **shop.env}) as process:
        assert process.wait() == code
        assert (process.out, process.err) == (ended.out, ended.err)


def test_no_command_writes_into_a_broken_pipe_with_a_traceback(shop: Shop) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    ended = subprocess.run(
        [*STEPHTTP, "runs", "list"], stdout=write_end, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **shop.env}, check=False,
    )  # fmt: skip
    os.close(write_end)
    assert "Traceback" not in ended.stderr


# --- doctor


def checks(process: Ended) -> dict[str, dict[str, Any]]:
    told = json.loads("\n".join(process.out))
    assert told["ok"] == (process.code == 0)
    assert all(set(one) == {"name", "status", "detail", "fix"} for one in told["checks"])
    return {one["name"]: one for one in told["checks"]}


def test_doctor_finds_nothing_where_all_is_well(shop: Shop) -> None:
    shop.order("so that the engine knows the application")
    found = checks(shop.run("doctor", "--app", shop.origin, "--json"))
    assert {name: one["status"] for name, one in found.items()} == dict.fromkeys(
        ("cli", "engine", "clock", "version", "signing key", "event key",
         f"engine to {shop.origin}", f"here to {shop.origin}"), "ok",
    )  # fmt: skip
    way = found[f"engine to {shop.origin}"]["detail"]
    assert "it knows the key, and it reaches the engine" in way
    assert __version__ in found["cli"]["detail"]
    people = shop.run("doctor")
    assert any(re.match(r"✓ engine: stephttp at .*, for production", line) for line in people.out)


def test_doctor_finds_wrong_keys(shop: Shop) -> None:
    keys = {"INNGEST_SIGNING_KEY": WRONG, "INNGEST_EVENT_KEY": "wrong-event-key"}
    found = checks(shop.run("doctor", "--json", code=1, env=keys))
    assert found["signing key"]["status"] == found["event key"]["status"] == "error"
    assert "INNGEST_EVENT_KEY" in found["event key"]["fix"]
    assert found["applications"]["status"] == "skipped"
    found = checks(shop.run("doctor", "--json", code=1, env={"INNGEST_SIGNING_KEY": ""}))
    assert "set INNGEST_SIGNING_KEY" in found["signing key"]["fix"]
    rotated = {"INNGEST_SIGNING_KEY": WRONG, "INNGEST_SIGNING_KEY_FALLBACK": KEY}
    found = checks(shop.run("doctor", "--json", env=rotated))
    assert found["signing key"]["status"] == "warning"
    assert found["signing key 2"]["status"] == "ok"
    for secret in (KEY, WRONG, EVENT_KEY):
        assert secret not in shop.run("doctor", "--json", code=1, env=keys).said()


def test_doctor_finds_no_engine_and_no_application() -> None:
    url, app = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    found = checks(command("doctor", "--url", url, "--app", app, "--json", code=1))
    assert found["engine"]["status"] == found[f"here to {app}"]["status"] == "error"
    assert "stephttp dev" in found["engine"]["fix"]
    people = command("doctor", "--url", url, code=1)
    assert any(
        line.startswith(f"✗ engine: nothing answers at {url} (--url)") for line in people.out
    )


@pytest.mark.parametrize(
    ("app_env", "stopped", "detail"),
    [
        ({"INNGEST_SIGNING_KEY": WRONG}, False, "it does not know the key"),
        ({"INNGEST_BASE_URL": "http://127.0.0.1:1"}, False, "it cannot load runs from the engine"),
        ({}, True, "the engine cannot reach it"),
    ],
)
def test_doctor_finds_what_is_wrong_between_engine_and_application(
    shop: Shop, tmp_path: Path, app_env: dict[str, str], stopped: bool, detail: str
) -> None:
    (tmp_path / "shop.py").write_text(APP)
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    uvicorn = [sys.executable, "-m", "uvicorn", "shop:app", "--port", str(port)]
    good = {**shop.env, "ORIGIN": origin}
    with Process(uvicorn, cwd=tmp_path, env=good) as app:
        app.wait_for("Uvicorn running")
        answer = httpx2.post(f"{origin}/orders", json={"item": "x"}, timeout=60)
        assert answer.status_code == 303
    if stopped:
        found = checks(shop.run("doctor", "--app", origin, "--json", code=1))
    else:
        with Process(uvicorn, cwd=tmp_path, env={**good, **app_env}) as app:
            app.wait_for("Uvicorn running")
            found = checks(shop.run("doctor", "--app", origin, "--json", code=1))
    check = found[f"engine to {origin}"]
    assert check["status"] == "error"
    assert detail in check["detail"]
    assert check["fix"]
    shop.run("runs", "cancel", answer.headers["x-run-id"])


def test_doctor_asks_the_engine_only_for_what_it_may_call(shop: Shop) -> None:
    named = [("--app", url) for url in ("http://10.1.2.3/api/inngest?x=1", "no", "http://[::1")]
    found = checks(shop.run("doctor", *sum(named, ()), "--json", code=1))
    assert "the engine may not call it" in found["engine to http://10.1.2.3"]["detail"]
    assert "not an origin" in found["engine to http://[::1"]["detail"]
    assert "not an origin" in found["engine to no"]["detail"]


Answer = Callable[[str], tuple[int, dict[str, str], bytes]]


def other_server(answer: Answer) -> AbstractContextManager[str]:
    """Something else that speaks HTTP; `answer` makes status, headers and body of a path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = answer(self.path)
            self.send_response_only(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return serving(Handler)


def test_doctor_and_an_inngest_server_with_a_clock_that_is_wrong() -> None:
    kind = {"x-inngest-server-kind": "cloud", "date": "Mon, 01 Jan 2001 00:00:00 GMT"}

    def answer(path: str) -> tuple[int, dict[str, str], bytes]:
        return 200, kind, b'{"data": []}' if path.startswith("/v1/") else b'{"ids": [""]}'

    with other_server(answer) as url:
        env = {"INNGEST_SIGNING_KEY": KEY, "INNGEST_EVENT_KEY": EVENT_KEY}
        found = checks(command("doctor", "--url", url, "--json", code=1, env=env))
    assert found["engine"]["detail"] == f"Inngest at {url}, for production"
    assert found["clock"]["status"] == "error"
    assert "behind this machine's" in found["clock"]["detail"]
    assert "NTP" in found["clock"]["fix"]
    assert found["signing key"]["status"] == found["event key"]["status"] == "ok"
    assert found["applications"]["status"] == "skipped"
    assert "version" not in found


def test_doctor_and_something_else() -> None:
    with other_server(lambda path: (502, {}, b"bad gateway")) as url:
        found = checks(command("doctor", "--url", url, "--json", code=1))
    assert found["engine"]["detail"] == f"{url}/health answers 502"


# --- databases, completion


def test_backup_and_check_for_programs(shop: Shop, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    told = json.loads("\n".join(command("backup", str(copy), "--db", str(shop.db), "--json").out))
    assert told == {"db": str(shop.db), "file": str(copy), "bytes": copy.stat().st_size}
    told = json.loads("\n".join(command("check-db", str(copy), "--json").out))
    assert (told["ok"], told["problems"]) == (True, [])
    assert set(told) == {"ok", "schema", "runs", "problems"}
    copy.write_bytes(b"nothing of the kind" * 100)
    broken = command("check-db", str(copy), "--json", code=1)
    assert json.loads("\n".join(broken.out))["ok"] is False


def test_completion_is_there_for_shells() -> None:
    script = str(Path(sys.executable).with_name("stephttp"))
    variables = {
        "_STEPHTTP_COMPLETE": "complete_bash",
        "COMP_WORDS": "stephttp ru",
        "COMP_CWORD": "1",
    }
    with Process([script], env=variables) as process:
        assert process.wait() == 0, process.said()
        assert process.out == ["runs"]


@pytest.mark.usefixtures("measured")
@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no terminals here")
def test_on_a_terminal_there_are_colours_unless_unwanted(shop: Shop) -> None:
    def seen(**env: str) -> bytes:
        ours, theirs = os.openpty()
        inherited = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        with subprocess.Popen(
            [*STEPHTTP, "runs", "list", "--limit", "3"], stdout=theirs, stdin=subprocess.DEVNULL,
            env={**inherited, **shop.env, "TERM": "xterm-256color", **env},
        ) as process:  # fmt: skip
            os.close(theirs)
            chunks = []
            while True:
                try:
                    chunks.append(os.read(ours, 65536))
                except OSError:  # Linux says so when the other end is closed.
                    break
                if not chunks[-1]:
                    break
            os.close(ours)
            assert process.wait() == 0
        return b"".join(chunks)

    shop.order("seen")
    assert b"\x1b[34mwaiting" in seen()
    assert b"\x1b[3" not in seen(NO_COLOR="1")
