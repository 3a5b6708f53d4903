"""
How many conversations keep their session: `python benchmarks/conversations.py [--conversations 50] [--pairs 1000]`.

The clients send only messages, and open a new connection for each turn. The gateways are processes, started as
`twistd brunix` with a scripted engine; Redis, if it is installed, is a process too. Every row is one deployment.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from http import HTTPStatus
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

import attrs

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from scripted_engine import ScriptedEngine
from several_processes import Supervised, supervised
from twistd import free_port

SECRET = 32 * "ab"
APIS = ("/v1/chat/completions", "/v1/responses", "/v1/messages", "/api/chat")


@attrs.define
class Conversation:
    """A client's conversation."""

    path: str
    messages: list[dict[str, str]] = attrs.Factory(list)
    sessions: list[str] = attrs.Factory(list)
    response_id: str = ""

    def ask(self, port: int, question: str, *, by_id: bool = False) -> None:
        """Ask on a new connection; with ``by_id``, name the previous response instead of sending the conversation."""
        message = {"role": "user", "content": question}
        self.messages.append(message)
        body: dict[str, Any] = {"model": "brunix", "stream": False, "max_tokens": 1000}
        body["input" if self.path == "/v1/responses" else "messages"] = [message] if by_id else self.messages
        if by_id:
            body["previous_response_id"] = self.response_id
        status, headers, answer = post(port, self.path, body)
        if status != HTTPStatus.OK:
            self.sessions.append(f"status {status}")
            return
        self.response_id = answer.get("id", "")
        self.messages.append({"role": "assistant", "content": text_of(self.path, answer)})
        self.sessions.append(headers["X-Session-Id"])

    @property
    def is_kept(self) -> bool:
        """Whether all turns were in one session."""
        return len(set(self.sessions)) == 1


def post(port: int, path: str, body: object) -> tuple[int, Any, Any]:
    """Send a request on a new connection."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", path, json.dumps(body), {"Connection": "close"})
        response = connection.getresponse()
        return response.status, response.headers, json.loads(response.read())
    finally:
        connection.close()


def text_of(path: str, answer: Any) -> str:  # noqa: ANN401 - whatever JSON holds
    """Return the text of a whole answer."""
    if path == "/v1/responses":
        return str(answer["output"][0]["content"][0]["text"])
    if path == "/v1/messages":
        return str(answer["content"][0]["text"])
    return str(answer["message"]["content"] if path == "/api/chat" else answer["choices"][0]["message"]["content"])


@attrs.define
class Deployment:
    """Gateways with one state."""

    folder: Path
    engine: ScriptedEngine
    variables: dict[str, str]
    stack: ExitStack
    gateways: list[Supervised] = attrs.Factory(list)
    warnings: list[str] = attrs.Factory(list)
    """What the gateways have logged about their state."""

    def start(self, port: int = 0) -> None:
        """Start a gateway."""
        number = next(_numbers)
        folder = self.folder / str(number)
        folder.mkdir()
        listen = f"tcp:{port}:interface=127.0.0.1"
        gateway = self.stack.enter_context(
            supervised(folder, BRUNIX_GRPC_TARGET=self.engine.target, **self.variables | {"PROXY_LISTEN": listen})
        )
        gateway.port = int(gateway.until(r"Serving the model .* port=(\d+)")[1])
        threading.Thread(target=self._read, args=[gateway], daemon=True).start()
        self.gateways.append(gateway)

    def _read(self, gateway: Supervised) -> None:
        self.warnings += [line for line in gateway.process.stdout or () if "state" in line and "#warn" in line]

    def restart(self) -> None:
        """Stop every gateway, and start as many."""
        old, self.gateways = self.gateways, []
        for gateway in old:
            gateway.stop()
        for gateway in old:
            self.start(gateway.port)


_numbers = count()


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Start a Redis server, and yield its URL."""
    port = free_port()
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    assert program is not None
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    process = Popen(command, stdout=DEVNULL)
    try:
        while True:
            try:
                HTTPConnection("127.0.0.1", port).connect()
                break
            except OSError:
                time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def talk(deployment: Deployment, number: int, conversation: Conversation, turns: range, *, by_id: bool = False) -> None:
    """Ask some questions, each at the next gateway."""
    for turn in turns:
        gateway = deployment.gateways[(number + turn) % len(deployment.gateways)]
        conversation.ask(gateway.port, f"question {number} {turn}", by_id=by_id and turn > 0)


def kept(
    deployment: Deployment, conversations: int, *, restart: bool = False, by_id: bool = False
) -> tuple[int, int, list[str]]:
    """Have conversations of three turns, twenty at a time; return how many were kept, of how many."""
    apis = ("/v1/responses",) if by_id else APIS
    all_of_them = [Conversation(apis[number % len(apis)]) for number in range(conversations)]
    with ThreadPoolExecutor(20) as pool:
        for turns in (range(1), range(1, 3)) if restart else (range(3),):
            if turns.start:
                deployment.restart()
            asked = partial(talk, deployment, turns=turns, by_id=by_id)
            list(pool.map(asked, range(conversations), all_of_them))
    failed = [session for one in all_of_them for session in one.sessions if session.startswith("status")]
    return sum(one.is_kept for one in all_of_them), conversations, failed


def pairs(deployment: Deployment, count_of_pairs: int) -> tuple[int, int, list[str]]:
    """Have pairs of equal conversations at the same time; return how many turns share no session with another."""
    conversations = [Conversation(APIS[0]) for _ in range(2 * count_of_pairs)]

    def pair(number: int) -> None:
        both = conversations[2 * number : 2 * number + 2]
        for turn in range(3):
            asking = [
                threading.Thread(
                    target=one.ask, args=(deployment.gateways[(turn + place) % 2].port, f"question {number} {turn}")
                )
                for place, one in enumerate(both)
            ]
            for thread in asking:
                thread.start()
            for thread in asking:
                thread.join()

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(pair, range(count_of_pairs)))
    shared = 0
    for turn in range(3):
        uses = Counter(one.sessions[turn] for one in conversations)
        shared += sum(uses[one.sessions[turn]] > 1 for one in conversations)
    failed = [session for one in conversations for session in one.sessions if session.startswith("status")]
    return 6 * count_of_pairs - shared, 6 * count_of_pairs, failed


def main() -> None:
    """Run every deployment, and print a table."""
    parser = argparse.ArgumentParser(description="How many conversations keep their session.")
    parser.add_argument("--conversations", type=int, default=50)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--only", default="", help="rows that contain this text")
    arguments = parser.parse_args()
    has_redis = bool(shutil.which("redis-server") or shutil.which("valkey-server"))
    number = arguments.conversations
    simply: Callable[[Deployment], tuple[int, int, list[str]]] = lambda given: kept(given, number)  # noqa: E731 - a row
    rows: list[tuple[str, dict[str, str], int, Callable[[Deployment], tuple[int, int, list[str]]]]] = [
        ("one process", {"PROXY_PROCESSES": "1"}, 1, simply),
        ("two processes", {"PROXY_PROCESSES": "2"}, 1, simply),
        ("four processes", {"PROXY_PROCESSES": "4"}, 1, simply),
        ("four processes, previous_response_id", {"PROXY_PROCESSES": "4"}, 1, lambda d: kept(d, number, by_id=True)),
    ]
    for state in ("sqlite", "redis"):
        if state == "redis" and not has_redis:
            print("redis-server is missing: apt-get install redis-server")
            continue
        one = {"PROXY_PROCESSES": "1", "PROXY_STATE": state}
        rows += [
            (f"restart, {state}", one, 1, lambda d: kept(d, number, restart=True)),
            (f"restart, {state}, previous_response_id", one, 1, lambda d: kept(d, number, restart=True, by_id=True)),
            (f"two gateways, {state}", one, 2, simply),
            (f"two gateways, {state}, exact", one | {"PROXY_SESSION_MATCH": "exact"}, 2, simply),
            (f"two gateways, {state}, previous_response_id", one, 2, lambda d: kept(d, number, by_id=True)),
            (
                f"turns of {arguments.pairs} pairs not shared, two gateways, {state}",
                one,
                2,
                lambda d: pairs(d, arguments.pairs),
            ),
        ]
    print(f"{'deployment':62} kept")
    for name, variables, gateways, run in rows:
        if arguments.only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            path = Path(folder)
            kind = variables.get("PROXY_STATE")
            given = dict(variables)
            if kind == "sqlite":
                given["PROXY_STATE"] = f"sqlite:{path / 'state.sqlite'}"
            elif kind == "redis":
                given |= {"PROXY_STATE": stack.enter_context(redis_server(path)), "PROXY_STATE_SECRET": SECRET}
            engine = ScriptedEngine()
            stack.callback(engine.stop)
            deployment = Deployment(path, engine, given, stack)
            for _ in range(gateways):
                deployment.start()
            began_s = time.perf_counter()
            whole, of, failed = run(deployment)
            took_s = time.perf_counter() - began_s
            print(f"{name:62} {whole}/{of}{f', {Counter(failed)}' if failed else ''}  ({took_s:.1f} s)", flush=True)
            print("".join(f"  {line}" for line in deployment.warnings), end="")


if __name__ == "__main__":
    main()
