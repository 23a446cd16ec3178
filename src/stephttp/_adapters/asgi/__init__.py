"""The ASGI twin: requests as scopes and messages, handlers on an event loop."""
