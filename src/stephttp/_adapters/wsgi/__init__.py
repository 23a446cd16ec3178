"""The WSGI twin: requests as environs, handlers in threads."""
