"""
Choose where `brunix run` lets its engine listen, and its gateway connect to.

Setting one of ``BRUNIX_ENGINE_LISTEN`` and ``BRUNIX_GRPC_TARGET`` changes both. Without them, use port 50051, or a free
port if that is in use.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

from brunix_twisted.embedded.ports import bindable

DEFAULT_PORT: Final = 50051
# The target for an engine that listens on all addresses.
_WILDCARD_HOSTS: Final = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - compared with, not listened on
_LOCAL_TARGET: Final = re.compile(r"(?:dns:(?:///)?|ipv4:|ipv6:)?((?:localhost|127\.[0-9.]+|\[::1\]):[0-9]+)")


def free_port(host: str, wanted: int) -> int:
    """
    Return the wanted port if it is free on all addresses of a host, or else another free port. 0 means any.

    :raises OSError: the host has no address on this machine.
    """
    try:
        port, _ = bindable(host, wanted)
    except OSError:
        port, _ = bindable(host, 0)
    return port


def meet(environment: Mapping[str, str], free: Callable[[str, int], int] = free_port) -> tuple[str, str]:
    """
    Return where the engine listens and where the gateway connects to.

    :param free: returns a free port of a host; see :func:`free_port`.
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
    local = f"localhost:{free('localhost', DEFAULT_PORT)}"
    # A target on another machine remains the gateway's; the local engine only needs a port that is free.
    return local, target or local
