"""The HTTP proxy that gRPC uses on the way to the engine, and where none is used."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from brunix_twisted.engine.proxies import goes_direct, proxy_for
from fake_reactor import LIMIT_S
from isolation import CLEAN
from paths import ROOT
from scripted_engine import ScriptedEngine
from threads import Threads
from twistd import TWISTD, twistd


class Proxy:
    """An HTTP proxy that connects everything to one port of this machine, and remembers what was asked of it."""

    def __init__(self, port: int) -> None:
        self.asked: list[bytes] = []
        self._port = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://user:secret@127.0.0.1:{self._listening.getsockname()[1]}"
        self._threads = Threads()
        self._threads.start(self._serve)

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self._threads.start(self._tunnel, client)

    def _tunnel(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._port)) as engine:
            self.asked.append(client.recv(65536).partition(b"\r\n")[0])
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = self._threads.start(self._carry, engine, client)
            self._carry(client, engine)
            back.join()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._threads.join()


@pytest.fixture
def proxy(engine: ScriptedEngine) -> Iterator[Proxy]:
    proxy = Proxy(engine.port)
    yield proxy
    proxy.close()


def check(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - this environment's own twistd
        [TWISTD, "brunix", "--check"],
        cwd=folder,
        env=CLEAN | {"PROXY_LISTEN": "tcp:0:interface=127.0.0.1"} | environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


# Whether an engine is on this machine does not depend on the variable.
@pytest.mark.parametrize(
    ("variable", "host"),
    [
        *((variable, "localhost") for variable in ("http_proxy", "https_proxy", "grpc_proxy")),
        *(("http_proxy", host) for host in ("127.0.0.1", "dns:///localhost", "ipv4:127.0.0.1")),
    ],
)
def test_not_for_this_machine(tmp_path: Path, engine: ScriptedEngine, proxy: Proxy, variable: str, host: str) -> None:
    """An engine on this machine is reached without the proxy that the environment names."""
    found = check(tmp_path, BRUNIX_GRPC_TARGET=f"{host}:{engine.port}", **{variable: proxy.url})
    assert (found.returncode, found.stderr) == (0, "")
    assert proxy.asked == []
    assert "through" not in found.stdout


def test_the_proxy_in_use_is_named(tmp_path: Path, proxy: Proxy) -> None:
    """``--check`` and the log say which proxy the engine is reached through, and not its password."""
    environment = {"BRUNIX_GRPC_TARGET": "engine.example:50051", "http_proxy": proxy.url}
    where = proxy.url.replace("user:secret@", "")
    found = check(tmp_path, **environment)
    assert found.returncode == 0, found.stdout
    expected = (
        f"  The connection uses the proxy {where} (from http_proxy). To bypass it, add the engine's host to no_proxy."
    )
    assert expected in found.stdout.splitlines()
    assert proxy.asked == [b"CONNECT engine.example:50051 HTTP/1.0"] or b"engine.example:50051" in proxy.asked[0]
    assert "secret" not in found.stdout
    with twistd(tmp_path, PROXY_LISTEN="tcp:0:interface=127.0.0.1", **environment) as process:
        assert process.stdout is not None
        serving = next(line for line in process.stdout if "Serving the model" in line)
        assert f"the engine is at engine.example:50051, through the proxy {where} (from http_proxy)" in serving


def test_the_embedded_engine_evaluates(tmp_path: Path, proxy: Proxy) -> None:
    """The embedded engine asks itself its questions, and not a proxy."""
    documents = tmp_path / "docs"
    documents.mkdir()
    shutil.copy(ROOT / "docs" / "monitoring.md", documents)
    golden = tmp_path / "golden.jsonl"
    golden.write_text('{"question": "What is in the log?", "sources": ["monitoring.md"]}\n')
    done = subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-m", "brunix_twisted.embedded", "--evaluate", "--docs", documents],
        env=CLEAN | {"http_proxy": proxy.url},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert proxy.asked == []


@pytest.mark.parametrize(
    ("target", "direct"),
    [
        ("localhost:1", True),
        ("LOCALHOST", True),
        ("engine.localhost:1", True),
        ("127.1.2.3:1", True),
        ("[::1]:1", True),
        ("ipv6:[::1]:1", True),
        ("dns:localhost:1", True),
        ("dns://10.0.0.1/localhost:1", True),
        ("0.0.0.0:1", True),
        ("unix:///run/engine.sock", True),
        ("unix-abstract:engine", True),
        ("ipv4:10.0.0.1:1,10.0.0.2:1", True),
        ("engine:1", False),
        ("localhost.example:1", False),
        ("10.0.0.1:1", False),
        ("dns:///engine:1", False),
        ("[2001:db8::1]:1", False),
    ],
)
def test_which_targets_go_direct(target: str, direct: bool) -> None:  # noqa: FBT001 - a column of the table
    """A proxy is used for what is elsewhere, and for nothing on this machine."""
    assert goes_direct(target) is direct


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        ({}, None),
        ({"http_proxy": "http://a:1"}, "a:1"),
        ({"http_proxy": "http://a:1", "https_proxy": "http://b:2"}, "b:2"),
        ({"http_proxy": "http://a:1", "grpc_proxy": "http://c"}, "c"),
        ({"http_proxy": "http://a:1", "grpc_proxy": ""}, None),
        ({"HTTP_PROXY": "http://a:1"}, None),
        ({"http_proxy": "https://a:1"}, None),
        ({"http_proxy": "socks5://a:1"}, None),
        ({"http_proxy": "http://a:1", "no_proxy": "engine.example"}, None),
        ({"http_proxy": "http://a:1", "no_proxy": "x, .Example"}, None),
        ({"http_proxy": "http://a:1", "no_proxy": "other,"}, "a:1"),
        ({"http_proxy": "http://a:1", "no_proxy": "example", "no_grpc_proxy": "x"}, "a:1"),
    ],
)
def test_the_rules_of_grpc(environment: dict[str, str], address: str | None) -> None:
    """The proxy that is named is the one that gRPC uses."""
    found = proxy_for("engine.example:50051", environment)
    assert (None if found is None else found.address) == address


def test_networks_are_excepted() -> None:
    """An engine whose network is in no_proxy is reached without a proxy."""
    assert proxy_for("10.1.2.3:1", {"http_proxy": "http://a:1", "no_proxy": "10.0.0.0/8"}) is None
    assert proxy_for("11.1.2.3:1", {"http_proxy": "http://a:1", "no_proxy": "10.0.0.0/8"}) is not None
