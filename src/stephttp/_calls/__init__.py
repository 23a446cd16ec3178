"""Calls of the handler, neutral to ASGI and WSGI: from outside, and by the server."""
