"""
``brunix doctor``: walks from a client to the engine, and says what it finds on the way.

Each concern is a module with two kinds of functions: those that measure, and give values, and those named ``judge_…``,
which make findings of the values and touch nothing else. ``visit`` has the order and the limits.
"""
