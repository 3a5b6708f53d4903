"""Start the gateways and the scripted engine that the tests of the clients and of the page use."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Self, cast
from urllib.request import ProxyHandler, build_opener

import attrs
import grpc

from brunix_twisted._pb import brunix_pb2
from scripted_engine import Asked, ScriptedEngine

ROOT: Final = Path(__file__).resolve().parent.parent.parent
TWISTD: Final = str(Path(sys.executable).with_name("twistd"))
GATEWAY: Final = (TWISTD, "--nodaemon", "--pidfile=", "brunix")

CLEAN: Final = {
    name: text
    for name, text in os.environ.items()
    if not name.startswith(
        (
            *("PROXY_", "BRUNIX_", "OPENAI_", "OLLAMA_", "ANTHROPIC_", "CLAUDE", "CODEX_", "LITELLM_"),
            *("PYTEST_", "OTEL_", "GRPC_", "NOTIFY_SOCKET", "LISTEN_"),
        )
    )
    and not name.lower().endswith("_proxy")
    and name != "VIRTUAL_ENV"
}

_STARTED_WITHIN_S: Final = 60
_ENDED_WITHIN_S: Final = 10
_STOPPED_WITHIN_S: Final = 60


class TaggedEngine(ScriptedEngine):
    """The scripted engine, for clients that add text around the question."""

    def _answer(
        self, rpc: str, request: brunix_pb2.AgentRequest, context: grpc.ServicerContext
    ) -> Iterator[brunix_pb2.AgentResponse | bytes]:
        if found := re.search(r"\[.*\]", request.query, re.DOTALL):
            request.query = found[0]
        return super()._answer(rpc, request, context)

    def _obey(
        self,
        order: str,
        value: Any,  # noqa: ANN401 - any JSON value
        asked: Asked,
        context: grpc.ServicerContext,
    ) -> Iterator[brunix_pb2.AgentResponse | bytes]:
        if order == "sleep":
            time.sleep(value)
            return
        if order == "hang":
            asked.ended.wait()
            context.abort(grpc.StatusCode.CANCELLED, "the call has ended")
        yield from super()._obey(order, value, asked, context)

    def saw(self, tag: str) -> dict[str, object]:
        """Wait for the end of the call with this tag in its question; return how it ended."""
        deadline_s = time.monotonic() + _ENDED_WITHIN_S
        while time.monotonic() < deadline_s:
            if calls := [call for call in self.calls if tag in call.request.query]:
                ended = calls[-1].ended.wait(deadline_s - time.monotonic())
                return {"calls": len(calls), "ended": ended, "finished": calls[-1].finished.is_set()}
            time.sleep(0.02)
        return {"calls": 0, "ended": False, "finished": False}


def observe(engine: TaggedEngine) -> ThreadingHTTPServer:
    """Serve what the engine saw, on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            order, _, name = self.path.removeprefix("/").rpartition("/")
            if order == "go":
                engine.go(name)
            body = json.dumps({} if order == "go" else engine.saw(name)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def free_ports(count: int) -> list[int]:
    """Return different ports that are free now."""
    with ExitStack() as sockets:
        servers = [sockets.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [cast("int", server.getsockname()[1]) for server in servers]


def closed_port(stack: ExitStack) -> int:
    """Reserve a port that refuses connections."""
    reserved = stack.enter_context(socket.socket())
    reserved.bind(("127.0.0.1", 0))
    return cast("int", reserved.getsockname()[1])


@attrs.frozen
class Gateway:
    """A gateway to start: its settings, its command, and the path that answers when it is ready."""

    settings: Mapping[str, str]
    command: tuple[str, ...] = GATEWAY
    path: str = "/health"


def with_embedded_engine(**settings: str) -> Gateway:
    """Return the gateway with the embedded engine, as ``make run`` starts them."""
    return Gateway({"BRUNIX_ENGINE_LISTEN": "localhost:0"} | settings, (str(ROOT / "entrypoint.sh"),))


def without_engine(stack: ExitStack) -> Gateway:
    """Return a gateway whose engine's port refuses connections."""
    return Gateway({"BRUNIX_GRPC_TARGET": f"127.0.0.1:{closed_port(stack)}"}, path="/health/live")


def start(stack: ExitStack, folder: Path, gateways: Mapping[str, Gateway]) -> dict[str, str]:
    """Start gateways at the same time and wait until all answer; return their URLs. The stack stops them."""
    started = {
        name: stack.enter_context(_Process(name, gateway, port, folder))
        for (name, gateway), port in zip(gateways.items(), free_ports(len(gateways)), strict=True)
    }
    for process in started.values():
        process.wait()
    return {name: process.url for name, process in started.items()}


class _Process:
    """A running gateway. If it ends before its context, the tests exit with its log."""

    def __init__(self, name: str, gateway: Gateway, port: int, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._name = name
        self._path = gateway.path
        self._log = folder / f"{name}.log"
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own
                gateway.command,
                cwd=folder,
                env=CLEAN
                | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
                | {"PROXY_LISTEN": f"tcp:{port}:interface=127.0.0.1"}
                | gateway.settings,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        has_failed = self._process.poll() is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        if has_failed:
            self._exit("ended during the tests")

    def wait(self) -> None:
        """Wait until it answers."""
        deadline_s = time.monotonic() + _STARTED_WITHIN_S
        while not _answers(self.url + self._path):
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                self._exit("did not start")
            time.sleep(0.1)

    def _exit(self, reason: str) -> None:
        sys.exit(f"the gateway {self._name} {reason}:\n{self._log.read_text()}")


def _answers(url: str) -> bool:
    """Return whether a URL answers with status 200."""
    try:
        # Do not use a proxy from the environment.
        with build_opener(ProxyHandler({})).open(url, timeout=5) as response:
            return bool(response.status == 200)
    except (OSError, HTTPException):
        return False
