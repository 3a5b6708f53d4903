"""
Asks the gateway for its health: ``python -m brunix_twisted.probe [--once]``.

Without an option it waits, for as long as it takes, until the gateway and the engine behind it answer, and then says
where they are and what to try. With ``--once`` it is a container's health check: one try, one line, status 0 or 1.
Status 2: the settings do not say whom to ask.

The address is the one in ``PROXY_LISTEN``. Twisted's own parser of such descriptions comes with a third of a second of
imports, too much for a check that runs every few seconds; the few forms that a client can follow are read here.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import attrs

from brunix_twisted.config.settings import SettingError, Settings

ONCE_TIMEOUT_S = 2.0
"""A health check that takes longer has found out enough."""
TIMEOUT_S = 10.0
"""While waiting, a gateway that asks a busy engine first may take its time."""
SHORTEST_INTERVAL_S = 0.2
LONGEST_INTERVAL_S = 1.0
"""The tries get rarer: most starts take a second, and one that takes minutes should not fill the gateway's log."""
REMINDER_INTERVAL_S = 10.0
CONFIRMATION_S = 3.0
"""
An answer to the very first try may come from an older gateway that still holds the address. By then ours has noticed
that too, and this process has been ended along with it.
"""


class UnknownAddressError(ValueError):
    """A description of an endpoint from which no client's address follows. The text is one line."""


@attrs.frozen
class Address:
    """Where a client finds the gateway: a host and a port, or the path of a Unix socket."""

    host: str = "localhost"
    port: int | None = None
    path: str | None = None

    @property
    def url(self) -> str:
        """The base of every URL; over a Unix socket the host in it is only a name."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}" if self.port is None else f"http://{host}:{self.port}"

    def __str__(self) -> str:
        """For a person who reads what is being waited for."""
        return self.url if self.path is None else f"unix:{self.path}"

    def connection(self, timeout_s: float) -> http.client.HTTPConnection:
        """One that has not connected yet."""
        if self.path is not None:
            return _UnixConnection(self.path, timeout_s)
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout_s)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _words(description: str) -> tuple[list[str], dict[str, str]]:
    """
    Positional and named parts of a description, by Twisted's rules: a colon separates parts, the first equals sign of
    a part ends its name, and a backslash makes the next character an ordinary one.
    """
    parts: list[list[str]] = [[""]]
    characters = iter(description)
    for character in characters:
        if character == ":":
            parts.append([""])
        elif character == "=" and len(parts[-1]) == 1:
            parts[-1].append("")
        elif character == "\\":
            parts[-1][-1] += next(characters, "")
        else:
            parts[-1][-1] += character
    return [part[0] for part in parts if len(part) == 1], {part[0]: part[1] for part in parts if len(part) > 1}


_POSITIONS = {"tcp": ("port", "interface"), "tcp6": ("port", "backlog", "interface"), "unix": ("address",)}
"""What the parts without a name mean, for each kind of endpoint, as far as it matters here."""
_PORTS = range(1, 0x10000)
"""Port 0 lets the system choose, and only the gateway knows what it chose."""


def address(description: str) -> Address:
    """
    The client's side of a Twisted server endpoint.

    :raises UnknownAddressError: for a kind that plain HTTP cannot reach or that does not tell its address.
    """
    positional, named = _words(description)
    kind = positional[0] if positional else ""
    if kind not in _POSITIONS:
        raise UnknownAddressError(
            f"PROXY_LISTEN is {description!r}: its health can be asked for over tcp:, tcp6: and unix: only"
        )
    parts = dict(zip(_POSITIONS[kind], positional[1:], strict=False)) | named
    if kind == "unix":
        if not parts.get("address"):
            raise UnknownAddressError(f"PROXY_LISTEN is {description!r}, which has no path")
        return Address(path=parts["address"])
    port = parts.get("port", "")
    if not port.isdecimal() or int(port) not in _PORTS:
        raise UnknownAddressError(f"PROXY_LISTEN is {description!r}, which has no port from 1 to 65535")
    # An endpoint on every interface is also on this machine's own.
    everywhere = {"": "127.0.0.1" if kind == "tcp" else "::1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what to look for, nothing to listen on
    interface = parts.get("interface", "")
    return Address(everywhere.get(interface, interface), int(port))


def trouble(where: Address, timeout_s: float) -> str | None:
    """
    None when the gateway and the engine answer; otherwise, in one line, what is missing.

    :param timeout_s: the limit of each step: connecting, sending, the head, the body.
    """
    connection = where.connection(timeout_s)
    try:
        connection.request("GET", "/health")
        response = connection.getresponse()
        body_bytes = response.read(10_000)
    except OSError as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return f"the gateway does not answer: {reason}"
    except http.client.HTTPException:
        return "what answers there is not the gateway: it speaks no HTTP"
    finally:
        connection.close()
    try:
        status = json.loads(body_bytes)["status"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"what answers there is not the gateway: {response.status} {response.reason!a}"
    if response.status == http.client.OK:
        return None
    return f"the gateway answers, the engine does not yet: {response.status} {ascii(status)[:200]}"


def wait_until_up(
    look: Callable[[], str | None],
    tell: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """
    Return once ``look`` finds no trouble, and tell of the trouble now and then until it does.

    :param look: one try; see :func:`trouble`.
    :param clock: seconds, as ``sleep`` takes them.
    """
    told_s = clock()
    interval_s = SHORTEST_INTERVAL_S
    if look() is None:
        sleep(CONFIRMATION_S)
    while (missing := look()) is not None:
        if clock() - told_s >= REMINDER_INTERVAL_S:
            told_s = clock()
            tell(missing)
        sleep(interval_s)
        interval_s = min(interval_s * 1.2, LONGEST_INTERVAL_S)


def banner(where: Address, model_id: str) -> str:
    """Where the gateway is, for whom, and a line to try."""
    question = {
        "model": model_id,
        "stream": True,
        "messages": [{"role": "user", "content": "How do I point Continue at this gateway?"}],
    }
    url = shlex.quote(f"{where.url}/v1/chat/completions")
    body = shlex.quote(json.dumps(question, separators=(",", ":")))
    socket_option, note = "", ""
    if where.path is not None:
        socket_option, note = f"--unix-socket {shlex.quote(where.path)} ", " over that socket"
    return (
        f"brunix is up: {where}  model: {model_id}\n"
        f"  for OpenAI clients: {where.url}/v1{note}\n"
        f"  for Ollama and Anthropic clients: {where.url}{note}\n"
        f"  try:  curl {socket_option}{url} -d {body}"
    )


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the command; the result is the process's status."""
    parser = argparse.ArgumentParser(
        prog="python -m brunix_twisted.probe",
        description="Wait until the gateway and the engine answer, then say where they are.",
    )
    parser.add_argument("--once", action="store_true", help="a health check: one try, status 0 or 1")
    once: bool = parser.parse_args(arguments).once

    def tell(line: str) -> None:
        print(f"brunix_twisted.probe: {line}", file=sys.stderr, flush=True)  # noqa: T201 - a command line's own output

    try:
        settings = Settings.read(environment, {})
        where = address(settings.listen)
    except (SettingError, UnknownAddressError) as error:
        tell(str(error))
        return 2
    if once:
        missing = trouble(where, ONCE_TIMEOUT_S)
        print(f"{where}: {missing or 'the gateway and the engine answer'}")  # noqa: T201 - see above
        return 0 if missing is None else 1
    try:
        wait_until_up(lambda: trouble(where, TIMEOUT_S), lambda missing: tell(f"still waiting for {where}: {missing}"))
    except KeyboardInterrupt:
        return 130
    print(banner(where, settings.model_id), flush=True)  # noqa: T201 - see above
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
