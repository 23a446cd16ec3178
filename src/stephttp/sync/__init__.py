"""Step tools for plain `def` handlers: `from stephttp.sync import step`.

They block, and end a handler that must wait with `stephttp.Suspended`.
"""

from stephttp._client.api_client import SyncAPIClient as APIClient
from stephttp.sync import step

__all__ = ["APIClient", "step"]
