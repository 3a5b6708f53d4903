"""Whether the engine listens at the port that its compose file publishes, while the gateway tries the container's."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from ipaddress import ip_address

from brunix_twisted.cli.sockets import connect_any, resolve
from brunix_twisted.connect.engine_port import CONTAINER_PORT, PUBLISHED_PORT, published_target


def measure_published(
    gateway_host: str,
    environment: Mapping[str, str],
    timeout_s: float,
    ports: tuple[int, int] = (CONTAINER_PORT, PUBLISHED_PORT),
) -> str | None:
    """
    Return the target at which the engine can be reached, if the gateway's own target refuses connections.

    Both are tried only for a gateway on this machine, with the target in this environment or the default one.

    :param ports: inside the container, and published.
    """
    target = environment.get("BRUNIX_GRPC_TARGET") or f"localhost:{CONTAINER_PORT}"
    published = published_target(target, *ports)
    if published is None or not _is_here(gateway_host):
        return None
    host = published.rpartition(":")[0].rpartition("/")[2].strip("[]")
    container_accepts, published_accepts = (_accepts(host, port, timeout_s / 2) for port in ports)
    return published if published_accepts and not container_accepts else None


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _accepts(host: str, port: int, timeout_s: float) -> bool:
    try:
        with closing(connect_any(resolve(host, port, timeout_s), time.monotonic() + timeout_s)):
            return True
    except OSError:
        return False
