"""nginx, HAProxy and lighttpd as an operator runs them: the files of deploy/, changed only as a test says."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal

from paths import ROOT
from threads import Threads

LIMIT_S: Final = 60
"""Only for what would otherwise hang a failing run."""

Kind = Literal["nginx", "haproxy", "lighttpd"]
FILES: Final[dict[Kind, Path]] = {
    "nginx": ROOT / "deploy" / "nginx" / "brunix.conf",
    "haproxy": ROOT / "deploy" / "haproxy" / "brunix.cfg",
    "lighttpd": ROOT / "deploy" / "lighttpd" / "brunix.conf",
}
KINDS: Final[tuple[Kind, ...]] = ("nginx", "haproxy")
"""Those that serve several gateways, TLS and API keys; lighttpd's file is for one gateway, and has nothing else."""

# What the two ports are for in the files: who comes as anybody, and who comes by TLS.
_LISTENS: Final = {
    "nginx": ("listen 80;", "listen 127.0.0.1:{port};", "listen 443 ssl;", "listen 127.0.0.1:{port} ssl;"),
    "haproxy": ("bind :80\n", "bind fd@{descriptor}\n", "bind :443 ssl", "bind fd@{descriptor} ssl"),
}
_NGINX: Final = """\
daemon off;
pid {folder}/pid;
error_log stderr notice;
events {{ }}
http {{
    log_format id '{{$brunix_request_id}}';
    access_log /dev/stdout id;
    # A site may have it so; it must not hold streams back.
    gzip on;
    gzip_types *;
    gzip_proxied any;
    proxy_ignore_headers X-Accel-Buffering;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/brunix;
}}
"""
# It takes a listening socket as its standard input.
_LIGHTTPD: Final = """\
server.document-root = "{folder}"
server.upload-dirs = ( "{folder}" )
server.bind = "/dev/stdin"
server.errorlog = "/dev/stderr"
include "{folder}/brunix"
"""
_HAPROXY: Final = "global\n    log stdout format raw local0\n"

_NOBODY: Final = 65534


def find(kind: Kind) -> str | None:
    """Find the program; Debian puts it where not everybody looks."""
    return shutil.which(kind, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def uncommented(text: str, *words: str) -> str:
    """Take the ``#`` away from the examples, each a run of lines, in which one of these words stands."""
    for word in words:
        runs = [run for run in re.findall(r"(?:^ *#[^ \n].*\n)+", text, re.MULTILINE) if word in run]
        assert runs, f"no example has {word!r}"
        for run in runs:
            text = text.replace(run, re.sub(r"^( *)#", r"\1", run, flags=re.MULTILINE))
    return text


def replaced(text: str, changes: Mapping[str, str]) -> str:
    """Replace what has to be there."""
    for old, new in changes.items():
        assert old in text, f"the file has no {old!r}"
        text = text.replace(old, new)
    return text


class Proxy:
    """A proxy that runs."""

    def __init__(self, process: subprocess.Popen[bytes], log: int, port: int, tls_port: int) -> None:
        """
        Read along what it writes to its log.

        :param log: the descriptor to read that from.
        """
        self.url = f"http://127.0.0.1:{port}"
        self.tls_port = tls_port
        self._process = process
        self._log = os.fdopen(log)
        self._said: list[str] = []
        self._changed = threading.Condition()
        self._threads = Threads()
        self._threads.start(self._read)

    def _read(self) -> None:
        with self._log:
            for line in self._log:
                with self._changed:
                    self._said.append(line)
                    self._changed.notify_all()

    def said(self) -> str:
        """Everything that it has written to its log."""
        return "".join(self._said)

    def until(self, wanted: str) -> None:
        """Wait for a line with this in it. Blocks."""
        with self._changed:
            found = self._changed.wait_for(lambda: any(wanted in line for line in self._said), LIMIT_S)
        assert found, f"{wanted!r} is not in the log:\n{self.said()}"

    def stop(self) -> None:
        """End it, and every connection with it."""
        self._process.terminate()
        try:
            self._process.wait(LIMIT_S)
        finally:
            self._process.kill()
            self._process.wait()
            self._threads.join()


@contextmanager
def proxy(
    kind: Kind,
    gateways: Sequence[str],
    *,
    changes: Mapping[str, str] | None = None,
    examples: Sequence[str] = (),
    files: Mapping[str, bytes] | None = None,
) -> Iterator[Proxy]:
    """
    Run a proxy before one gateway or two, as an ordinary user.

    It inherits sockets that listen already: nobody can take its port, and nobody has to wait until it is there.

    :param gateways: where they listen, such as ``127.0.0.1:8000``.
    :param changes: what to replace in the file of deploy/, and by what.
    :param examples: words of the examples to use.
    :param files: what the examples look for in the program's folder in /etc.
    """
    text = uncommented(FILES[kind].read_text("utf-8"), *(["8001"] if len(gateways) > 1 else []), *examples)
    addresses = dict(zip(("127.0.0.1:8000", "127.0.0.1:8001"), gateways, strict=False))
    if kind == "lighttpd":
        # Its file has the port in a line of its own.
        addresses = {"8000,": f"{gateways[0].rpartition(':')[2]},"}
    text = replaced(text, addresses | dict(changes or {}))
    with TemporaryDirectory(prefix="brunix-") as name:
        folder = Path(name)
        for file, data in (files or {}).items():
            (folder / file).write_bytes(data)
        running = _start(kind, folder, text.replace(f"/etc/{kind}/", f"{folder}/"))
        try:
            yield running
        finally:
            running.stop()


def _start(kind: Kind, folder: Path, text: str) -> Proxy:
    program = find(kind)
    assert program is not None, f"{kind} is not installed"
    base, file = folder / "base", folder / "brunix"
    if kind == "nginx":
        base.write_text(_NGINX.format(folder=folder), "utf-8")
        command = [program, "-e", "stderr", "-p", str(folder), "-c", str(base)]
    elif kind == "lighttpd":
        base.write_text(_LIGHTTPD.format(folder=folder), "utf-8")
        command = [program, "-D", "-f", str(base)]
    else:
        base.write_text(_HAPROXY, "utf-8")
        command = [program, "-db", "-f", str(base), "-f", str(file)]
    # Closed here once the proxy has them: then one that has ended refuses, and does not leave its clients waiting.
    with ExitStack() as stack:
        plain, tls = (stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=512)) for _ in range(2))
        if listens := _LISTENS.get(kind):
            for (old, new), server in zip((listens[:2], listens[2:]), (plain, tls), strict=True):
                text = text.replace(old, new.format(port=server.getsockname()[1], descriptor=server.fileno()))
        file.write_text(text, "utf-8")
        log, end = os.pipe()
        stack.callback(os.close, end)
        if os.getuid() == 0:
            os.fchown(end, _NOBODY, _NOBODY)
            for path in (folder, *folder.iterdir()):
                os.chown(path, _NOBODY, _NOBODY)
            # Popen could do it too, but not without a real fork, which gRPC's threads do not bear.
            command = ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", *command]
        process = subprocess.Popen(  # noqa: S603 - the program that was found
            command,
            # nginx takes the sockets that are named here for those of the nginx before it.
            env={"PATH": os.environ.get("PATH", ""), "NGINX": f"{plain.fileno()};{tls.fileno()};"},
            stdin=plain.fileno() if kind == "lighttpd" else subprocess.DEVNULL,
            stdout=end,
            stderr=subprocess.STDOUT,
            cwd=folder,
            pass_fds=[plain.fileno(), tls.fileno()],
        )
        return Proxy(process, log, plain.getsockname()[1], tls.getsockname()[1])
