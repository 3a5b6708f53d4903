"""The first run, ``make run``: one variable moves it to other ports."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from brunix_twisted.app.rendezvous import free_port, meet
from fake_reactor import LIMIT_S
from isolation import BARE
from paths import ROOT
from twistd import free_port as a_port
from twistd import get


def next_free(host: str, wanted: int) -> int:
    """A machine on which 50051 is taken, and 4711 is next."""
    assert host in {"localhost", "0.0.0.0", "[::1]"}  # noqa: S104 - an expectation
    return wanted if wanted not in {0, 50051} else 4711


@pytest.mark.parametrize(
    ("listen", "target", "met"),
    [
        ("", "", ("localhost:4711", "localhost:4711")),
        ("localhost:0", "", ("localhost:4711", "localhost:4711")),
        ("0.0.0.0:0", "", ("0.0.0.0:4711", "127.0.0.1:4711")),
        ("[::1]:0", "", ("[::1]:4711", "[::1]:4711")),
        ("localhost:1", "", ("localhost:1", "localhost:1")),
        ("1", "", ("localhost:1", "localhost:1")),
        ("[::]:1", "", ("[::]:1", "[::1]:1")),
        ("", "localhost:2", ("localhost:2", "localhost:2")),
        ("", "dns:///127.0.0.1:2", ("127.0.0.1:2", "dns:///127.0.0.1:2")),
        ("", "engine.example:2", ("localhost:4711", "engine.example:2")),
        ("localhost:1", "localhost:2", ("localhost:1", "localhost:2")),
    ],
)
def test_where_they_meet(listen: str, target: str, met: tuple[str, str]) -> None:
    """Either variable moves both sides, and a port that is taken is replaced."""
    assert meet({"BRUNIX_ENGINE_LISTEN": listen, "BRUNIX_GRPC_TARGET": target}, next_free) == met


def test_a_port_that_is_taken() -> None:
    """The port that is found is free on all addresses of the host."""
    import socket  # noqa: PLC0415 - here alone

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert free_port("localhost", port) not in {0, port}
    wanted = a_port()
    assert free_port("localhost", wanted) == wanted


@contextmanager
def first_run(folder: Path, *arguments: str, until: str, **environment: str) -> Iterator[list[str]]:
    """Start ``./entrypoint.sh`` on a free port, and return its output up to a line that begins with some text."""
    process = subprocess.Popen(  # noqa: S603 - our own
        [ROOT / "entrypoint.sh", *arguments],
        cwd=folder,
        env=BARE | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    limit = threading.Timer(LIMIT_S, process.kill)
    limit.start()
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith(until):
                break
        else:
            raise AssertionError("".join(lines))
        yield lines
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        assert process.wait(LIMIT_S) == 0
    finally:
        limit.cancel()
        process.kill()
        process.communicate()


@pytest.mark.parametrize("one", ["localhost:0", "BRUNIX_GRPC_TARGET"])
def test_one_variable_is_enough(tmp_path: Path, one: str) -> None:
    """A gateway that is moved is announced and found at its port, and its engine too, without further variables."""
    port = a_port()
    more = {one: f"localhost:{a_port()}"} if one.isupper() else {"BRUNIX_ENGINE_LISTEN": one}
    with first_run(tmp_path, until="brunix is up: ", PROXY_LISTEN=str(port), **more) as lines:
        found = re.match(r"brunix is up: http://127.0.0.1:(\d+) ", lines[-1])
        assert found is not None
        assert int(found[1]) == port
        assert get(port, "/health")[0] == 200


def test_the_first_screen_fits_the_folder(tmp_path: Path) -> None:
    """With --docs, the page's questions and the line to try are questions that these documents answer."""
    notes = tmp_path / "my notes"
    notes.mkdir()
    (notes / "coffee.md").write_text("# Coffee\n\n## Descaling the machine\n\nYou descale it with citric acid.\n")
    port = a_port()
    where = {"PROXY_LISTEN": str(port), "BRUNIX_ENGINE_LISTEN": "localhost:0", "HOME": str(tmp_path)}
    with first_run(tmp_path, "--docs=~/my notes", until="  try:", **where) as lines:
        question = "How does descaling the machine work?"
        assert question in lines[-1]
        assert json.loads(get(port, "/page/questions.json")[1]) == {"questions": [question]}
        command = f"{lines[-1].removeprefix('  try:').strip()} --silent --show-error"
        answered = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)  # noqa: S602 - as printed
        assert "citric" in answered.stdout


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    """A mistyped folder is reported before anything is started."""
    command = [sys.executable, "-m", "brunix_twisted", "run", "--docs", "nots"]
    done = subprocess.run(command, cwd=tmp_path, env=BARE, capture_output=True, text=True, check=False)  # noqa: S603 - our own
    assert (done.returncode, done.stdout) == (2, "")
    assert "argument --docs: 'nots' is not a folder" in done.stderr
