"""HTTP that API and dashboard share: reading requests, writing responses, exceptions, the guard
around both, and streams of server-sent events.

Requests and answers of single routes are in `api` and `dashboard`; `Engine` carries them out.
"""
