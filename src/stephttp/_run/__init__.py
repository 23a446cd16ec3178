"""The life of a request: first call, re-entries, result; neutral to ASGI and WSGI.

The life of a run, and all that runs share, belongs here. The rules of a run's state are in `_core`,
the requests of the checkpoint API in `_client`, and what is special to a kind of server in
`_adapters`.
"""
