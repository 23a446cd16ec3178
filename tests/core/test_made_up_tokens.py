"""Which tokens the server need not be asked about."""

from __future__ import annotations

import pytest

from stephttp._run.made_up_tokens import MadeUpTokens
from stephttp._wire.run_links import run_link
from stephttp.engine.model.tokens import run_token

RUN, OTHER = "01M81KWY2JTNRXZTV817ZB746V", "01M81KWY4BC292NS2P7Q9MNAN7"
KEY, OLD = "ab" * 16, "cd" * 16


@pytest.mark.parametrize(
    ("token", "keys", "ours", "made_up"),
    [
        (run_token(RUN, b"of the engine" * 4, 1), (KEY,), True, False),
        (run_token(OTHER, b"of the engine" * 4, 1), (KEY,), True, True),
        (run_token(OTHER, b"of the engine" * 4, 1), (KEY,), False, True),
        (run_link(RUN, KEY), (KEY,), True, False),
        (run_link(RUN, OLD), (KEY, OLD), True, False),
        (run_link(RUN, OLD), (KEY,), True, True),
        (run_link(OTHER, KEY), (KEY,), True, True),
        (run_link(RUN, KEY), (), True, False),  # development: the engine may have keys
        ("l1.x", (KEY,), False, True),
        ("a.b.c", (), True, True),
        ("a.b.c", (), False, False),  # another server's may look like anything
        ("e30.e30." + "a" * 43, (), True, True),
        ("e30.!." + "a" * 43, (), True, True),
        ("e30._w." + "a" * 43, (), True, True),
        ("x", (), True, True),
    ],
)
def test_form_and_signature(token: str, keys: tuple[str, ...], ours: bool, made_up: bool) -> None:
    assert MadeUpTokens(keys, lambda: 0.0).has(RUN, token, ours=ours) is made_up


def test_refusals_count_for_a_while_and_are_bounded() -> None:
    now = [0.0]
    tokens = MadeUpTokens((), lambda: now[0])
    token = run_token(RUN, b"forged" * 8, 1)
    tokens.refused(RUN, token)
    assert tokens.has(RUN, token, ours=True)
    for number in range(5_000):
        tokens.refused(RUN, f"{number}")
    assert len(tokens._refused) == 1000
    now[0] = 10
    assert not tokens.has(RUN, token, ours=True)
    tokens.refused(RUN, "new")
    assert len(tokens._refused) == 1
