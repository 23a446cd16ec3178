"""The checkpoint API: its calls and answers, and how they travel.

Flows say what is sent (`flow`, `api_calls`, `batch_calls`), drivers and the transport
send it, the outbox and the leases do so in the background. Nothing here knows of handlers or of the
life of a run: that is `_run`.
"""
