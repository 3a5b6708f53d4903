"""
The command line for users of a gateway: ``brunix ask``, ``chat``, ``connect``, ``mcp`` and ``doctor``.

A separate program that reaches the gateway only over HTTP. It needs the standard library, attrs and h11, so it starts
fast and runs on every client's machine.
"""
