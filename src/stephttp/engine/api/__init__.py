"""The HTTP API. `sdk` has the handlers of what SDKs speak, `manage` those of what people and the
command line speak, each with the requests and answers that they read and write. `operations` is the
table of routes, of which `openapi` makes the document.

`engine.Engine` carries requests out; `web` has the parts of HTTP that all handlers share.
"""

from stephttp.engine.api.operations import OPERATIONS, ROUTES

__all__ = ["OPERATIONS", "ROUTES"]
