"""Where a gateway is, from what somebody wrote: forgiving, and saying what it has forgiven. Pure."""

from __future__ import annotations

import re
from base64 import b64encode
from typing import Final
from urllib.parse import unquote, urlsplit

import attrs

DEFAULT: Final = "http://127.0.0.1:8000"
"""Where a gateway listens that nobody has told otherwise."""

_PORTS: Final = {"http": 80, "https": 443}
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/+")
_HOST: Final = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_.])?|[0-9a-f:.]+(%[A-Za-z0-9_.-]+)?")

# What the two APIs' own paths begin with, and what a client's field for a base URL is often filled with.
_PATHS: Final = re.compile(
    r"(?P<taken>/v1(/(chat/completions|completions|models|responses|messages))?"
    r"|/api(/(chat|generate|tags|show|ps|version))?"
    r"|/health(/live)?|/openapi\.json)\Z"
)
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what to look for, nothing to listen on


class AddressError(ValueError):
    """What was written is no address of a gateway. The text is one line: what it was, and what would be one."""


@attrs.frozen
class GatewayAddress:
    """A gateway's root, as a client finds it."""

    scheme: str
    host: str
    """Without brackets."""
    port: int
    prefix: str = ""
    """The path that a proxy serves the gateway under, without a slash at its end: ``/brunix``."""
    authorization: str | None = attrs.field(default=None, repr=False)
    """The header that a user and a password in the address stand for."""

    @property
    def secure(self) -> bool:
        """Whether TLS is spoken."""
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """The host, and the port where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def root(self) -> str:
        """The address in its one spelling, without a slash at its end."""
        return f"{self.scheme}://{self.authority}{self.prefix}"

    def __str__(self) -> str:
        """For a person."""
        return self.root


def shown(text: str) -> str:
    """Give what somebody wrote for an address without the password that may stand in it."""
    return re.sub(r"\A(\s*(?:[A-Za-z][A-Za-z0-9+.-]*:/+|/*))[^/?#]*@", r"\1…@", text)


def read(text: str) -> tuple[GatewayAddress, tuple[str, ...]]:
    """
    Read an address, and in whole sentences what had to be put right to read it.

    :raises AddressError: it cannot be put right.
    """
    given, corrections = text.strip(), []
    found = _SCHEME.match(given)
    if found is None:
        scheme = "https" if re.search(r":443(/|\Z)", given) else "http"
        corrections.append(f"It had no scheme; {scheme}:// is taken.")
        rest = given.lstrip("/")
    else:
        scheme, rest = found[1].lower(), given[found.end() :]
    if scheme not in _PORTS:
        raise AddressError(f"{shown(text)!r} is no address of a gateway: it begins with http:// or https://")
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        host, port = (parts.hostname or "").rstrip("."), parts.port
        host = host if host.isascii() else host.encode("idna").decode("ascii")
    except ValueError as error:
        raise AddressError(f"{shown(text)!r} is no address of a gateway: {error}") from None
    if not _HOST.fullmatch(host) or port == 0:
        raise AddressError(f"{shown(text)!r} is no address of a gateway; one is {DEFAULT} or https://brunix.example")
    if everywhere := _EVERYWHERE.get(host):
        corrections.append(f"{host} is where a server listens, on every interface; {everywhere} is asked.")
        host = everywhere
    if parts.query or parts.fragment:
        corrections.append("What stood behind the path was left out.")
    prefix, taken = _prefix(parts.path)
    if taken:
        corrections.append(f"{taken} was left out: it belongs to the paths of an API, and is added where it is needed.")
    if not re.fullmatch(r"(/[A-Za-z0-9_.~%!$&'()*+,;=:@-]+)*", prefix):
        raise AddressError(f"{shown(text)!r} is no address of a gateway: its path has characters that no path has")
    authorization = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {b64encode(pair.encode()).decode('ascii')}"
    return GatewayAddress(scheme, host, port or _PORTS[scheme], prefix, authorization), tuple(corrections)


def _prefix(path: str) -> tuple[str, str]:
    """Cut what belongs to an API off a path, and give both."""
    path = re.sub(r"/+", "/", path).rstrip("/")
    found = _PATHS.search(path)
    return (path, "") if found is None else (path[: found.start()], found["taken"])
