"""The words of the protocol, which SDK and engine share, as plain values and pure functions.

Forms that both sides must read and write alike belong here: ids, durations, signatures, opcodes,
neutral requests and responses, the capsule, memos, JSON. Code that only one side needs is not here.
"""
