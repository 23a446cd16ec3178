"""The database that the benchmarks read follows the schema as it is."""

from pathlib import Path

from benchmarks import million
from stephttp.engine.store.check import check_file


def test_what_the_benchmarks_read_is_whole(tmp_path: Path) -> None:
    path = str(tmp_path / "db")
    million.fill(path, 400)
    report = check_file(path)
    assert report.problems == ()
    assert sum(report.runs.values()) == 400
    assert {"completed", "failed"} <= set(report.runs)
