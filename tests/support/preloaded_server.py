"""
A process that has imported what the gateway's programs import, and becomes them.

Run as ``python preloaded_server.py FD brunix|twistd`` by :mod:`preloaded`, which describes why. FD is a socket of
sequenced packets. Each packet is a request in JSON, with the file descriptors that the program inherits. The reply is
the program's pid.
"""

from __future__ import annotations

import array
import fcntl
import gc
import importlib
import io
import json
import os
import runpy
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, TextIO

MAX_FDS: Final = 64
MAX_BYTES: Final = 1 << 20

# What each kind of program imports. Left out are gRPC, whose threads do not survive a fork; what imports a
# reactor, which each process chooses; and what changes the environment when it is imported.
_BRUNIX: Final = (
    "brunix_twisted.cli.commands",
    "brunix_twisted.cli.api_formats",
    "brunix_twisted.cli.ask",
    "brunix_twisted.cli.chat",
    "brunix_twisted.cli.connect",
    "brunix_twisted.cli.doctor.run",
)
_TWISTD: Final = (
    "brunix_twisted.app.systemd",
    "brunix_twisted.config.unknown_variables",
    "brunix_twisted.observability.logs",
    "brunix_twisted.processes.supervisor",
    "brunix_twisted.runtime.private_names",
    "brunix_twisted.runtime.reactors",
    "brunix_twisted.state.selection",
    "brunix_twisted.dialects.anthropic",
    "brunix_twisted.dialects.codings",
    "brunix_twisted.dialects.editor",
    "brunix_twisted.dialects.ollama",
    "brunix_twisted.dialects.openai",
    "brunix_twisted.dialects.openapi",
    "brunix_twisted.dialects.responses",
    "brunix_twisted.http.syntax",
    "brunix_twisted.limits",
    "concurrent.futures.thread",
    "google.protobuf.internal.builder",
    "google.protobuf.runtime_version",
    "twisted.application.app",
    "twisted.internet.asyncioreactor",
    "twisted.internet.epollreactor",
    "twisted.internet.ssl",
    "twisted.plugins.twisted_reactors",
    "twisted.scripts._twistd_unix",
    "twisted.scripts.twistd",
    "twisted.web.server",
    "twisted.web.template",
    "werkzeug.routing",
)


def _preload(modules: Sequence[str]) -> None:
    # An import of the reactor would install one, and this makes it fail.
    sys.modules["twisted.internet.reactor"] = None  # type: ignore[assignment]
    before = dict(os.environ)
    gc.disable()
    for name in modules:
        importlib.import_module(name)
    del sys.modules["twisted.internet.reactor"]
    if os.environ != before or "grpc" in sys.modules:
        sys.exit("one of the preloaded modules imports gRPC or changes the environment")
    gc.collect()
    # The programs share this memory: a collection in one of them would copy it.
    gc.freeze()
    gc.enable()


def _serve(connection: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Start a process for each request; return its request and its file descriptors in it, and None at the end."""
    while True:
        fds = array.array("i")
        packet, ancillary, _, _ = connection.recvmsg(MAX_BYTES, socket.CMSG_SPACE(MAX_FDS * fds.itemsize))
        if not packet:
            return None
        for _, _, content in ancillary:
            fds.frombytes(content)
        ready, go = os.pipe()
        read_pid, write_pid = os.pipe()
        between = os.fork()
        if between == 0:
            if pid := os.fork():
                os.write(write_pid, str(pid).encode())
                os._exit(0)
            os.close(go)
            os.read(ready, 1)
            return json.loads(packet), list(fds)
        # The process between ends, and the kernel gives its child to the tests' process.
        os.waitpid(between, 0)
        os.close(write_pid)
        pid_written = os.read(read_pid, 32)
        for fd in (go, ready, read_pid, *fds):
            os.close(fd)
        connection.send(pid_written)


def _become(request: dict[str, Any], fds: Sequence[int]) -> Callable[[], object]:
    """Take the descriptors, signals and environment of the request; return what runs the program."""
    if request["new_session"]:
        os.setsid()
    os.chdir(request["cwd"])
    numbers: list[int] = request["numbers"]
    _take(dict(zip(numbers, fds, strict=True)))
    _set_signals(set(request["ignored"]), set(request["blocked"]))
    os.environ.clear()
    os.environ.update(request["environment"])
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        stream = _stream(getattr(sys, name), number)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.argv[:] = request["arguments"]
    if (module := request["module"]) is not None:
        sys.path[0] = request["cwd"]
        return lambda: runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.path[0] = os.path.dirname(os.path.realpath(sys.argv[0]))  # noqa: PTH120 - as Python does it
    return lambda: runpy.run_path(sys.argv[0], run_name="__main__")


def _take(fds: dict[int, int]) -> None:
    """Move each descriptor to its number, and close all others."""
    # Out of each other's way first.
    above = max(*fds, 2) + 1
    moved = {number: fcntl.fcntl(fd, fcntl.F_DUPFD, above) for number, fd in fds.items()}
    for number, fd in moved.items():
        os.dup2(fd, number)
    for fd in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208 - numbers, not paths
        if fd not in fds:
            with suppress(OSError):  # that of the folder itself
                os.close(fd)


def _set_signals(ignored: set[int], blocked: set[int]) -> None:
    """Handle signals as a Python does that has just started."""
    ignored |= {signal.SIGPIPE, signal.SIGXFSZ}
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)
    if signal.SIGINT not in ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _stream(usual: TextIO, fd: int) -> Any:  # noqa: ANN401 - a TextIO with a mode
    """Make a standard stream as Python does when it starts."""
    binary: Any = io.open(fd, "wb" if fd else "rb", closefd=False)  # noqa: SIM115, UP020 - for all of the process
    binary.raw.name = usual.name
    is_interactive = fd == 2 or binary.isatty()
    stream: Any = io.TextIOWrapper(
        binary, usual.encoding, usual.errors, newline="\n" if fd else None, line_buffering=is_interactive
    )
    stream.mode = usual.mode
    return stream


def _set_up(connection: socket.socket, kind: str) -> Callable[[], object] | None:
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        # The end of the connection is this process's end.
        signal.signal(number, signal.SIG_IGN)
    _preload({"brunix": _BRUNIX, "twistd": _TWISTD}[kind])
    served = _serve(connection)
    return None if served is None else _become(*served)


if __name__ == "__main__":
    program = _set_up(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])
    if program is not None:
        program()
