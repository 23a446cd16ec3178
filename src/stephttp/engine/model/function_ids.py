"""The ids (UUIDs) of apps and functions."""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha1
from uuid import NAMESPACE_OID, UUID

from stephttp.engine.model import tokens

_ENVIRONMENT = UUID(tokens.ENVIRONMENT_ID)


@lru_cache(maxsize=1024)
def ids(domain: str, slug: str) -> tuple[str, str]:
    """Return app id and function id, by the real server's algorithm (docs/protocol.md 1.3)."""
    app_id = _uuid5(_ENVIRONMENT.bytes + domain.encode())
    return str(app_id), str(_uuid5(app_id.bytes + slug.encode()))


def app_id(name: str) -> str:
    """Return the id of an app that registers its functions."""
    return str(_uuid5(name.encode()))


def function_id(app: str, slug: str) -> str:
    """Return the id of a registered function. It stays when name and address of that change.

    Args:
        app: id of its app.
    """
    return str(_uuid5(UUID(app).bytes + slug.encode()))


def _uuid5(name: bytes) -> UUID:
    # `uuid.uuid5` takes text only; these names begin with the bytes of another UUID.
    digest = sha1(NAMESPACE_OID.bytes + name, usedforsecurity=False).digest()
    return UUID(bytes=digest[:16], version=5)
