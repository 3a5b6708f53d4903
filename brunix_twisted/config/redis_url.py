"""URLs of Redis and Valkey, as PROXY_STATE contains them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

import attrs

from brunix_twisted.config.addresses import AddressError, authority

SCHEMES: Final = ("redis", "rediss", "redis+sentinel", "rediss+sentinel")
_REDIS_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379
_MAX_PORT: Final = 65535
_PREFIX: Final = "brunix"


@attrs.frozen(kw_only=True)
class RedisAddress:
    """Where a server is, and how to log in."""

    hosts: tuple[tuple[str, int], ...]
    """The server, or the Sentinels."""
    service: str = ""
    """The name by which the Sentinels know the servers; empty without Sentinel."""
    tls: bool = False
    username: str = ""
    password: str = attrs.field(default="", repr=False)
    database: int = 0
    prefix: str = _PREFIX
    """What the name of every key begins with."""
    ca: str = ""
    """File of the certificates to trust; empty for the system's."""
    cert: str = ""
    """File of the certificate to present, and of its key unless ``key`` names another; empty for none."""
    key: str = ""
    sentinel_username: str = ""
    sentinel_password: str = attrs.field(default="", repr=False)

    def __str__(self) -> str:
        """Return the address for messages: without user names and passwords."""
        hosts = ",".join(authority(host, port) for host, port in self.hosts)
        scheme = ("rediss" if self.tls else "redis") + ("+sentinel" if self.service else "")
        service = f"/{self.service}" if self.service else ""
        return f"{scheme}://{hosts}{service}/{self.database}"


_PARAMETERS: Final = ("prefix", "ca", "cert", "key", "sentinel_username", "sentinel_password")


def parse(url: str) -> RedisAddress:
    """
    Parse a URL.

    - ``redis://[user:password@]host[:port][/db]``
    - ``rediss://…`` with TLS; ``ca``, ``cert`` and ``key`` in the query name files
    - ``redis+sentinel://[user:password@]host[:port][,host[:port]…]/service[/db]``, also as ``rediss+sentinel://``

    :raises AddressError: it has another form; the message says what is wrong, without the password.
    """
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        # Not the exception's own message, which may contain the URL.
        raise AddressError("the URL is malformed") from None
    if parts.scheme not in SCHEMES:
        raise AddressError(f"the URL must begin with one of {', '.join(f'{scheme}://' for scheme in SCHEMES)}")
    if parts.fragment:
        raise AddressError("write # as %23 in a password or path")
    options = dict(query)
    _check_options(parts.scheme, options)
    sentinel = parts.scheme.endswith("+sentinel")
    credentials, at, hosts = parts.netloc.rpartition("@")
    username, colon, password = credentials.partition(":")
    if at and not colon:
        raise AddressError("write a password without a user name as redis://:password@host")
    path = [unquote(part) for part in parts.path.strip("/").split("/")] if parts.path.strip("/") else []
    service = ""
    if sentinel:
        if not path:
            raise AddressError("the URL must end with the name of the service: redis+sentinel://host:port/name")
        service, *path = path
    elif "," in hosts:
        raise AddressError("several hosts are for redis+sentinel:// only")
    if len(path) > 1 or (path and not re.fullmatch("[0-9]{1,5}", path[0])):
        raise AddressError("after the host comes the number of the database, such as /0")
    return RedisAddress(
        hosts=tuple(_host(host, _SENTINEL_PORT if sentinel else _REDIS_PORT) for host in hosts.split(",")),
        service=service,
        tls=parts.scheme.startswith("rediss"),
        username=unquote(username),
        password=unquote(password),
        database=int(path[0]) if path else 0,
        **options,
    )


def _check_options(scheme: str, options: Mapping[str, str]) -> None:
    for name in options:
        if name not in _PARAMETERS:
            raise AddressError(f"unknown parameter {name}; the parameters are {', '.join(_PARAMETERS)}")
    if not scheme.startswith("rediss") and {"ca", "cert", "key"} & options.keys():
        raise AddressError(f"ca, cert and key need TLS: write {scheme.replace('redis', 'rediss')}://")
    if "key" in options and "cert" not in options:
        raise AddressError("key needs cert")
    if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,100}", options.get("prefix", _PREFIX)):
        raise AddressError("prefix may contain letters, digits and _ . : -")


def _host(text: str, default_port: int) -> tuple[str, int]:
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:]+))(?::([0-9]{1,5}))?", text)
    if found is None or not 0 < int(found[3] or default_port) <= _MAX_PORT:
        raise AddressError("write it as redis://:password@host:6379/0, an IPv6 address in brackets")
    return found[1] or found[2], int(found[3] or default_port)
