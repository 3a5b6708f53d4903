"""By which names the gateway may be called: a request's Host against DNS rebinding. Pure."""

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
    The names that may stand in a request's Host.

    Always among them are loopback and private addresses, and names that only a resolver of this machine or this network
    gives an address to. A public address has to be named, as a public name has.
    """

    names: frozenset[str]
    """Further ones, in lower case, without a port; ``*`` is every name."""

    def allow(self, host: str) -> bool:
        """Whether the gateway may be called by this host, which has no port with it."""
        host = host.lower().rstrip(".").strip("[]")
        return _is_local(host) or host in self.names or "*" in self.names


def read(text: str) -> frozenset[str]:
    """
    Names or addresses separated by commas, without ports.

    :raises ValueError: one of them is neither.
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
