"""The SDK's half of the protocol as pure functions and a state machine.

What is here does no I/O, and has no clock, no randomness and no threads: times and ids are
arguments. It imports the pure standard library, `msgspec`, `_wire` and `errors`. What the engine
reads or writes as well belongs in `_wire`; what talks to the server, in `_client`; what belongs to
one call of a handler, in `_run`.
"""
