"""
`brunix health`: ask a running gateway whether it and the engine behind it are healthy.

The address comes from ``PROXY_LISTEN``. Importing Twisted's parser of endpoint descriptions takes a third of a second,
too long for a check that runs every few seconds. So this module parses the few forms that a client can connect to.
"""

from __future__ import annotations

import http.client
import json
import shlex
import socket
import sys
import time
from collections.abc import Callable, Mapping
from typing import Final

import attrs

from brunix_twisted.config.addresses import authority
from brunix_twisted.config.rules import SettingError
from brunix_twisted.config.settings import Settings

HEALTHY: Final = 0
UNHEALTHY: Final = 1
WRONG_SETTINGS: Final = 2
INTERRUPTED: Final = 130

ONCE_TIMEOUT_S = 2.0
"""Timeout of each step of a single check."""
TIMEOUT_S = 10.0
"""Timeout of each step while waiting. It is longer, since the gateway asks the engine, which may be busy."""
MIN_INTERVAL_S = 0.2
MAX_INTERVAL_S = 1.0
"""The interval grows: most starts take a second, and one that takes minutes should not fill the gateway's log."""
REMINDER_INTERVAL_S = 10.0
CONFIRMATION_S = 3.0
"""
If the first attempt succeeds, an older gateway may still use the address. After this time, the new gateway has failed
to listen there, and `brunix run` has stopped this process.
"""

DEFAULT_QUESTION: Final = "What can you help me with?"


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
        return f"http://{authority(self.host, self.port)}"

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


def unhealthy_reason(where: Address, timeout_s: float) -> str | None:
    """
    Return None if the gateway and the engine answer; otherwise the reason, in one line.

    :param timeout_s: limit of each step: connecting, sending, the head, the body.
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
    look: Callable[[], str | None],
    remind: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """
    Return once ``look`` finds no reason to wait.

    :param look: one try; see :func:`unhealthy_reason`.
    :param remind: called with the reason now and then.
    :param clock: seconds, as ``sleep`` takes them.
    """
    reminded_s = clock()
    interval_s = MIN_INTERVAL_S
    if look() is None:
        sleep(CONFIRMATION_S)
    while (reason := look()) is not None:
        if clock() - reminded_s >= REMINDER_INTERVAL_S:
            reminded_s = clock()
            remind(reason)
        sleep(interval_s)
        interval_s = min(interval_s * 1.2, MAX_INTERVAL_S)


def sample_question(where: Address, timeout_s: float) -> str:
    """Return a question that the engine's documents answer; for an engine that reports none, one that fits any."""
    connection = where.connection(timeout_s)
    try:
        connection.request("GET", "/page/questions.json")
        question = json.loads(connection.getresponse().read(10_000))["questions"][0]
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        return DEFAULT_QUESTION
    finally:
        connection.close()
    return question if isinstance(question, str) and question.isprintable() else DEFAULT_QUESTION


def banner(where: Address, model_id: str, asked: str = DEFAULT_QUESTION) -> str:
    """Where the gateway is, for whom, and a line to try."""
    question = {"model": model_id, "stream": True, "messages": [{"role": "user", "content": asked}]}
    url = shlex.quote(f"{where.url}/v1/chat/completions")
    # Readable if the output can contain it; JSON's escapes otherwise.
    escaped = (sys.stdout.encoding or "").lower() != "utf-8"
    body = shlex.quote(json.dumps(question, ensure_ascii=escaped, separators=(",", ":")))
    socket_option, note = "", ""
    if where.path is not None:
        socket_option, note = f"--unix-socket {shlex.quote(where.path)} ", " over that socket"
    return (
        f"brunix is up: {where}  model: {model_id}\n"
        f"  for OpenAI clients: {where.url}/v1{note}\n"
        f"  for Ollama and Anthropic clients: {where.url}{note}\n"
        f"  try:  curl {socket_option}{url} -d {body}"
    )


def check(environment: Mapping[str, str], *, wait: bool, as_json: bool = False, name: str = "brunix health") -> int:
    """
    Check the health once, or wait until it is good, and print the result.

    :param wait: try until the gateway and the engine answer, without a limit of time.
    :param as_json: print one JSON object in place of a text.
    :param name: what lines on stderr begin with.
    :return: the exit status: 0 healthy, 1 not healthy, 2 wrong settings, 130 interrupted.
    """

    def warn(line: str) -> None:
        print(f"{name}: {line}", file=sys.stderr, flush=True)  # noqa: T201 - a command line's own output

    def report(text: str, where: Address | None, model_id: str | None, reason: str | None) -> None:
        if as_json:
            address = None if where is None else str(where)
            text = json.dumps({"healthy": reason is None, "address": address, "model": model_id, "reason": reason})
        if text:
            print(text, flush=True)  # noqa: T201 - see above

    try:
        settings = Settings.read(environment, {})
        where = address(settings.listen)
    except (SettingError, UnknownAddressError) as error:
        warn(str(error))
        report("", None, None, str(error))
        return WRONG_SETTINGS
    if not wait:
        reason = unhealthy_reason(where, ONCE_TIMEOUT_S)
        report(f"{where}: {reason or 'the gateway and the engine are healthy'}", where, settings.model_id, reason)
        return HEALTHY if reason is None else UNHEALTHY
    try:
        wait_until_up(
            lambda: unhealthy_reason(where, TIMEOUT_S), lambda reason: warn(f"still waiting for {where}: {reason}")
        )
    except KeyboardInterrupt:
        return INTERRUPTED
    report(banner(where, settings.model_id, sample_question(where, TIMEOUT_S)), where, settings.model_id, None)
    return HEALTHY
