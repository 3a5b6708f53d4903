"""The value of PROXY_STATE: where conversations and responses are kept. Pure."""

from __future__ import annotations

import re
from typing import Literal

import attrs

from brunix_twisted.config import redis_url
from brunix_twisted.config.addresses import AddressError


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
    if scheme in redis_url.SCHEMES and rest.startswith("//"):
        redis_url.parse(text)
        return StateAddress("redis", url=text)
    raise ValueError(text)


def shown(text: str) -> str:
    """Return an address for messages: without passwords."""
    text = re.sub(r"//.*@", "//***@", text)
    return re.sub(r"(password=)[^&]*", r"\1***", text, flags=re.IGNORECASE)
