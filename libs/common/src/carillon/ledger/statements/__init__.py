"""The SQL of the hot path. Each statement is a whole transaction: there is no moment between its parts.

The statements name live runs by the partition `runs_live` and find them by `id = any(...)`: a plan that begins anywhere
else is fast until the statistics say otherwise.
"""
