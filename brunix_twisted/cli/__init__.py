"""
The command line of those who ask: ``brunix ask``, ``chat``, ``connect`` and ``doctor``.

It stands on the client's side of HTTP. Nothing here knows how the gateway works inside, and nothing here needs more
than the standard library and attrs: ``brunix --help`` is there at once, and on every system that a client runs on.
"""
