"""A gateway as a process of its own, to which the kernel gives no more threads or memory when a test says so."""

from __future__ import annotations

import os
import random
import resource
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final

import attrs

from fake_reactor import LIMIT_S
from isolation import CLEAN
from twistd import TWISTD, wait_for_port

# The kernel counts threads for each user and does not count root's. So root's gateways each get a user of their own,
# which no other test has; it may read what root may, such as the files of Python itself.
_USERS: Final = count(random.randrange(1_000_000, 2_000_000_000))  # noqa: S311 - not to meet those of other processes


def _another_user() -> Sequence[str]:
    if os.geteuid() != 0:
        return ()
    user = next(_USERS)
    may_read = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    return ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *may_read)


@attrs.frozen
class LimitedGateway:
    """A gateway that serves, and whose limits can be set and lifted while it does."""

    process: subprocess.Popen[str]
    port: int
    _user: Sequence[str]

    def refuse_threads(self) -> None:
        """Let the process start no further thread: "can't start new thread", as at a pids limit."""
        # The user has a process already, this one.
        self._limit("nproc", "1")

    def allow_threads(self) -> None:
        """Let it start threads again."""
        self._limit("nproc", _hard(resource.RLIMIT_NPROC))

    def limit_memory(self, further_bytes: int) -> None:
        """Let the process map so much more memory than it has now; beyond that there is a MemoryError."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text("ascii").split()[0])
        self._limit("as", str(pages * resource.getpagesize() + further_bytes))

    def allow_memory(self) -> None:
        """Let it map what it wants again."""
        self._limit("as", _hard(resource.RLIMIT_AS))

    def _limit(self, what: str, soft: str) -> None:
        # As the process's own user: another one, even root, may not do so in every container.
        command = [*self._user, "prlimit", f"--pid={self.process.pid}", f"--{what}={soft}:"]
        subprocess.run(command, check=True, timeout=LIMIT_S)  # noqa: S603 - of util-linux


def _hard(what: int) -> str:
    _, hard = resource.getrlimit(what)
    return "unlimited" if hard == resource.RLIM_INFINITY else str(hard)


@contextmanager
def limited_gateway(folder: Path, **environment: str) -> Iterator[LimitedGateway]:
    """Run twistd in the foreground, without any limit at first, and end it."""
    user = _another_user()
    with (folder / "gateway.log").open("w") as log:
        process = subprocess.Popen(  # noqa: S603 - this environment's own twistd
            [*user, str(TWISTD), "--nodaemon", "--pidfile=", "brunix"],
            cwd=folder,
            env=CLEAN | {"PROXY_LISTEN": "tcp:0:interface=127.0.0.1", "PYTHONDONTWRITEBYTECODE": "1"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield LimitedGateway(process, wait_for_port(process), user)
        finally:
            process.kill()
            log.write(process.communicate()[0])
