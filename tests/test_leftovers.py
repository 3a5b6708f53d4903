"""The tests' own guards: what a test starts ends with it, and the machine it runs on does not change its result."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fake_reactor import LIMIT_S
from isolation import BARE, CLEAN, DEFAULT_PORTS, cleaned
from test_tap import free_port
from threads import Threads

HERE = Path(__file__).parent
SLEEP = "[sys.executable, '-c', 'import time; time.sleep(600)']"
PREAMBLE = f"""
import grpc, os, socket, subprocess, sys, threading, time
import pytest
from threads import Threads

SLEEP = {SLEEP}
"""
# What a test has left behind will not end by itself: there is no need to wait for it.
IMPATIENT = "\nimport leftovers\nleftovers.GRACE_S = 0.2\n"


def run(folder: Path, tests: str, *arguments: str, **environment: str) -> tuple[int, str]:
    """Run a file of tests with the guards of the real ones, and return the status and the output."""
    (folder / "conftest.py").write_text((HERE / "conftest.py").read_text("utf-8") + IMPATIENT, "utf-8")
    (folder / "test_inner.py").write_text(PREAMBLE + tests, "utf-8")
    (folder / "pytest.ini").write_text(f"[pytest]\npythonpath = {HERE}\nfilterwarnings = error\n", "utf-8")
    done = subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env=CLEAN | environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("workers", [(), ("-n1",)], ids=["one process", "xdist"])
def test_a_process_that_outlives_its_test(tmp_path: Path, workers: tuple[str, ...]) -> None:
    """A process that a test leaves behind is ended, and the run names the test and the command."""
    status, output = run(
        tmp_path,
        """
@pytest.fixture(scope="module")
def kept():
    with subprocess.Popen(SLEEP) as process:
        yield process
        process.kill()

def test_good(kept):
    assert kept.poll() is None

def test_bad():
    # A daemon has another parent by the end of the test.
    code = f"import subprocess, sys; print(subprocess.Popen({SLEEP}, stdout=2, start_new_session=True).pid)"
    with open("pid", "w") as file:
        subprocess.run([sys.executable, "-c", code], stdout=file, stderr=subprocess.DEVNULL, check=True)

def test_after(kept):
    assert kept.poll() is None
""",
        *workers,
    )
    assert "3 passed, 1 error" in output
    assert status == 1
    assert re.search(r"test_inner.py::test_bad leaves processes behind:\n\S*\s*\d+ .*time.sleep\(600\)", output), output
    pid = int((tmp_path / "pid").read_text("ascii"))
    assert not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_process_without_the_environment(tmp_path: Path) -> None:
    """A process is found although it was started with another environment, and one of a fixture is named too."""
    status, output = run(
        tmp_path,
        """
@pytest.fixture(scope="session")
def careless():
    return subprocess.Popen(["sleep", "600"], env={"PATH": os.environ["PATH"]})

def test_bad(careless):
    pass
""",
    )
    assert status == 1
    assert re.search(r"test_inner.py::test_bad leaves processes behind:\n\d+ sleep 600", output), output


def test_a_thread_that_outlives_its_test(tmp_path: Path) -> None:
    """A thread that a test leaves running fails this test, and not the next one that happens to run."""
    status, output = run(
        tmp_path,
        """
def test_good():
    thread = threading.Thread(target=len, args=("",))
    thread.start()

def test_bad():
    threading.Thread(target=time.sleep, args=(5,), daemon=True).start()

def test_after():
    pass
""",
    )
    assert "3 passed, 1 error" in output
    assert status == 1
    assert re.search(r"test_inner.py::test_bad leaves the thread .* behind, .*started at \S*test_inner.py:\d+", output)


def test_an_error_in_a_helper_thread() -> None:
    """What goes wrong in a helper thread fails the test that started it, also where the test itself found nothing."""

    def fail() -> None:
        raise BrokenPipeError("as a client hung up")

    with pytest.raises(BrokenPipeError, match="hung up"), Threads() as threads:
        threads.start(fail)
    with pytest.raises(ValueError, match="more important") as caught, Threads() as threads:  # noqa: PT012 - the block is what is tested
        threads.start(fail)
        raise ValueError("more important")
    assert caught.value.__notes__ == ["A helper thread also failed: BrokenPipeError('as a client hung up')"]


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ("socket.create_connection(('127.0.0.1', PORT))", "socket.connect 127.0.0.1:PORT"),
        ("socket.create_server(('127.0.0.1', PORT))", "socket.bind 127.0.0.1:PORT"),
        ("grpc.insecure_channel('localhost:PORT')", "gRPC channel to localhost:PORT"),
    ],
)
def test_a_default_port(tmp_path: Path, how: str, what: str) -> None:
    """A test that uses a default port fails on every machine, and not only where something else uses it."""
    port = str(min(DEFAULT_PORTS))
    status, output = run(
        tmp_path,
        f"""
def test_bad():
    try:
        {how.replace("PORT", port)}
    except Exception:
        pass
""",
    )
    assert status == 1
    assert f"A test must not use a default port: {what.replace('PORT', port)}" in output
    assert "test_inner.py::test_bad uses a default port" in output


def test_the_environment(tmp_path: Path) -> None:
    """What somebody has set on their machine reaches neither the tests nor what they start."""
    outer = {
        "http_proxy": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1", "PROXY_LISTEN": "tcp:8000",
        "BRUNIX_GRPC_TARGET": "localhost:50051", "OTEL_SERVICE_NAME": "other", "NOTIFY_SOCKET": "/run/notify",
        "LISTEN_FDS": "1", "LC_ALL": "de_DE.UTF-8", "LANGUAGE": "de", "TERM": "dumb", "CI": "1", "PYTHONPATH": "/other",
        "OPENAI_API_KEY": "key", "GRPC_VERBOSITY": "DEBUG", "MAKEFLAGS": "-j", "XDG_CONFIG_HOME": "/other",
    }  # fmt: skip
    assert cleaned(outer) == {"LANG": "C.UTF-8"}
    assert not set(outer) - {"BRUNIX_GRPC_TARGET", "PROXY_LISTEN"} & set(CLEAN)
    assert not set(outer) & set(BARE)
    assert not set(outer) - {"GRPC_VERBOSITY"} & set(os.environ)
    status, output = run(
        tmp_path,
        f"""
def test_inside():
    child = subprocess.run(["env"], capture_output=True, text=True, check=True).stdout
    for name in {sorted(set(outer) - {"GRPC_VERBOSITY", "PYTHONPATH"})}:
        assert name not in os.environ
        assert f"\\n{{name}}=" not in "\\n" + child
    assert os.listdir(os.environ["HOME"]) == []
    assert os.umask(0o022) == 0o022
""",
        **{name: text for name, text in outer.items() if name != "PYTHONPATH"},
    )
    assert status == 0, output
    assert re.search("1 passed", output)


def test_grpc_writes_nothing_between_the_results(tmp_path: Path) -> None:
    """Lines of gRPC's own stand between the names of failed tests, and look like a part of them."""
    status, output = run(
        tmp_path,
        f"""
def test_nobody_listens():
    with grpc.insecure_channel("127.0.0.1:{free_port()}", [("grpc.enable_http_proxy", 0)]) as channel:
        call = channel.unary_unary("/a/b")
        with pytest.raises(grpc.RpcError):
            call(b"", timeout=20)
    # As the gateway's TLS settings are when they are wrong: gRPC logs an error.
    credentials = grpc.ssl_channel_credentials(b"no certificate")
    with grpc.secure_channel("127.0.0.1:{free_port()}", credentials) as channel:
        with pytest.raises(grpc.RpcError):
            channel.unary_unary("/a/b")(b"", timeout=20)
""",
        "-s",
        GRPC_VERBOSITY="INFO",
    )
    assert status == 0, output
    assert not re.search(r"^[IWE]\d{{4}} |ssl_|\.cc:", output, re.MULTILINE), output
