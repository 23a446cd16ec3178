"""The life of a request: first call, re-entries, result; neutral to ASGI and WSGI.

Here belongs what a run of the SDK does and shares. The rules of a run's state are in `_core`, the
requests of the checkpoint API in `_client`, and what is special to a kind of server in `_adapters`.
"""
