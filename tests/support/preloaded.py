"""
Starts of the gateway's programs without their imports, which take most of a start's time.

Where a test starts ``twistd --nodaemon`` or ``python -m brunix_twisted`` with :mod:`subprocess`, a server process
(:mod:`preloaded_server`) that has imported its modules forks, and the child becomes that program, with the arguments,
environment, folder, descriptors and signals that the test has given. It is a child of the tests' process, as usual: all
of :class:`subprocess.Popen` works. Each of the two has a server: the fewer modules, the faster is a fork and its end.

All other programs are executed: the installed ``brunix``, ``entrypoint.sh``, ``python -c``, daemons, and all that a
shell or the gateway starts. So is a process with a variable that Python or a library reads when it starts.
With ``PYTEST_EXECUTE=1`` nothing is preloaded; nor is it when coverage is measured, as `.ci/run` does.
"""

from __future__ import annotations

import array
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from isolation import CLEAN
from twistd import TWISTD

EXECUTE: Final = "PYTEST_EXECUTE"
"""The variable that turns this off."""

_SERVER: Final = Path(__file__).with_name("preloaded_server.py")
_SUBREAPER: Final = 36  # PR_SET_CHILD_SUBREAPER
# Python, the C library, OpenSSL and gRPC read these when they start.
_READ_EARLY: Final = ("PYTHON", "LANG", "LC_", "LD_", "MALLOC_", "GLIBC_", "TZ", "OPENSSL_", "GRPC_", "COVERAGE_")

_ForkExec = Callable[..., int]


def is_on() -> bool:
    """Whether programs are preloaded."""
    is_measured = any(name.startswith("COVERAGE_") for name in CLEAN)
    return sys.platform == "linux" and EXECUTE not in CLEAN and not is_measured


class _Server:
    """The server for one kind of program, which the first of them starts."""

    def __init__(self, kind: str, keep: Callable[[int], None]) -> None:
        self._kind = kind
        self._keep = keep
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None

    def close(self) -> None:
        """End the server. The next program starts another one."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.wait()
        self._connection = self._process = None

    def ask(self, request: bytes, fds: Sequence[int]) -> int:
        """Start a program, and return its pid."""
        connection = self._connected()
        prctl = ctypes.CDLL(None).prctl
        # The server forks twice, so that its grandchild loses its parent and gets this process as the next one.
        prctl(_SUBREAPER, 1)
        try:
            connection.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
            return int(connection.recv(32))
        except (OSError, ValueError) as fault:
            self.close()
            raise ChildProcessError("the server of preloaded programs has exited") from fault
        finally:
            prctl(_SUBREAPER, 0)

    def _connected(self) -> socket.socket:
        if self._connection is None:
            self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - our own
                    [sys.executable, _SERVER, str(theirs.fileno()), self._kind],
                    env=CLEAN,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                )
            self._keep(self._process.pid)
        return self._connection


class Preloaded:
    """Starts programs from servers where it can."""

    def __init__(self, keep: Callable[[int], None]) -> None:
        """
        Start nothing yet.

        :param keep: called with the pid of each server, which serves more than one test.
        """
        self._lock = threading.Lock()
        self._servers = {kind: _Server(kind, keep) for kind in ("brunix", "twistd")}
        self._fork_exec: _ForkExec = getattr(subprocess, "_fork_exec")  # noqa: B009 - has no type

    def install(self) -> None:
        """Start programs this way for the rest of this process, where it can."""
        if is_on():
            setattr(subprocess, "_fork_exec", self._start)  # noqa: B010 - subprocess offers no hook for it

    def close(self) -> None:
        """End the servers."""
        for server in self._servers.values():
            server.close()

    def _start(  # noqa: PLR0913, PLR0917 - those of the function that it replaces
        self,
        words: Sequence[Any],
        executables: Sequence[bytes],
        close_fds: bool,  # noqa: FBT001 - as said
        pass_fds: tuple[int, ...],
        cwd: Any,  # noqa: ANN401 - as said
        environment: Sequence[bytes] | None,
        stdin_read: int,
        stdin_write: int,
        stdout_read: int,
        stdout_write: int,
        stderr_read: int,
        stderr_write: int,
        error_read: int,
        error_write: int,
        restore_signals: bool,  # noqa: FBT001 - as said
        new_session: bool,  # noqa: FBT001 - as said
        process_group: int,
        *rest: Any,  # noqa: ANN401 - as said
    ) -> int:
        arguments = [os.fsdecode(word) for word in words]
        variables = _variables(environment)
        gid, gids, uid, umask, preexec = rest[:5]
        usual = (close_fds, restore_signals, process_group, gid, gids, uid, umask, preexec)
        is_plain = usual == (True, True, -1, None, None, None, -1, None) and executables == (os.fsencode(arguments[0]),)
        if not is_plain or not _is_preloaded(arguments) or _early(variables) != _early(CLEAN):
            streams = (stdin_read, stdin_write, stdout_read, stdout_write, stderr_read, stderr_write)
            errors = (error_read, error_write)
            how = (restore_signals, new_session, process_group, *rest)
            return self._fork_exec(words, executables, close_fds, pass_fds, cwd, environment, *streams, *errors, *how)
        given = {0: stdin_read, 1: stdout_write, 2: stderr_write}
        fds = {number: number if fd == -1 else fd for number, fd in given.items()}
        fds |= {fd: fd for fd in pass_fds if fd != error_write}
        is_module = arguments[1] == "-m"
        request = {
            "arguments": [arguments[0], *arguments[3:]] if is_module else arguments,
            "module": arguments[2] if is_module else None,
            "cwd": str(Path(os.fsdecode(cwd or ".")).absolute()),
            "environment": variables,
            "numbers": list(fds),
            "ignored": [number for number in signal.valid_signals() if signal.getsignal(number) is signal.SIG_IGN],
            "blocked": list(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
            "new_session": bool(new_session),
        }
        with self._lock:
            return self._servers["brunix" if is_module else "twistd"].ask(
                json.dumps(request).encode(), list(fds.values())
            )


def _is_preloaded(arguments: Sequence[str]) -> bool:
    if arguments[0] == str(TWISTD):
        return "--nodaemon" in arguments or "--check" in arguments
    return arguments[:3] == [sys.executable, "-m", "brunix_twisted"]


def _variables(environment: Sequence[bytes] | None) -> dict[str, str]:
    if environment is None:
        return dict(os.environ)
    pairs = (os.fsdecode(entry).partition("=") for entry in environment)
    return {name: text for name, _, text in pairs}


def _early(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in environment.items() if name.startswith(_READ_EARLY)}
