"""What keeps tests apart from the machine that runs them: a clean environment, and no port that has a usual owner."""

from __future__ import annotations

import functools
import os
import re
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

# With this umask, files that tests write have the usual permissions.
_UMASK: Final = 0o022
_KEPT: Final = frozenset({"PATH", "TMPDIR", "USER", "LOGNAME", "LD_LIBRARY_PATH"})
# The settings of tools that run the tests, not of what they test.
_KEPT_PREFIXES: Final = ("PYTEST_", "COV_", "COVERAGE_", "HYPOTHESIS_", "MUTANT_", "PIP_", "SSL_CERT_")

# Port 1 belongs to a service that is not installed anywhere: connections to it are refused.
NOBODY: Final = "127.0.0.1:1"
_HARMLESS: Final = {
    "BRUNIX_GRPC_TARGET": NOBODY,
    # A busy machine can take longer than the usual second, and a health check is not retried.
    "BRUNIX_GRPC_CONNECT_TIMEOUT_S": "30",
    "BRUNIX_URL": f"http://{NOBODY}",
    "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{NOBODY}",
    "PROXY_LISTEN": "tcp:0:interface=127.0.0.1",
}

DEFAULT_PORTS: Final = frozenset({3000, 4317, 4318, 8000, 8001, 8080, 9090, 9464, 11434, 50051, 50052})
"""Ports of the gateway, the engine, and programs next to them that may be running on this machine."""

OUTER: Final = dict(os.environ)
"""The environment of whoever runs the tests, for the few that install packages from the machine's package index."""


def cleaned(environment: Mapping[str, str]) -> dict[str, str]:
    """Return only those variables that may reach a test, in an English UTF-8 locale."""
    kept = {name: text for name, text in environment.items() if name in _KEPT or name.startswith(_KEPT_PREFIXES)}
    return kept | {"LANG": "C.UTF-8"}


BARE: Final = cleaned(OUTER)
"""The environment without any setting, for entrypoint.sh and tests of the default settings themselves."""

CLEAN: Final = BARE | _HARMLESS
"""
The environment to start a process with.

Where a test sets nothing else, a gateway listens on a free port, and neither it nor the command line finds an engine, a
gateway or a collector of traces that happens to be running at the default address.
"""


def unmeasured(environment: Mapping[str, str] = CLEAN) -> dict[str, str]:
    """
    Return an environment without what makes a process measure its coverage.

    That imports modules of its own, and costs a process 0.1 s: use this for those that run none of the gateway's code.
    """
    return {name: text for name, text in environment.items() if not name.startswith("COVERAGE_")}


def isolate(marker: Mapping[str, str]) -> tempfile.TemporaryDirectory[str]:
    """
    Replace the environment of this process; call this before anything reads it.

    :param marker: variables for everything that this process starts.
    :return: the empty home directory of the tests, to be removed at the end.
    """
    home = tempfile.TemporaryDirectory(prefix="brunix-home-")
    variables = {"HOME": home.name, **marker}
    BARE.update(variables)
    CLEAN.update(variables)
    os.environ.clear()
    # The gateway sets the last of these as well, but only where it is imported before grpc.
    os.environ.update(BARE | {"GRPC_VERBOSITY": "NONE"})
    os.umask(_UMASK)
    return home


class DefaultPortError(AssertionError):
    """A test uses a default port. It is no OSError: code that expects those must not hide it."""


class PortGuard:
    """Refuses connections to default ports and listening on them, within this process, and remembers each attempt."""

    def __init__(self, own_pids: Callable[[], Iterable[int]]) -> None:
        """
        Watch nothing yet.

        :param own_pids: finds the processes that the tests have started, whose ports are no default ones: the kernel
            may give any port to who asks for a free one.
        """
        self._own_pids = own_pids
        self._attempts: list[str] = []

    def install(self) -> None:
        """Begin to watch. An audit hook cannot be removed, so this is for the whole process."""
        import grpc  # noqa: PLC0415 - not before isolate(): it reads the environment when it is imported

        sys.addaudithook(self._audit)
        for library in (grpc, grpc.aio):
            for name in ("insecure_channel", "secure_channel"):
                setattr(library, name, self._guarded(getattr(library, name)))

    def take(self) -> list[str]:
        """Return the attempts since the last call."""
        attempts, self._attempts = self._attempts, []
        return attempts

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in {"socket.connect", "socket.bind"}:
            return
        sock, address = arguments
        if sock.family not in {socket.AF_INET, socket.AF_INET6} or not isinstance(address, tuple):
            return
        port = address[1]
        if port in DEFAULT_PORTS and not (event == "socket.connect" and self._is_own(port)):
            self._refuse(f"{event} {address[0]}:{port}")

    def _guarded(self, make: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(make)
        def channel(target: str, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - those of gRPC
            local = re.search(r"(?:^|[/:,])(?:localhost|127\.[\d.]+|\[::1?\]|0\.0\.0\.0):(\d+)$", target)
            if local and int(local[1]) in DEFAULT_PORTS and not self._is_own(int(local[1])):
                self._refuse(f"gRPC channel to {target}")
            return make(target, *arguments, **options)

        return channel

    def _refuse(self, what: str) -> None:
        message = f"A test must not use a default port: {what}"
        self._attempts.append(message + "\n" + "".join(traceback.format_stack(limit=8)[:-2]))
        raise DefaultPortError(message)

    def _is_own(self, port: int) -> bool:
        """Whether the port's listener is this process or one that it started; yes where the system does not tell."""
        inodes = _listeners(port)
        folders = [Path("/proc/self/fd"), *(Path(f"/proc/{pid}/fd") for pid in self._own_pids())]
        return not folders[0].exists() or any(
            _target(path) in inodes for folder in folders for path in _entries(folder)
        )


def _listeners(port: int) -> set[str]:
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text("ascii").splitlines()[1:]
        except OSError:
            continue
        rows = [line.split() for line in lines]
        # State 0A is LISTEN.
        inodes |= {
            f"socket:[{row[9]}]" for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port
        }
    return inodes


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""
