"""The tests' own guards: what a test starts ends with it, and the machine it runs on does not change its result."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from fake_reactor import LIMIT_S
from isolation import BARE, CLEAN, DEFAULT_PORTS, cleaned
from paths import TESTS
from threads import Threads
from twistd import free_port

HERE: Final = TESTS
OUTER: Final = {
    "http_proxy": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1", "PROXY_LISTEN": "tcp:8000",
    "BRUNIX_GRPC_TARGET": "localhost:50051", "OTEL_SERVICE_NAME": "other", "NOTIFY_SOCKET": "/run/notify",
    "LISTEN_FDS": "1", "LC_ALL": "C", "LANGUAGE": "de", "TERM": "dumb", "CI": "1", "OPENAI_API_KEY": "key",
    "GRPC_TRACE": "api", "MAKEFLAGS": "-j", "XDG_CONFIG_HOME": "/other",
}  # fmt: skip
PREAMBLE: Final = f"""
import contextlib, grpc, isolation, os, socket, subprocess, sys, threading, time
import pytest

PORT = {min(DEFAULT_PORTS)}
OUTER = {sorted(OUTER)}
NOBODY = "127.0.0.1:{free_port()}"
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
"""
# What these tests leave behind does not end by itself: there is no need to wait for it.
IMPATIENT: Final = "\nimport leftovers\nleftovers.GRACE_S = 0.2\n"

BAD: Final = """
@pytest.fixture(scope="module")
def kept():
    with subprocess.Popen(SLEEP) as process:
        yield process
        process.kill()

@pytest.fixture(scope="session")
def careless():
    process = subprocess.Popen(["sleep", "600"], env={"PATH": os.environ["PATH"]})
    yield
    # Not to be reported a second time, by Popen.
    process.returncode = 0

def test_kept(kept):
    assert kept.poll() is None

def test_daemon():
    code = f"import subprocess; print(subprocess.Popen({SLEEP}, stdout=2, start_new_session=True).pid)"
    with open("pid", "w") as file:
        subprocess.run([sys.executable, "-c", code], stdout=file, stderr=subprocess.DEVNULL, check=True)

def test_ended_thread():
    threading.Thread(target=len, args=("",)).start()

def test_thread():
    threading.Thread(target=time.sleep, args=(5,), daemon=True).start()

def test_connect():
    with socket.socket() as connection, contextlib.suppress(Exception):
        connection.connect(("127.0.0.1", PORT))

def test_bind():
    with socket.socket() as server, contextlib.suppress(Exception):
        server.bind(("127.0.0.1", PORT))

def test_channel():
    with contextlib.suppress(Exception):
        grpc.insecure_channel(f"localhost:{PORT}")

def test_still_kept(kept, careless):
    assert kept.poll() is None
"""

GOOD: Final = """
@contextlib.contextmanager
def here():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]

@contextlib.contextmanager
def in_a_child():
    code = "import socket; s = socket.create_server(('', 0)); print(s.getsockname()[1], flush=True); input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield int(process.stdout.readline())

@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who listens")
@pytest.mark.parametrize("listening", [here, in_a_child])
def test_the_kernel_gave_it(monkeypatch, listening):
    with listening() as port:
        monkeypatch.setattr(isolation, "DEFAULT_PORTS", {port})
        socket.create_connection(("127.0.0.1", port)).close()
        grpc.insecure_channel(f"localhost:{port}").close()

def test_environment():
    child = "\\n" + subprocess.run(["env"], capture_output=True, text=True, check=True).stdout
    for name in OUTER:
        assert name not in os.environ
        assert f"\\n{name}=" not in child
    assert os.listdir(os.environ["HOME"]) == []
    assert os.umask(0o022) == 0o022

def test_grpc():
    # gRPC logs an error about the certificate.
    credentials = grpc.ssl_channel_credentials(b"no certificate")
    with grpc.secure_channel(NOBODY, credentials) as channel, pytest.raises(grpc.RpcError):
        channel.unary_unary("/a/b")(b"", timeout=20)
"""


def run(folder: Path, tests: str, *arguments: str) -> tuple[int, str]:
    """Run a file of tests with the guards of the real ones, and return the status and the output."""
    (folder / "conftest.py").write_text((HERE / "conftest.py").read_text("utf-8") + IMPATIENT, "utf-8")
    (folder / "test_inner.py").write_text(PREAMBLE + tests, "utf-8")
    (folder / "pytest.ini").write_text(f"[pytest]\npythonpath = {HERE / 'support'}\nfilterwarnings = error\n", "utf-8")
    done = subprocess.run(  # noqa: S603 - this interpreter
        ["sh", "-c", 'umask 077; exec "$@"', "-", sys.executable, "-m", "pytest", "-q", *arguments],  # noqa: S607 - POSIX
        cwd=folder,
        # The options of the run that this test belongs to are not for the run that it starts.
        env=CLEAN | OUTER | {"PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def bad_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Run the bad tests, in a worker of xdist, and return their folder and the output."""
    folder = tmp_path_factory.mktemp("bad")
    status, output = run(folder, BAD, "-n1")
    assert status == 1
    return folder, output


def test_only_the_bad_ones_fail(bad_run: tuple[Path, str]) -> None:
    """A test that ends what it starts passes, and so does one that shares a process with others."""
    names = re.findall(r"^ERROR test_inner.py::test_(\w+) ", bad_run[1], re.MULTILINE)
    assert sorted(names) == ["bind", "channel", "connect", "daemon", "still_kept", "thread"], bad_run[1]
    assert "8 passed, 6 errors" in bad_run[1]


def test_a_process_that_outlives_its_test(bad_run: tuple[Path, str]) -> None:
    """A process that a test leaves behind is ended, also a daemon, and the run names the test and the command."""
    folder, output = bad_run
    pid = (folder / "pid").read_text("ascii").strip()
    assert re.search(rf"::test_daemon leaves processes behind:\n{pid} .*time.sleep\(600\)", output), output
    stat = Path(f"/proc/{pid}/stat")
    assert not stat.exists() or stat.read_text("ascii").rpartition(")")[2].split()[0] == "Z"


def test_a_process_of_a_fixture_without_the_environment(bad_run: tuple[Path, str]) -> None:
    """A process is found although it was started with another environment, and by a fixture for many tests."""
    assert re.search(r"::test_still_kept leaves processes behind:\n\d+ sleep 600", bad_run[1]), bad_run[1]


def test_a_thread_that_outlives_its_test(bad_run: tuple[Path, str]) -> None:
    """A thread that a test leaves running fails this test, and not the next one that happens to run."""
    assert re.search(r"::test_thread leaves the thread .* started at \S*test_inner.py:\d+", bad_run[1]), bad_run[1]


@pytest.mark.parametrize(
    ("test", "what"),
    [
        ("connect", "socket.connect 127.0.0.1:PORT"),
        ("bind", "socket.bind 127.0.0.1:PORT"),
        ("channel", "gRPC channel to localhost:PORT"),
    ],
)
def test_a_default_port(bad_run: tuple[Path, str], test: str, what: str) -> None:
    """A test that uses a default port fails on every machine, and not only where something else uses it."""
    message = f"A test must not use a default port: {what.replace('PORT', str(min(DEFAULT_PORTS)))}"
    assert f"::test_{test} uses a default port:\n{message}" in bad_run[1]


def test_the_machine_has_no_influence(tmp_path: Path) -> None:
    """Somebody's settings, umask or home do not reach a test, nor do lines of gRPC's own stand between the results."""
    assert cleaned(OUTER) == {"LANG": "C.UTF-8"}
    for environment in (os.environ, BARE):
        assert not set(OUTER) & set(environment)
    status, output = run(tmp_path, GOOD, "-s")
    assert status == 0, output
    assert re.match(r"\.{4}\n4 passed in ", output), output


def test_an_error_in_a_helper_thread() -> None:
    """What goes wrong in a helper thread fails the test that started it, also where the test itself found nothing."""

    def fail() -> None:
        raise BrokenPipeError("the client hung up")

    with pytest.raises(BrokenPipeError, match="hung up"), Threads() as threads:
        threads.start(fail)
    with pytest.raises(ValueError, match="more important") as caught, Threads() as threads:  # noqa: PT012 - the block is tested
        threads.start(fail)
        raise ValueError("more important")
    assert caught.value.__notes__ == ["A helper thread also failed: BrokenPipeError('the client hung up')"]
