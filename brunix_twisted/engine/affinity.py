"""
Engine affinity: with several engines, all calls of a session go to the same engine while it is reachable. Pure.

Engines keep their sessions in memory. gRPC's ring hash policy (gRFC A42 and A76) places the engines' addresses and the
session ids on a ring. Every gateway that knows the same addresses selects the same engine for a session, in whatever
order it knows them. If an engine is unreachable, only its sessions move, and they return when it is reachable again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

VARIABLE: Final = "GRPC_EXPERIMENTAL_RING_HASH_SET_REQUEST_HASH_KEY"
"""
Allows ring hash to use the metadata of a call. Without it, every call with ring hash fails with INTERNAL.

gRPC reads it whenever a channel is created, so it also takes effect if grpc was imported before it was set.
"""

METADATA_KEY: Final = "x-session-id"
"""The metadata key of the session id. A call without it goes to any reachable engine."""

# These targets mean several engines. A plain host and port means one engine, whose name may have an address where
# nothing listens, as localhost often does. gRPC then uses the first address that accepts the connection.
_SEVERAL_ENGINES: Final = ("dns:", "ipv4:", "ipv6:")

# What gRPC reads as true, in either case.
_TRUE: Final = frozenset({"1", "t", "true", "y", "yes"})

# Close to gRPC's maximum of 4096. With its default of 1024 points, one of ten engines may get 28 % more sessions than
# the average; with these, 17 %. The points cost 64 KiB, and no measurable time. Below the maximum, gRPC rounds up so
# that each address gets equally many; at the maximum, the order of the addresses decides which gets one more, and
# gateways with another order disagree on some sessions.
_POINTS: Final = 4000


def keeps_sessions(target: str, environment: Mapping[str, str]) -> bool:
    """Whether a target is several engines, and gRPC can select one by the session."""
    return target.startswith(_SEVERAL_ENGINES) and environment.get(VARIABLE, "").lower() in _TRUE


def why_not(target: str, environment: Mapping[str, str]) -> str | None:
    """Return why the calls of a session go to different engines, and the fix; None if they go to one engine."""
    if not target.startswith(_SEVERAL_ENGINES) or keeps_sessions(target, environment):
        return None
    return (
        f"The calls of a session go to different engines, because {VARIABLE} is {environment.get(VARIABLE)!r}. "
        "Unset it, unless the engines share their sessions."
    )


def balancing_options(target: str, *, by_session: bool) -> tuple[tuple[str, str], ...]:
    """
    Return the channel options that distribute the calls to several engines; none for one engine.

    :param by_session: False calls the engines in turn.
    """
    if not target.startswith(_SEVERAL_ENGINES):
        return ()
    policy: dict[str, dict[str, object]] = {"round_robin": {}}
    if by_session:
        policy = {"ring_hash_experimental": {"requestHashHeader": METADATA_KEY, "minRingSize": _POINTS}}
    return (("grpc.service_config", json.dumps({"loadBalancingConfig": [policy]})),)
