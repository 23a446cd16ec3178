"""Conditions of waits and cancellations in CEL, evaluated as an Inngest server does.

`expressions` is the entrance: it makes a tree of a text (`syntax`), and a function of that
(`evaluation`), which computes values as `operators` and `functions` say. `equalities` finds the
part of a condition by which its wait can be looked up.
"""
