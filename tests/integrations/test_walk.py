"""How many files of the SDK a request walks through; `python -m benchmarks.walk` names them."""

import pytest

from benchmarks import walk
from stephttp._run import database_watch


@pytest.mark.parametrize(("path", "most"), [("/steps", 18), ("/sleep", 32)])
def test_a_request_walks_through_few_files(
    path: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_watch, "STEP_WATCH", None)  # as without a database
    walked = walk.sdk(path)
    assert len(walked) <= most, sorted(walked)
