"""
Where `brunix run` lets its engine listen, and its gateway connect to it.

Either of ``BRUNIX_ENGINE_LISTEN`` and ``BRUNIX_GRPC_TARGET`` is enough to move both. Without them it is port 50051, or
a free one if that is taken.
"""

import errno
import re
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Final

DEFAULT_PORT: Final = 50051
_WILDCARD_HOSTS: Final = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - what to look for, nothing to listen on
_LOCAL_TARGET: Final = re.compile(r"(?:dns:(?:///)?|ipv4:|ipv6:)?((?:localhost|127\.[0-9.]+|\[::1\]):[0-9]+)")


def free_port(host: str, wanted: int) -> int:
    """
    Give a port that is free on all addresses of a host: the wanted one, or another; 0: any.

    :raises OSError: the host has no address.
    """
    for _ in range(16):
        try:
            return _bound(host, wanted)
        except OSError:
            wanted = 0
    return _bound(host, 0)


def _bound(host: str, port: int) -> int:
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    with ExitStack() as trials:
        for family, _, _, _, address in sorted(found, key=lambda each: each[0] != socket.AF_INET):
            try:
                trial = trials.enter_context(socket.socket(family, socket.SOCK_STREAM))
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind((address[0], port))
            except OSError as error:
                # A machine without IPv6 still resolves a name to it.
                if error.errno not in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}:
                    raise
                continue
            port = trial.getsockname()[1]
    return port


def meet(environment: Mapping[str, str], free: Callable[[str, int], int] = free_port) -> tuple[str, str]:
    """
    Choose where the engine listens and where the gateway looks for it.

    :param free: gives a port of a host: the wanted one if it is free, otherwise another; 0: any.
    """
    listen = environment.get("BRUNIX_ENGINE_LISTEN", "").strip()
    target = environment.get("BRUNIX_GRPC_TARGET", "").strip()
    if listen.isdecimal():
        listen = f"localhost:{listen}"
    if listen and target:
        return listen, target
    if listen:
        host, _, port = listen.rpartition(":")
        if port == "0":
            listen = f"{host}:{free(host, 0)}"
        _, _, port = listen.rpartition(":")
        return listen, f"{_WILDCARD_HOSTS.get(host, host)}:{port}"
    if found := _LOCAL_TARGET.fullmatch(target):
        return found[1], target
    here = f"localhost:{free('localhost', DEFAULT_PORT)}"
    # An engine that is elsewhere stays the gateway's; the one here must only not fail.
    return here, target or here
