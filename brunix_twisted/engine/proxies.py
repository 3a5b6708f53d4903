"""
The HTTP proxy that gRPC uses for a target, by gRPC's rules. Pure.

gRPC reads ``grpc_proxy``, ``https_proxy`` and ``http_proxy``, in lower case only, and the exceptions in
``no_grpc_proxy`` or ``no_proxy``. It would use the proxy for loopback addresses too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

import attrs

_WITHOUT_HOST: Final = ("unix:", "unix-abstract:", "vsock:")


@attrs.frozen
class Proxy:
    """A proxy, and the environment variable that names it."""

    variable: str
    address: str
    """Host and port, without a password."""

    def __str__(self) -> str:
        """Format the proxy for a message."""
        return f"http://{self.address} (from {self.variable})"


def _hosts(target: str) -> list[str]:
    """Return the hosts of a gRPC target, without ports and brackets; an empty list for a Unix socket."""
    if target.startswith(_WITHOUT_HOST):
        return []
    addresses = re.sub(r"\A(dns:(//[^/]*/)?|ipv[46]:)", "", target).split(",")
    return [_without_port(address) for address in addresses]


def _without_port(address: str) -> str:
    found = re.fullmatch(r"\[(.*)\](:[0-9]*)?|([^:]*):[0-9]*", address)
    return address if found is None else found[1] or found[3] or ""


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def goes_direct(target: str) -> bool:
    """
    Whether no proxy must be used, regardless of the environment.

    True for loopback addresses and Unix sockets, and for a list of addresses: gRPC would send the whole list to the
    proxy in one request, which no proxy understands.
    """
    hosts = _hosts(target)
    return len(hosts) != 1 or _is_loopback(hosts[0])


def proxy_for(target: str, environment: Mapping[str, str]) -> Proxy | None:
    """Return the proxy that gRPC uses for a target; None if it uses none."""
    if goes_direct(target):
        return None
    variable = next((name for name in ("grpc_proxy", "https_proxy", "http_proxy") if name in environment), None)
    if variable is None:
        return None
    parts = urlsplit(environment[variable])
    address = parts.netloc.rpartition("@")[2]
    if parts.scheme != "http" or not address:
        return None
    exceptions = environment.get("no_grpc_proxy", environment.get("no_proxy", ""))
    (host,) = _hosts(target)
    if any(_excepts(text.strip(), host) for text in exceptions.split(",") if text):
        return None
    return Proxy(variable, address)


def _excepts(exception: str, host: str) -> bool:
    if host.lower().endswith(exception.lower()):
        return True
    try:
        return "/" in exception and ip_address(host) in ip_network(exception, strict=False)
    except ValueError:
        return False
