"""The engine behind `Executor(backend="auto")`: each call takes the route that suits its function.

Guarantees: no call runs twice to be measured; changing the route loses no call.
May import: `_backends` and below; neither `_run` nor `_adaptive` imports the other.
"""
