"""Tools for plain `def` handlers: `from stephttp.sync import step, stream`.

Those of `step` block, and end a handler that must wait with `stephttp.Suspended`.
"""

from stephttp._client.api_client import SyncAPIClient as APIClient
from stephttp.sync import step, stream

__all__ = ["APIClient", "step", "stream"]
