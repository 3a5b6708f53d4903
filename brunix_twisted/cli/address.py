"""Parse a gateway's address leniently, and report what was corrected. Pure."""

from __future__ import annotations

import re
from base64 import b64encode
from typing import Final
from urllib.parse import unquote, urlsplit

import attrs

DEFAULT: Final = "http://127.0.0.1:8000"
"""Where a gateway listens by default."""

_PORTS: Final = {"http": 80, "https": 443}
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/+")
_HOST: Final = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_.])?|[0-9a-f:.]+(%[A-Za-z0-9_.-]+)?")

# API paths that users often copy along with the base URL.
_PATHS: Final = re.compile(
    r"(?P<api>/v1(/(chat/completions|completions|models|responses|messages))?"
    r"|/api(/(chat|generate|tags|show|ps|version))?"
    r"|/health(/(live|sessions))?|/openapi\.json)\Z"
)
_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not listened on


class AddressError(ValueError):
    """The text is not a gateway address. The message has one line."""


@attrs.frozen
class GatewayAddress:
    """The base URL of a gateway."""

    scheme: str
    host: str
    """Without brackets."""
    port: int
    prefix: str = ""
    """The path under which a proxy serves the gateway, without a trailing slash: ``/brunix``."""
    authorization: str | None = attrs.field(default=None, repr=False)
    """The header made from a user and password in the address."""

    @property
    def secure(self) -> bool:
        """Whether the address uses TLS."""
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """The host, with the port unless it is the scheme's default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def root(self) -> str:
        """The normalised address, without a trailing slash."""
        return f"{self.scheme}://{self.authority}{self.prefix}"

    def __str__(self) -> str:
        """Return the normalised address, without the password."""
        return self.root


def redacted(text: str) -> str:
    """Remove the user and the password from an address as it was entered."""
    return re.sub(r"\A(\s*(?:[A-Za-z][A-Za-z0-9+.-]*:/+|/*))[^/?#]*@", r"\1…@", text)


def parse(text: str) -> tuple[GatewayAddress, tuple[str, ...]]:
    """
    Parse an address, and return it with a sentence for each correction.

    :raises AddressError: the text cannot be corrected.
    """
    given, corrections = text.strip(), []
    found = _SCHEME.match(given)
    if found is None:
        scheme = "https" if re.search(r":443(/|\Z)", given) else "http"
        corrections.append(f"The scheme was missing; {scheme}:// is assumed.")
        rest = given.lstrip("/")
    else:
        scheme, rest = found[1].lower(), given[found.end() :]
    if scheme not in _PORTS:
        raise AddressError(f"{redacted(text)!r} is not a gateway address: it must start with http:// or https://")
    try:
        parts = urlsplit(f"{scheme}://{rest}")
        host, port = (parts.hostname or "").rstrip("."), parts.port
        host = host if host.isascii() else host.encode("idna").decode("ascii")
    except ValueError as error:
        raise AddressError(f"{redacted(text)!r} is not a gateway address: {error}") from None
    if not _HOST.fullmatch(host) or port == 0:
        raise AddressError(f"{redacted(text)!r} is not a gateway address. Examples: {DEFAULT}, https://brunix.example")
    if loopback := _WILDCARDS.get(host):
        corrections.append(f"{host} means every interface and is only for servers; {loopback} is used.")
        host = loopback
    if parts.query or parts.fragment:
        corrections.append("The query and the fragment were removed.")
    prefix, api_path = _prefix(parts.path)
    if api_path:
        corrections.append(f"{api_path} was removed: it is part of an API's paths, and clients add it themselves.")
    if not re.fullmatch(r"(/[A-Za-z0-9_.~%!$&'()*+,;=:@-]+)*", prefix):
        raise AddressError(f"{redacted(text)!r} is not a gateway address: its path contains invalid characters")
    authorization = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {b64encode(pair.encode()).decode('ascii')}"
    return GatewayAddress(scheme, host, port or _PORTS[scheme], prefix, authorization), tuple(corrections)


def _prefix(path: str) -> tuple[str, str]:
    """Split a path into the prefix and the part that belongs to an API."""
    path = re.sub(r"/+", "/", path).rstrip("/")
    found = _PATHS.search(path)
    return (path, "") if found is None else (path[: found.start()], found["api"])
