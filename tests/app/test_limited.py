"""A gateway that gets no more threads or memory: what it cannot answer fails visibly, and no worker is lost."""

from __future__ import annotations

import json
import signal
import time
from contextlib import ExitStack, closing
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Final

import attrs
import pytest

from endpoints import CHAT, CHATS, PATHS, asking, error_in, streamed, whole_text
from fake_reactor import LIMIT_S
from limited import LimitedGateway, limited_gateway
from scripted_engine import ScriptedEngine, script
from supervised import ask

WORKERS: Final = 4
LETTERS: Final = 60 << 20
"""Of a long answer."""


def begin(port: int, path: str, body: dict[str, object]) -> tuple[HTTPConnection, HTTPResponse]:
    """Ask, and return once the headers of the answer are there."""
    connection = HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    return connection, connection.getresponse()


@attrs.frozen
class Received:
    """What came of a question."""

    status: int
    body: bytes
    broken: bool
    """Whether the connection ended before the answer did."""


def receive(port: int, path: str, body: dict[str, object]) -> Received:
    """Ask, and read all that comes."""
    connection, response = begin(port, path, body)
    received, broken = bytearray(), False
    with closing(connection):
        try:
            while piece := response.read1(1 << 16):
                received += piece
            broken = bool(response.length)
        except (ConnectionError, HTTPException):
            broken = True
    return Received(response.status, bytes(received), broken)


def health(port: int) -> tuple[int, str]:
    """Ask for the gateway's health."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)) as connection:
        connection.request("GET", "/health")
        response = connection.getresponse()
        return response.status, json.loads(response.read()).get("status", "")


def hold_as_before(gateway: LimitedGateway, engine: ScriptedEngine) -> None:
    """Assert that the gateway is well: every worker can be had at once, and it ends when it is asked to."""
    assert gateway.process.poll() is None
    # What it found out last is told for a moment longer.
    give_up_s = time.monotonic() + LIMIT_S
    while (told := health(gateway.port)) != (200, "ok"):
        assert time.monotonic() < give_up_s, told
    together = asking(CHAT, script("one ", {"wait": "together"}, "two "))
    with ExitStack() as stack:
        responses = []
        for _ in range(WORKERS):
            connection, response = begin(gateway.port, CHAT, together)
            stack.callback(connection.close)
            responses.append(response)
        # None may wait, so each has a worker of its own now.
        assert [response.status for response in responses] == [200] * WORKERS
        engine.go("together")
        answers = [streamed(CHAT, response.read()) for response in responses]
    assert [(answer.text, answer.complete) for answer in answers] == [("one two ", True)] * WORKERS
    gateway.process.terminate()
    assert gateway.process.wait(LIMIT_S) == -signal.SIGTERM


def settings(engine: ScriptedEngine) -> dict[str, str]:
    return {
        "BRUNIX_GRPC_TARGET": engine.target,
        "PROXY_THREAD_WORKERS": str(WORKERS),
        "PROXY_QUEUE_SIZE": "0",
        "PROXY_DRAIN_S": "1",
        # Without them the headers of a stream come with its first text.
        "PROXY_HEARTBEAT_S": "0",
        "PROXY_MAX_ANSWER_BYTES": str(LETTERS),
    }


def test_no_thread_can_be_started(tmp_path: Path, engine: ScriptedEngine) -> None:
    """At a pids limit each answer without a thread is an error, and afterwards every worker is free again."""
    with limited_gateway(tmp_path, **settings(engine)) as gateway:
        # The one thread that there is from now on is busy.
        under_way, response = begin(gateway.port, CHAT, asking(CHAT, script("one ", {"wait": "lifted"}, "two ")))
        gateway.refuse_threads()
        for path in PATHS:
            for stream in (True, False):
                refused = receive(gateway.port, path, asking(path, "refused", stream=stream))
                assert (refused.status >= 500, refused.broken) == (True, False), refused
                assert error_in(path, json.loads(refused.body))
        # Whether the engine is well cannot be found out without a thread; that is no reason not to answer.
        status, _ = health(gateway.port)
        assert status in {200, 503}
        gateway.allow_threads()
        engine.go("lifted")
        answer = streamed(CHAT, response.read())
        under_way.close()
        assert (answer.text, answer.complete) == ("one two ", True)
        hold_as_before(gateway, engine)
    # What was refused is not asked later on by a thread that has become free.
    assert "refused" not in [call.request.query for call in engine.calls]


@pytest.mark.parametrize(
    ("path", "further_mib", "stream"),
    # So much that the engine's message can be received, and not enough for all that is made of it.
    [*((path, 160, True) for path in CHATS), (CHAT, 200, False)],
)
def test_no_memory_is_left(
    tmp_path: Path, engine: ScriptedEngine, path: str, further_mib: int, *, stream: bool
) -> None:
    """At a memory limit a long answer arrives whole or fails visibly: it is never cut and called complete."""
    with limited_gateway(tmp_path, **settings(engine)) as gateway:
        assert ask(gateway.port) == "answered"
        gateway.limit_memory(further_mib << 20)
        received = receive(gateway.port, path, asking(path, script({"letters": LETTERS}), stream=stream))
        gateway.allow_memory()
        if not received.broken:
            if received.status != 200:
                assert error_in(path, json.loads(received.body))
            elif stream:
                answer = streamed(path, received.body)
                assert answer.error or (answer.complete, len(answer.text)) == (True, LETTERS), len(answer.text)
            else:
                assert len(whole_text(path, json.loads(received.body))) == LETTERS
        hold_as_before(gateway, engine)
