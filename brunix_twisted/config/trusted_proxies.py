"""The proxies whose ``X-Forwarded-For`` and ``X-Forwarded-User`` are believed; pure."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import attrs

_UNIX = "unix"
_LOOPBACK = "loopback"


def read(text: str) -> TrustedProxies:
    """
    Read a list of addresses and networks, separated by commas; ``unix`` is every peer on a UNIX socket.

    :raises ValueError: one of them is not an address or a network.
    """
    names = {name for name in map(str.strip, text.split(",")) if name}
    return TrustedProxies(tuple(ip_network(name) for name in sorted(names - {_UNIX})), unix=_UNIX in names)


@attrs.frozen
class TrustedProxies:
    """The proxies that may say who their client is."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    unix: bool = False

    def __bool__(self) -> bool:
        """Return whether there is any."""
        return bool(self.networks) or self.unix

    def trusts(self, host: str | None) -> bool:
        """
        Return whether a peer is a trusted proxy.

        :param host: its IP address; None on a UNIX socket.
        """
        if host is None:
            return self.unix
        address = _address(host)
        return address is not None and any(address in network for network in self.networks)

    def client_of(self, host: str | None, forwarded_for: Iterable[str]) -> str:
        """
        Return the client's address, in one spelling; ``unix`` on a UNIX socket.

        A proxy appends the address of its peer to ``X-Forwarded-For``. So the client is the last address in it that
        is not a trusted proxy's; what comes before it is the client's own claim.

        :param host: the peer's IP address; None on a UNIX socket.
        :param forwarded_for: the values of ``X-Forwarded-For``, in order. Empty unless the peer is trusted.
        """
        hops = [hop for value in forwarded_for for hop in map(str.strip, value.split(",")) if hop]
        while hops and self.trusts(host):
            host = hops.pop()
        address = None if host is None else _address(host)
        if address is None:
            # A UNIX socket, or a name that the proxy made up, such as "unknown" (RFC 7239, 6.2).
            return host or _UNIX
        return str(address)


def without_loopback(client: str) -> str:
    """Return the address of a client, or ``loopback`` for all of this machine's own."""
    address = _address(client)
    return client if address is None or not address.is_loopback else _LOOPBACK


@lru_cache(1024)
def _address(host: str) -> IPv4Address | IPv6Address | None:
    host = host.strip()
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        # Some proxies append the port.
        host = host.partition(":")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
