"""What a user does, in each framework, on our engine and on the double of an Inngest server.

A cell is a small handler in one framework that waits before it does its work, or does not. It runs
on our engine, on the double at the server's own address, and on the double with two processes of
the application and results on its own origin. What the caller gets, how often each step ran and how
the run's record ends has to be the same, or stands in `differences` with the reason.

    cells        the table of handlers, what they answer, and how often their steps run
    programs     the handlers
    uses         what they use: how each framework takes requests, and makes answers
    frameworks   applications with all of them
    sides        runs a cell on the engine, or on the double
    differences  what differs there, and why
"""
