"""How many files of the SDK a request walks through; `python -m benchmarks.walk` names them."""

import pytest

from benchmarks import walk


@pytest.mark.parametrize(("path", "most"), [("/steps", 19), ("/sleep", 34)])
def test_a_request_walks_through_few_files(path: str, most: int) -> None:
    walked = walk.sdk(path)
    assert len(walked) <= most, sorted(walked)
