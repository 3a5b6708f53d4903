"""
Check the health of the gateway and its engine: ``python -m brunix_twisted.probe [--once]``.

Without an option it waits, without limit, until both are healthy, and prints the gateway's address and an example. With
``--once`` it is a container's health check: one attempt, one line, exit status 0 or 1. Exit status 2 means that the
settings contain no address that it can check.

The address comes from ``PROXY_LISTEN``. Importing Twisted's parser of endpoint descriptions takes a third of a second,
too long for a check that runs every few seconds. So this module parses the few forms that a client can connect to.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

import attrs

from brunix_twisted.config.rules import SettingError
from brunix_twisted.config.settings import Settings

ONCE_TIMEOUT_S = 2.0
"""Timeout of a health check with ``--once``."""
TIMEOUT_S = 10.0
"""Timeout of each attempt while waiting. It is longer, since the gateway asks the engine, which may be busy."""
MIN_INTERVAL_S = 0.2
MAX_INTERVAL_S = 1.0
"""The interval grows: most starts take a second, and one that takes minutes should not fill the gateway's log."""
REMINDER_INTERVAL_S = 10.0
CONFIRMATION_S = 3.0
"""
If the first attempt succeeds, an older gateway may still use the address. After this time, the new gateway has failed
to listen there, and ``entrypoint.sh`` has stopped this process.
"""


class UnknownAddressError(ValueError):
    """An endpoint description that a client cannot connect to. The message is one line."""


@attrs.frozen
class Address:
    """The address at which clients reach the gateway: a host and a port, or the path of a Unix socket."""

    host: str = "localhost"
    port: int | None = None
    path: str | None = None

    @property
    def url(self) -> str:
        """The base URL. Over a Unix socket its host is a placeholder."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}" if self.port is None else f"http://{host}:{self.port}"

    def __str__(self) -> str:
        """Return the address for display."""
        return self.url if self.path is None else f"unix:{self.path}"

    def connection(self, timeout_s: float) -> http.client.HTTPConnection:
        """Return a new connection, not connected yet."""
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
    Split a description into positional and named parts, by Twisted's rules.

    A colon separates parts, the first equals sign of a part ends its name, and a backslash escapes the next character.
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
"""The names of positional parts for each kind of endpoint, as far as they are needed."""
_PORTS = range(1, 0x10000)
"""Not port 0: the system then chooses one, and only the gateway knows it."""


def address(description: str) -> Address:
    """
    Return the address at which clients reach a Twisted server endpoint.

    :raises UnknownAddressError: the kind of endpoint has no known address, or needs more than plain HTTP.
    """
    positional, named = _words(description)
    kind = positional[0] if positional else ""
    if kind not in _POSITIONS:
        raise UnknownAddressError(f"PROXY_LISTEN is {description!r}; health checks support only tcp:, tcp6: and unix:")
    parts = dict(zip(_POSITIONS[kind], positional[1:], strict=False)) | named
    if kind == "unix":
        if not parts.get("address"):
            raise UnknownAddressError(f"PROXY_LISTEN is {description!r}, without a path")
        return Address(path=parts["address"])
    port = parts.get("port", "")
    if not port.isdecimal() or int(port) not in _PORTS:
        raise UnknownAddressError(f"PROXY_LISTEN is {description!r}, without a port from 1 to 65535")
    # An endpoint on all interfaces can be reached over loopback.
    loopback = {"": "127.0.0.1" if kind == "tcp" else "::1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing listens on it here
    interface = parts.get("interface", "")
    return Address(loopback.get(interface, interface), int(port))


def health_problem(where: Address, timeout_s: float) -> str | None:
    """
    Check the health once; return None if gateway and engine are healthy, otherwise the problem in one line.

    :param timeout_s: timeout of each step: connecting, sending, receiving the head, receiving the body.
    """
    connection = where.connection(timeout_s)
    try:
        connection.request("GET", "/health")
        response = connection.getresponse()
        body_bytes = response.read(10_000)
    except OSError as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return f"the gateway is unreachable: {reason}"
    except http.client.HTTPException:
        return "the server there is not the gateway: it does not speak HTTP"
    finally:
        connection.close()
    try:
        status = json.loads(body_bytes)["status"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"the server there is not the gateway: {response.status} {response.reason!a}"
    if response.status == http.client.OK:
        return None
    return f"the gateway is up, the engine is not healthy yet: {response.status} {ascii(status)[:200]}"


def wait_until_up(
    check: Callable[[], str | None],
    report: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """
    Return once ``check`` finds no problem, and report the problem every :data:`REMINDER_INTERVAL_S` until then.

    :param check: one attempt; see :func:`health_problem`.
    :param clock: the time in seconds.
    """
    reported_s = clock()
    interval_s = MIN_INTERVAL_S
    if check() is None:
        sleep(CONFIRMATION_S)
    while (problem := check()) is not None:
        if clock() - reported_s >= REMINDER_INTERVAL_S:
            reported_s = clock()
            report(problem)
        sleep(interval_s)
        interval_s = min(interval_s * 1.2, MAX_INTERVAL_S)


def banner(where: Address, model_id: str) -> str:
    """Return the gateway's URLs for each kind of client, and a command to try."""
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
    """Run the command and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m brunix_twisted.probe",
        description="Wait until the gateway and the engine are healthy, then print the gateway's address.",
    )
    parser.add_argument("--once", action="store_true", help="check the health once; exit with status 0 or 1")
    once: bool = parser.parse_args(arguments).once

    def report(line: str) -> None:
        print(f"brunix_twisted.probe: {line}", file=sys.stderr, flush=True)  # noqa: T201 - the output of a command

    try:
        settings = Settings.read(environment, {})
        where = address(settings.listen)
    except (SettingError, UnknownAddressError) as error:
        report(str(error))
        return 2
    if once:
        problem = health_problem(where, ONCE_TIMEOUT_S)
        print(f"{where}: {problem or 'the gateway and the engine are healthy'}")  # noqa: T201 - see above
        return 0 if problem is None else 1
    try:
        wait_until_up(
            lambda: health_problem(where, TIMEOUT_S), lambda problem: report(f"still waiting for {where}: {problem}")
        )
    except KeyboardInterrupt:
        return 130
    print(banner(where, settings.model_id), flush=True)  # noqa: T201 - see above
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
