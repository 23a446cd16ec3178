"""Sealed secrets open with the right key, for the right run, and unchanged; else not."""

import pytest

from stephttp._run.sealing import Sealer

NEW, OLD, OTHER = "signkey-prod-" + "ab" * 32, "cd" * 32, "ef" * 32
RUN, ANOTHER = "01M81NT13NCCP5V7EQ9MPKSWMT", "01M81NT13NCCP5V7EQ9MPKSWMV"


def sealed(sealer: Sealer, run: str = RUN) -> bytes:
    seal = sealer.seal(run)
    assert seal is not None
    return seal(b"secret")


def opened(sealer: Sealer, data: bytes, run: str = RUN) -> bytes:
    open_ = sealer.open(run)
    assert open_ is not None
    return open_(data)


@pytest.mark.parametrize("keys", [(NEW,), (OTHER, NEW), ("ab" * 32,)])
def test_any_of_the_keys_opens(keys: tuple[str, ...]) -> None:
    assert opened(Sealer(keys), sealed(Sealer([NEW, OLD]))) == b"secret"


@pytest.mark.parametrize(
    ("keys", "run", "damage"),
    [
        ((OTHER, OLD), RUN, lambda data: data),
        ((NEW,), ANOTHER, lambda data: data),
        ((NEW,), RUN, lambda data: data[:-1] + bytes([data[-1] ^ 1])),
        ((NEW,), RUN, lambda data: data[:-1]),
        ((NEW,), RUN, lambda data: b"\x02" + data[1:]),
        ((NEW,), RUN, lambda data: b""),
        ((NEW,), RUN, lambda data: data[:5]),
    ],
    ids=["key", "run", "changed", "cut", "version", "empty", "short"],
)
def test_nothing_else_opens(keys: tuple[str, ...], run: str, damage: object) -> None:
    assert callable(damage)
    with pytest.raises(ValueError, match="sealed"):
        opened(Sealer(keys), damage(sealed(Sealer([NEW]))), run)


def test_the_same_secret_never_looks_the_same() -> None:
    sealer = Sealer([NEW])
    assert len({sealed(sealer) for _ in range(10)}) == 10
    assert b"secret" not in sealed(sealer)


def test_nothing_is_sealed_without_a_key() -> None:
    assert (Sealer([]).seal(RUN), Sealer([]).open(RUN)) == (None, None)


def test_keys_do_not_show() -> None:
    assert "abab" not in repr(Sealer([NEW]))
