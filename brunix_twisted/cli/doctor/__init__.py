"""
``brunix doctor``: checks everything between a client and the engine.

Each topic is a module with two kinds of functions: ``measure_*`` uses the network and returns values, ``check_*`` turns
these values into findings and is pure. ``run`` has the order of the checks.
"""
