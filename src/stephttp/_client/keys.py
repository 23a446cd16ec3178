"""The signing keys that the server may accept, and the extras that it announced."""

from __future__ import annotations

from weakref import WeakValueDictionary

from stephttp._wire.signatures import hash_key


class _Bearers(list[str]):
    """Keys in the order in which they are tried. Unlike a list, it can be weakly referenced."""


_shared: WeakValueDictionary[tuple[str, ...], _Bearers] = WeakValueDictionary()


class Keys:
    """What a process knows of its server: which signing keys it accepts, and its extras.

    The key that worked last stays in use until a 401. Every answer announces the extras.
    """

    @classmethod
    def shared(cls, primary: str = "", fallback: str = "") -> Keys:
        """Return keys that share their order with all others of this process that are the same."""
        keys = cls(primary, fallback)
        name = tuple(hash_key(key) if key else "" for key in (primary, fallback))
        keys._bearers = _shared.setdefault(name, keys._bearers)
        return keys

    def __init__(self, primary: str = "", fallback: str = "") -> None:
        self.features: frozenset[str] | None = None
        """The extras that the server announced (docs/design.md 3.8); `None` before it answers."""
        self.warned = False
        """True if a warning was logged that the server lacks what is configured."""
        self._bearers = _Bearers(hash_key(key) for key in (primary, fallback) if key)

    def __repr__(self) -> str:
        return f"<Keys: {len(self._bearers)}>"

    @property
    def bearer(self) -> str | None:
        """The key as it follows `Bearer`; `None` without one."""
        return self._bearers[0] if self._bearers else None

    def supports(self, feature: str) -> bool:
        """Return whether the server is known to have an extra."""
        return self.features is not None and feature in self.features

    def learn(self, features: frozenset[str]) -> None:
        """Note the extras that the server announced."""
        self.features = features

    def reject(self, bearer: str | None) -> bool:
        """Note that `bearer` was refused; return whether another one is worth trying."""
        if bearer == self.bearer:
            self._bearers.reverse()
        return self.bearer != bearer
