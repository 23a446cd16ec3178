"""The SDK's half of the protocol as pure functions and a state machine.

It does no I/O, and has no clock, no randomness and no threads: times and ids are
arguments. It imports the pure standard library, `msgspec`, `_wire` and `errors`.

Forms that the engine reads or writes as well belong in `_wire`, talk with the server in `_client`,
and the life of a request in `_run`.
"""
