"""The value of PROXY_STATE: where conversations and responses are kept. Pure."""

from __future__ import annotations

import re
from typing import Final, Literal
from urllib.parse import urlsplit

import attrs

from brunix_twisted.config.addresses import AddressError

REDIS_SCHEMES: Final = frozenset({"redis", "rediss", "redis+sentinel"})


@attrs.frozen
class StateAddress:
    """Where the state is."""

    kind: Literal["auto", "memory", "sqlite", "redis"]
    path: str = ""
    """The database file; only for ``sqlite``."""
    url: str = attrs.field(default="", repr=False)
    """May contain a password; only for ``redis``."""


def read(text: str) -> StateAddress:
    """
    Read an address.

    :raises AddressError: it is malformed; the message says how to write it.
    """
    if text in {"", "auto"}:
        return StateAddress("auto")
    if text in {"memory", "memory:"}:
        return StateAddress("memory")
    scheme, colon, rest = text.partition(":")
    if scheme == "sqlite" and colon:
        if rest.startswith("//"):
            raise AddressError("write it without //, as sqlite:/var/lib/brunix/state.sqlite")
        if not rest or rest.startswith((":", "~")) or rest.endswith("/") or "\0" in rest:
            raise AddressError("write the path of a file, as sqlite:/var/lib/brunix/state.sqlite")
        return StateAddress("sqlite", path=rest)
    if scheme in REDIS_SCHEMES and rest.startswith("//"):
        try:
            parts = urlsplit(text)
            # A sentinel's URL has several hosts, whose ports urlsplit cannot read.
            is_valid = bool(parts.netloc.rpartition("@")[2]) and (scheme == "redis+sentinel" or parts.port != 0)
        except ValueError:
            is_valid = False
        if is_valid:
            return StateAddress("redis", url=text)
        raise AddressError("write it as redis://:password@host:6379/0")
    raise ValueError(text)


def shown(text: str) -> str:
    """Return an address for messages: without passwords."""
    text = re.sub(r"//.*@", "//***@", text)
    return re.sub(r"(password=)[^&]*", r"\1***", text, flags=re.IGNORECASE)
