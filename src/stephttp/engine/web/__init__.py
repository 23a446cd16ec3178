"""What API and dashboard share of HTTP: reading requests, writing responses, what exceptions
become, the guard around both, and streams of server-sent events.

What single routes take and answer is in `api` and `dashboard`; what they do, in `engine.Engine`.
"""
