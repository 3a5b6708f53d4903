"""Ports that stay free when nobody listens on them any more."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from itertools import count
from typing import Final

# Below those that the system gives to whoever wants any, each of which may be taken again a moment after it was free.
_PORTS: Final = range(20_000, 32_000)
_ports: Final = count(random.randrange(len(_PORTS)))  # noqa: S311 - so that the tests of two workers seldom meet


def free_port() -> int:
    """Find a port that nobody listens on now, another one each time."""
    while True:
        port = _PORTS[next(_ports) % len(_PORTS)]
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
