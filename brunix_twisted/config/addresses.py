"""Parsers of addresses: short forms to Twisted endpoint descriptions, and checks of gRPC targets. Pure."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final

_MAX_PORT: Final = 65535
_TARGET_SCHEMES: Final = ("dns", "unix", "unix-abstract", "vsock", "ipv4", "ipv6", "xds", "google-c2p")
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)")


class AddressError(ValueError):
    """An address has an unusable form. The message says what to write instead."""


def authority(host: str, port: int | None = None) -> str:
    """Return a host and port as in a URL: an IPv6 address in brackets, and no colon without a port."""
    bracketed = f"[{host}]" if ":" in host else host
    return bracketed if port is None else f"{bracketed}:{port}"


def endpoint(text: str) -> str:
    """
    Convert a port, a host and port, or the path of a Unix socket to a Twisted endpoint description.

    A port alone becomes loopback only, like the default. Any other text is returned unchanged.

    :raises AddressError: the text has a URL scheme, or a port that is too large.
    """
    if found := _SCHEME.fullmatch(text):
        raise AddressError(f"write it without {found[1]}://, as {found[2].rstrip('/') or 8000}")
    if text.startswith("/"):
        return f"unix:{_escaped(text)}"
    if re.fullmatch("[0-9]+", text):
        return f"tcp:{_port(text)}:interface=127.0.0.1"
    if found := re.fullmatch(r"\[([0-9A-Fa-f:.]+)\]:([0-9]+)", text):
        return f"tcp6:{_port(found[2])}:interface={_escaped(found[1])}"
    if found := re.fullmatch(r"([^:]*):([0-9]+)", text):
        host = {"localhost": "127.0.0.1", "*": "0.0.0.0", "": "0.0.0.0"}.get(found[1].lower(), found[1])  # noqa: S104 - what these mean
        if _is_address(host):
            return f"tcp:{_port(found[2])}:interface={host}"
    return text


def _is_address(host: str) -> bool:
    try:
        return bool(ip_address(host))
    except ValueError:
        return False


def _escaped(text: str) -> str:
    return re.sub(r"[\\:=]", r"\\\g<0>", text)


def _port(text: str) -> int:
    if len(text) > len(str(_MAX_PORT)) or int(text) > _MAX_PORT:
        raise AddressError(f"a port is a number from 0 to {_MAX_PORT}")
    return int(text)


def grpc_target(text: str) -> str:
    """
    Check a gRPC target, and reject forms that look right but that gRPC misinterprets.

    :raises ValueError: the text contains spaces or characters outside ASCII, or is too long.
    :raises AddressError: gRPC would misinterpret it.
    """
    if not re.fullmatch(r"[!-~]{1,1000}", text):
        raise ValueError(text)
    found = _SCHEME.fullmatch(text)
    scheme, rest = ("", text) if found is None else (found[1].lower(), found[2])
    plain = rest.rstrip("/")
    if scheme and scheme not in _TARGET_SCHEMES:
        tls = ", and name the certificates to trust in BRUNIX_GRPC_TLS_CA" if scheme in {"https", "grpcs"} else ""
        raise AddressError(f"write it without {scheme}://, as {plain.partition('/')[0]}{tls}")
    if scheme == "dns" and "/" not in plain:
        # With two slashes, gRPC takes the host for a name server.
        raise AddressError(f"write dns:///{plain}, with three slashes")
    if scheme in {"ipv4", "ipv6"}:
        raise AddressError(f"write {scheme}:{plain.lstrip('/')}, without slashes")
    if text.endswith("/") and not text.startswith("unix"):
        raise AddressError(f"write it without the slash at the end, as {text.rstrip('/')}")
    return text
