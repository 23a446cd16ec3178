"""The parts that are special to ASGI and to WSGI: two twins, with the same file names.

Code that touches a scope, an environ, a loop or a thread of the server belongs here; code that
both twins need is in `_run`.
"""
