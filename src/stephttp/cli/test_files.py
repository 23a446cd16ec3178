"""`stephttp runs export --as-test`: a test for pytest that replays one run."""

from __future__ import annotations

import re

from stephttp.testing.history import History

_TEXT = '''\
"""Run {run_id} of {endpoint}, which began at {began_at}: the code still accepts it.

Written by `stephttp runs export --as-test`. Its secrets are masked. No step of it runs.
"""

from stephttp.testing import replay

from {module} import {name}

HISTORY = r\'\'\'
{history}\'\'\'


def test_run_{number}() -> None:
    found = replay(HISTORY, {app})
    assert found.safe, str(found)
'''


def test_file(history: History, app: str) -> str:
    """Return the test.

    Args:
        history: of the run, without its secrets.
        app: the application, as `module:name`.
    """
    module, _, names = app.partition(":")
    # A server has chosen these texts, and none of them may become code. An apostrophe stands only
    # in texts of JSON, and may end the literal.
    text = history.dump().replace("'", "\\u0027")
    return _TEXT.format(
        run_id=_in_docstring(history.run.id),
        endpoint=_in_docstring(history.run.endpoint),
        began_at=_in_docstring(history.run.began_at),
        module=module,
        name=names.partition(".")[0],
        app=names,
        number=re.sub("[^a-z0-9]", "_", history.run.id.lower()),
        history=text,
    )


def _in_docstring(text: str) -> str:
    """Return a text without what ends a docstring, begins a line or is an escape."""
    return repr(text.replace('"', "'"))[1:-1]
