"""docs/metrics.md, the dashboard for Grafana and the alerts name metrics that there are."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests import needs

from .support import DONE, OTHER, answer, sleep, step, world

ROOT = Path(__file__).resolve().parent.parent.parent
ALERTS = ROOT / "deploy" / "prometheus-alerts.yml"
DASHBOARD = json.loads((ROOT / "deploy" / "grafana-dashboard.json").read_text())
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
NAME = re.compile(r"\b(?:stephttp|process)_[a-z_]+\b")


async def families() -> dict[str, tuple[str, set[str]]]:
    """The type and the labels of each metric of an engine that has done a little of everything."""
    async with world(script=[answer(DONE)]) as w:
        await w.post(step(), sleep())
        await w.post(step(), sleep(text="1d"), run_id=OTHER)
        await w.after(10)
        text = (await w.http.get("/metrics")).text
    return {
        family.name: (
            family.type,
            {label for sample in family.samples for label in sample.labels} - {"le"},
        )
        for family in text_string_to_metric_families(text)
    }


def exprs() -> list[str]:
    """What the dashboard asks Prometheus for, with its variables filled in."""
    found = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    filled = [re.sub(r"\$(instance|endpoint|job)", ".*", expr) for expr in found]
    return [expr.replace("$__rate_interval", "5m") for expr in filled]


async def test_what_is_asked_for_is_there() -> None:
    there = {
        name + suffix: labels
        for name, (kind, labels) in (await families()).items()
        for suffix in SUFFIXES[kind]
    }
    variables = [one.get("definition", "") for one in DASHBOARD["templating"]["list"]]
    asked = "\n".join([*exprs(), *variables, ALERTS.read_text()])
    names = set(NAME.findall(asked))
    assert len(names) > 15
    assert names <= set(there)
    # And with labels that it has; the others are Prometheus' own.
    for name, selector in re.findall(
        r"((?:stephttp|process)_[a-z_]+)\{([^}]*)\}", "\n".join(exprs())
    ):
        labels = set(re.findall(r"(\w+)\s*(?:=~|!=|=)", selector)) - {"instance", "job"}
        assert labels <= there[name], (name, labels)


async def test_the_docs_tell_of_every_metric_with_its_type_and_labels() -> None:
    there = await families()
    table = re.findall(
        r"^\| (`stephttp_.*?) \| (\w+) \| (.*?) \|", (ROOT / "docs" / "metrics.md").read_text(),
        re.MULTILINE,
    )  # fmt: skip
    told = {
        name.removesuffix("_total"): (kind, labels)
        for names, kind, labels in table
        for name in re.findall(r"`(\w+)`", names)
    }
    assert set(told) == {name for name in there if name.startswith("stephttp_")}
    for name, (kind, labels) in told.items():
        assert kind == there[name][0], name
        if there[name][1]:
            assert set(re.findall(r"`(\w+)`", labels)) == there[name][1], name


def test_the_dashboard_is_in_order() -> None:
    panels: list[dict[str, Any]] = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        own = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not own & cells, panel["title"]
        cells |= own
    assert DASHBOARD["uid"]


def test_promtool_accepts_the_alerts_and_every_query_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"q{number}", "expr": expr} for number, expr in enumerate(exprs())]
    file = tmp_path / "dashboard.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    for checked in (ALERTS, file):
        promtool("check", "rules", str(checked))


def promtool(*words: str) -> None:
    found = needs.command("promtool", "prometheus")
    ended = subprocess.run([found, *words], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def case(alert: str, at: str, series: dict[str, str], labels: dict[str, str]) -> dict[str, Any]:
    """An alert that fires at a time, and no earlier than its `for` allows."""
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [
            {"eval_time": "0m", "alertname": alert, "exp_alerts": []},
            {"eval_time": at, "alertname": alert, "exp_alerts": [{"exp_labels": labels}]},
        ],
    }


def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    shop = 'instance="e", app="http://a", endpoint="POST /orders"'
    of_shop = {"instance": "e", "app": "http://a", "endpoint": "POST /orders"}
    ended = "stephttp_runs_ended_total"
    calls = "stephttp_reentry_duration_seconds_count"
    commits = "stephttp_commit_duration_seconds_bucket"
    warning, critical = {"severity": "warning"}, {"severity": "critical"}
    cases = [
        case("StephttpDown", "5m", {'up{job="stephttp", instance="e"}': "0+0x10"},
             {"job": "stephttp", "instance": "e", **critical}),
        case("StephttpCannotStore", "10m",
             {'stephttp_commits_failed_total{instance="e"}': "0+1x20"},
             {"instance": "e", **critical}),
        case("StephttpBehind", "15m",
             {'stephttp_oldest_due_timer_seconds{instance="e"}': "0 90+0x20"},
             {"instance": "e", **warning}),
        case("StephttpRunsFail", "40m",
             {f'{ended}{{{shop}, status="failed"}}': "0+2x60",
              f'{ended}{{{shop}, status="completed"}}': "0+8x60"}, {**of_shop, **warning}),
        case("StephttpAppUnreachable", "40m", {f'{calls}{{{shop}, result="transient"}}': "0+1x60"},
             {"instance": "e", "app": "http://a", **warning}),
        case("StephttpCommitsSlow", "40m",
             {f'{commits}{{instance="e", le="0.5"}}': "0+1x60",
              f'{commits}{{instance="e", le="5.0"}}': "0+9x60",
              f'{commits}{{instance="e", le="+Inf"}}': "0+9x60"}, {"instance": "e", **warning}),
    ]  # fmt: skip
    assert {one["alert_rule_test"][0]["alertname"] for one in cases} == set(
        re.findall(r"- alert: (\w+)", ALERTS.read_text())
    )
    # What it says is for people; whether it fires is tested.
    bare = re.sub(r"^ +annotations:\n(?: {10}.*\n)+", "", ALERTS.read_text(), flags=re.MULTILINE)
    (tmp_path / "alerts.yml").write_text(bare)
    tests = {"rule_files": ["alerts.yml"], "evaluation_interval": "1m", "tests": cases}
    file = tmp_path / "tests.yml"
    file.write_text(json.dumps(tests))
    promtool("test", "rules", str(file))
