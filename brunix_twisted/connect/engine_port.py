"""The engine's two ports: the one inside its container, and the one that its compose file publishes. Pure."""

from __future__ import annotations

from typing import Final

CONTAINER_PORT: Final = 50051
PUBLISHED_PORT: Final = 50052


def published_target(
    target: str, container_port: int = CONTAINER_PORT, published_port: int = PUBLISHED_PORT
) -> str | None:
    """
    Return the address at which the compose file publishes the engine of a gRPC target.

    None if the target is not a single address with the port that the engine has inside its container.
    """
    host, _, port = target.rpartition(":")
    if port != str(container_port) or not host or "," in host or host.startswith("unix"):
        return None
    return f"{host}:{published_port}"


def advice(published: str) -> str:
    """Say that an engine answers at the published address."""
    return (
        f"Something answers at {published}: the engine's compose file publishes this port, not the one inside the "
        f"container. Set BRUNIX_GRPC_TARGET={published}"
    )
