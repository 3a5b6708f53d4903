"""Find a port that is free on all addresses of a host."""

import errno
import os
import socket
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Final

_ATTEMPTS: Final = 16


def bindable(host: str, port: int) -> tuple[int, list[str]]:
    """Return a port and all addresses of a host that can be bound to it, IPv4 first. Port 0 means any free port.

    Raises OSError if the host has no address on this machine, or if the port is in use on one of its addresses.
    """
    try:
        resolved = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise OSError(errno.EADDRNOTAVAIL, "the host has no address") from error
    unique = {(family, str(address[0])) for family, _, _, _, address in resolved}
    addresses = sorted(unique, key=lambda each: (each[0] != socket.AF_INET, each[1]))
    # The free port that the system chooses on one address may be in use on another.
    for _ in range(_ATTEMPTS - 1 if port == 0 else 0):
        try:
            return _bind(addresses, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    return _bind(addresses, port)


def _bind(addresses: Iterable[tuple[socket.AddressFamily, str]], port: int) -> tuple[int, list[str]]:
    """Bind all addresses to one port, and release them."""
    bound: list[str] = []
    with ExitStack() as sockets:
        for family, address in addresses:
            try:
                trial = sockets.enter_context(socket.socket(family, socket.SOCK_STREAM))
                # Without it, a restart would fail until the old connections have timed out.
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind((address, port))
            except OSError as error:
                # A machine without IPv6 still resolves names to IPv6 addresses.
                if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                    raise
                continue
            port = int(trial.getsockname()[1])
            bound.append(address)
    if not bound:
        raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    return port, bound
