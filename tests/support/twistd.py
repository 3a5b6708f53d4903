"""Start ``twistd`` as a user does, and find its port."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from fake_reactor import LIMIT_S
from isolation import CLEAN as CLEAN  # noqa: PLC0414 - also for those who take it from here
from ports import free_port as free_port  # noqa: PLC0414 - also for those who take it from here

TWISTD = Path(sys.executable).with_name("twistd")


def until_ok(read: Callable[[], object]) -> None:
    """Read the state of a gateway until it is "ok". On a busy machine, a call may take longer than it is given."""
    give_up_s = time.monotonic() + LIMIT_S
    while (state := read()) != "ok":
        assert time.monotonic() < give_up_s, state


@contextmanager
def twistd(
    folder: Path, *arguments: str, reactor: str = "default", **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """Run twistd in the foreground in a folder of its own, and end it."""
    process = subprocess.Popen(  # noqa: S603 - this environment's own twistd
        [TWISTD, f"--reactor={reactor}", "--nodaemon", "--pidfile=", "brunix", *arguments],
        cwd=folder,
        env=CLEAN | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_port(process: subprocess.Popen[str]) -> int:
    """Read the log until it says where the gateway listens."""
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"Serving the model .* port=(\d+)", line):
            return int(found[1])
    raise AssertionError("twistd ended without listening")


def get(port: int, path: str) -> tuple[int, bytes]:
    """Ask for a page."""
    try:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as response:
            return response.status, response.read()
    except HTTPError as error:
        return error.code, error.read()
