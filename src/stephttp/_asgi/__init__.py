"""The parts of the ASGI adapter; `stephttp.asgi` holds what is public."""
