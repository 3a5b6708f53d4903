"""
Start four gateways, and run the tests of the real clients against them: all, or the command that is given.

The tests run in environments of their own, in which nothing of this project is installed, and learn from the
environment what to ask:

================  ====================================================================================================
``BRUNIX_URL``    the gateway and the embedded engine, started as ``make run`` starts them
``SCRIPTED_URL``  a gateway before the scripted engine, which does as the question says; it is soon silent too long
``FULL_URL``      a gateway before the same engine, which answers one question at a time and refuses all others
``DOWN_URL``      a gateway before no engine at all
``ENGINE_URL``    tells what the scripted engine saw: ``/TAG`` waits until the call with this tag in its question ended,
                  and ``/go/NAME`` lets every script go on that waits for this name
``CLIENTS_JSON``  a file of what clients are told of the gateway, as :func:`brunix_twisted.connect.clients_json` has it
``DOCUMENTED``    a file to which is added, line by line, which of these texts the tests have used
================  ====================================================================================================

Nothing here is sent beyond this machine: the clients that would are told not to.
"""

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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, cast
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import grpc

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent.parent
sys.path.insert(0, str(HERE.parent / "support"))

from brunix_twisted import connect  # noqa: E402
from brunix_twisted._pb import brunix_pb2  # noqa: E402
from scripted_engine import Asked, ScriptedEngine  # noqa: E402 - found by the line before

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

# What each client wants to be told before it keeps to itself.
QUIET: Final = {
    "CONTINUE_TELEMETRY_ENABLED": "0",
    "CONTINUE_METRICS_ENABLED": "0",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "LANGSMITH_TRACING": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "NO_UPDATE_NOTIFIER": "1",
}

_PYTHON: Final = ROOT / ".venv-clients"
_PYTEST: Final = ["-m", "pytest", "-c", str(HERE / "pytest.ini")]

# Some packages still want the second release of OpenAI's, some already the third, so there are two environments.
SUITES: Final[dict[str, list[str]]] = {
    "openai 2": [
        str(_PYTHON / "openai-2/bin/python"),
        *_PYTEST,
        *(
            str(HERE / f"test_{name}.py")
            for name in ("openai", "responses", "litellm", "litellm_proxy", "llamaindex", "compliance")
        ),
    ],
    "openai 3": [
        str(_PYTHON / "openai-3/bin/python"),
        *_PYTEST,
        *(
            str(HERE / f"test_{name}.py")
            for name in ("openai", "responses", "anthropic", "ollama", "langchain", "llm", "curl")
        ),
    ],
    "node": ["node", "--test", *sorted(map(str, HERE.glob("*.test.mjs")))],
}

_STARTED_WITHIN_S: Final = 30
_ENDED_WITHIN_S: Final = 10


class TaggedEngine(ScriptedEngine):
    """The scripted engine, for clients that wrap the question in words of their own."""

    def _answer(
        self, rpc: str, request: brunix_pb2.AgentRequest, context: grpc.ServicerContext
    ) -> Iterator[brunix_pb2.AgentResponse | bytes]:
        if found := re.search(r"\[.*\]", request.query, re.DOTALL):
            request.query = found[0]
        return super()._answer(rpc, request, context)

    def _obey(
        self,
        order: str,
        value: Any,  # noqa: ANN401 - whatever JSON holds
        asked: Asked,
        context: grpc.ServicerContext,
    ) -> Iterator[brunix_pb2.AgentResponse | bytes]:
        if order == "sleep":
            time.sleep(value)
            return
        if order == "hang":
            asked.ended.wait()
            context.abort(grpc.StatusCode.CANCELLED, "nobody reads it")
        yield from super()._obey(order, value, asked, context)

    def saw(self, tag: str) -> dict[str, object]:
        """Wait for the end of the call whose question holds this tag, and tell of it."""
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
            told = json.dumps({} if order == "go" else engine.saw(name)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def free_port() -> int:
    """Find a port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return cast("int", server.getsockname()[1])


@contextmanager
def started(name: str, command: list[str], log: Path, path: str, **environment: str) -> Iterator[str]:
    """Run a gateway until the tests are over, and show its log if it did not live to see that."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own
            command,
            cwd=log.parent,
            env=CLEAN
            | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
            | {"PROXY_LISTEN": f"tcp:{port}:interface=127.0.0.1"}
            | environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline_s = time.monotonic() + _STARTED_WITHIN_S
        while not answers(url + path):
            if process.poll() is not None or time.monotonic() > deadline_s:
                sys.exit(f"{name} did not start:\n{log.read_text()}")
            time.sleep(0.1)
        yield url
        if process.poll() is not None:
            sys.exit(f"{name} ended during the tests:\n{log.read_text()}")
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def answers(url: str) -> bool:
    """Whether this page is there."""
    try:
        # A proxy that the environment names has no part in it.
        with build_opener(ProxyHandler({})).open(url, timeout=5) as response:
            return bool(response.status == 200)
    except URLError:
        return False


def tested_texts() -> set[str]:
    """Name each text of a client that is said to be tested, by the client's id and the text's language."""
    return {f"{client.id} {text.language}" for client in connect.clients() if client.tested for text in client.snippets}


def main(command: list[str]) -> int:
    """Return 0 when everything passed."""
    # Otherwise SIGTERM would leave the servers behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    twistd = [str(Path(sys.executable).with_name("twistd")), "--nodaemon", "--pidfile=", "brunix"]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        home = folder / "home"
        home.mkdir()

        scripted = TaggedEngine()
        stack.callback(scripted.stop)
        observer = observe(scripted)
        stack.callback(observer.shutdown)
        engine = f"localhost:{free_port()}"
        urls = {
            "ENGINE_URL": f"http://127.0.0.1:{observer.server_port}",
            "BRUNIX_URL": stack.enter_context(
                started(
                    "entrypoint.sh",
                    [str(ROOT / "entrypoint.sh")],
                    folder / "brunix.log",
                    "/health",
                    BRUNIX_ENGINE_LISTEN=engine,
                    BRUNIX_GRPC_TARGET=engine,
                )
            ),
            "SCRIPTED_URL": stack.enter_context(
                started(
                    "the gateway before the scripted engine",
                    twistd,
                    folder / "scripted.log",
                    "/health",
                    BRUNIX_GRPC_TARGET=scripted.target,
                    PROXY_HEARTBEAT_S="0.3",
                    PROXY_DRAIN_S="0",
                )
            ),
            "FULL_URL": stack.enter_context(
                started(
                    "the gateway that is soon full",
                    twistd,
                    folder / "full.log",
                    "/health",
                    BRUNIX_GRPC_TARGET=scripted.target,
                    PROXY_THREAD_WORKERS="1",
                    PROXY_QUEUE_SIZE="0",
                    PROXY_DRAIN_S="0",
                )
            ),
            "DOWN_URL": stack.enter_context(
                started(
                    "the gateway before no engine",
                    twistd,
                    folder / "down.log",
                    "/health/live",
                    BRUNIX_GRPC_TARGET=f"localhost:{free_port()}",
                )
            ),
        }
        (folder / "clients.json").write_bytes(connect.clients_json())
        documented = folder / "documented"
        documented.touch()
        environment = (
            CLEAN
            | QUIET
            | urls
            | {"CLIENTS_JSON": str(folder / "clients.json"), "DOCUMENTED": str(documented)}
            | {"HOME": str(home), "LITELLM_PROXY_BIN": str(ROOT / ".venv-bench-litellm" / "bin")}
        )
        if command:
            return subprocess.run(command, env=environment, check=False).returncode  # noqa: S603 - as asked
        failed = []
        for name, suite in SUITES.items():
            print(f"\n=== clients: {name}", flush=True)  # noqa: T201 - for whoever watches
            if subprocess.run(suite, cwd=HERE, env=environment, check=False).returncode:  # noqa: S603 - our own
                failed.append(name)
        if never := tested_texts() - set(documented.read_text().splitlines()):
            failed.append(f"the texts that no test has used ({', '.join(sorted(never))})")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)  # noqa: T201 - likewise
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
