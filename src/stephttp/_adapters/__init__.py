"""What is special to ASGI and to WSGI: two twins, with the same file names.

Here belongs what touches a scope, an environ, a loop or a thread of the server. What both twins do
is in `_run`.
"""
