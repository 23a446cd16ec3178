"""Conditions of waits and cancellations in CEL, evaluated as an Inngest server does.

`expressions` is the entrance. It goes: text, tree (`syntax`), function (`evaluation`, over the rules for
values in `operators` and `functions`). `equalities` finds the part by which waits can be looked up.
"""
