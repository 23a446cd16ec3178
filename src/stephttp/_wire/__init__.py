"""What SDK and engine share: the words of the protocol, as plain values and pure functions.

Here belongs what both sides must read and write alike: ids, durations, signatures, opcodes, neutral
requests and responses, the capsule, memos, JSON. Code that only one side needs is not here.
"""
