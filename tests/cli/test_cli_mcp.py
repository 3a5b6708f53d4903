"""``brunix mcp`` as an agent uses it: a process with a pipe in each direction."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from cli_commands import COMMAND, brunix
from cli_gateways import Gateway
from fake_reactor import LIMIT_S
from isolation import CLEAN, NOBODY
from scripted_engine import ScriptedEngine, script

MODERN: Final = "2026-07-28"
META: Final = "io.modelcontextprotocol/"
ENVELOPE: Final = {f"{META}protocolVersion": MODERN, f"{META}clientCapabilities": {}}

Json = dict[str, Any]


class Agent:
    """The agent's side of the pipes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def say(self, message: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write((message if isinstance(message, str) else json.dumps(message)) + "\n")
        self.process.stdin.flush()

    def read(self) -> Json:
        assert self.process.stdout is not None
        message: Json = json.loads(self.process.stdout.readline())
        return message


@contextmanager
def agent(url: str) -> Iterator[Agent]:
    pipe = subprocess.PIPE
    with subprocess.Popen(  # noqa: S603 - this interpreter
        [*COMMAND, "mcp", "--url", url], env=CLEAN, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            yield Agent(process)
            _, errors = process.communicate(timeout=LIMIT_S)
            assert (process.returncode, errors) == (0, "")
        finally:
            process.kill()


def call(identifier: int, question: str, **meta: Any) -> Json:  # noqa: ANN401 - JSON
    params = {"name": "ask", "arguments": {"question": question}, "_meta": ENVELOPE | meta}
    return {"jsonrpc": "2.0", "id": identifier, "method": "tools/call", "params": params}


def test_an_older_agent_completes_its_handshake(served: Gateway) -> None:
    """The handshake, a notification, a call and the end of the input work, and nothing else is written."""
    with agent(served.url) as ours:
        params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        ours.say({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params})
        assert ours.read()["result"]["protocolVersion"] == "2025-06-18"
        ours.say({"jsonrpc": "2.0", "method": "notifications/initialized"})
        params = {"name": "ask", "arguments": {"question": "a b"}}
        ours.say({"jsonrpc": "2.0", "id": "two", "method": "tools/call", "params": params})
        answered = ours.read()
        assert answered["id"] == "two"
        assert answered["result"]["structuredContent"]["answer"] == "a b "


def test_an_agent_without_a_handshake_receives_progress_and_the_answer(served: Gateway) -> None:
    """A message of the newest version gets the headers that it needs."""
    with agent(served.url) as ours:
        ours.say(call(1, "é", progressToken="t"))
        assert ours.read()["method"] == "notifications/progress"
        assert ours.read()["result"]["resultType"] == "complete"


def test_a_slow_answer_delays_no_other_and_can_be_cancelled(served: Gateway, shared_engine: ScriptedEngine) -> None:
    """A call that hangs does not block the next; cancelling it cancels the engine call, and it gets no response."""
    number = len(shared_engine.calls)
    with agent(served.url) as ours:
        ours.say(call(1, script({"hang": True})))
        hanging = shared_engine.call(number)
        ours.say(call(2, "x"))
        assert ours.read()["id"] == 2
        ours.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})
        assert hanging.ended.wait(LIMIT_S)
        ours.say(call(3, "y"))
        assert ours.read()["id"] == 3


def test_the_end_of_the_input_cancels_what_is_running(served: Gateway, shared_engine: ScriptedEngine) -> None:
    """An agent that exits leaves no engine call behind."""
    number = len(shared_engine.calls)
    with agent(served.url) as ours:
        ours.say(call(1, script({"hang": True})))
        hanging = shared_engine.call(number)
    assert hanging.ended.wait(LIMIT_S)


def test_an_unreachable_gateway_is_an_error_in_words() -> None:
    """The agent receives why, as the response to its request."""
    with agent(f"http://{NOBODY}") as ours:
        ours.say({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}})
        failed = ours.read()
        assert (failed["id"], failed["error"]["code"]) == (1, -32603)
        assert "nothing listens" in failed["error"]["message"]


def test_a_line_that_is_not_json_is_an_error(served: Gateway) -> None:
    """The next line is read nevertheless."""
    with agent(served.url) as ours:
        ours.say("{")
        assert ours.read()["error"]["code"] == -32700
        ours.say(call(1, "x"))
        assert ours.read()["id"] == 1


def test_a_wrong_address_ends_the_command() -> None:
    """A wrong option is reported before anything is read."""
    assert brunix("mcp", "--url", "ftp://x").returncode == 2
