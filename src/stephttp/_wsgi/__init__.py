"""The parts of the WSGI adapter; `stephttp.wsgi` holds what is public."""
