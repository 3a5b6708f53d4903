"""The allowed values of a request's Host header, against DNS rebinding. Pure."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address

import attrs

_NAME = re.compile(r"\*|[a-z0-9_]([a-z0-9_.-]{0,253}[a-z0-9_])?")
_LOCAL_SUFFIXES = (".localhost", ".local", ".internal")


@attrs.frozen
class Hosts:
    """
    The hosts that are allowed in a request's Host header.

    Loopback and private addresses are always allowed, and so are names that only this machine or this network resolves.
    A public address or name must be in ``names``.
    """

    names: frozenset[str]
    """Additional hosts, in lower case, without a port; ``*`` is any host."""

    def allow(self, host: str) -> bool:
        """Return whether a host, given without a port, is allowed."""
        host = host.lower().rstrip(".").strip("[]")
        return _is_local(host) or host in self.names or "*" in self.names


def read(text: str) -> frozenset[str]:
    """
    Parse names or addresses separated by commas, without ports.

    :raises ValueError: a part is neither a name nor an address.
    """
    names = frozenset(name.strip().lower().strip("[]") for name in text.split(",") if name.strip())
    for name in names:
        if not _NAME.fullmatch(name):
            ip_address(name)
    return names


@lru_cache(maxsize=64)
def _is_local(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(_LOCAL_SUFFIXES)
    return address.is_loopback or address.is_private or address.is_unspecified
