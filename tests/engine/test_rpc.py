"""Calls that are read on the calling thread: the same with a grpc that is tested and with one that is not."""

from __future__ import annotations

import threading
import tomllib
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from packaging.requirements import Requirement
from packaging.version import Version

from brunix_twisted._pb import brunix_pb2
from brunix_twisted.engine import blocking, rpc
from brunix_twisted.engine.rpc import Start, drain, server_streaming
from engine_clients import BlockingClient, question, texts
from fake_reactor import LIMIT_S
from log_lines import log_lines
from paths import ROOT
from ports import free_port
from scripted_engine import ScriptedEngine, script

IS_TESTED = rpc.is_tested
PATH = "/brunix.AssistanceEngine/AskAgentStream"


@pytest.fixture(params=[True, False], ids=["tested", "not tested"], autouse=True)
def is_tested(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Take the installed grpc for one that has been tested, or for one that has not."""
    for module in (rpc, blocking):
        monkeypatch.setattr(module, "is_tested", lambda: request.param)
    return bool(request.param)


@pytest.fixture
def channel(engine: ScriptedEngine) -> Iterator[grpc.Channel]:
    """A channel to the scripted engine."""
    with grpc.insecure_channel(engine.target) as channel:
        yield channel


@pytest.fixture
def start(channel: grpc.Channel) -> Start[brunix_pb2.AgentResponse]:
    """Start calls of the engine."""
    return server_streaming(channel, PATH, brunix_pb2.AgentResponse)


def ask(*steps: Any) -> brunix_pb2.AgentRequest:  # noqa: ANN401 - a script's steps
    return brunix_pb2.AgentRequest(query=script(*steps))


def read(messages: Iterator[brunix_pb2.AgentResponse]) -> tuple[list[str], str]:
    """Read a call to its end: the texts, and the name of its status."""
    said: list[str] = []
    try:
        said.extend(message.text for message in messages)
    except grpc.RpcError as error:
        return said, error.code().name
    return said, "OK"


@pytest.mark.parametrize(
    ("steps", "said", "status"),
    [
        (["one", "two"], ["one", "two", ""], "OK"),
        ([{"final": "all"}], ["all"], "OK"),
        ([{"break_off": True}], [], "OK"),
        (["one", {"break_off": True}], ["one"], "OK"),
        ([{"status": "UNAVAILABLE"}], [], "UNAVAILABLE"),
        (["one", {"status": "INTERNAL"}], ["one"], "INTERNAL"),
        ([{"raw": "ffff"}, "never"], [], "INTERNAL"),
        (["one", {"raw": "ffff"}, "never"], ["one"], "INTERNAL"),
    ],
)
def test_what_a_call_brings(
    start: Start[brunix_pb2.AgentResponse], steps: list[Any], said: list[str], status: str
) -> None:
    """An answer would end otherwise with another release of grpc."""
    assert read(start(ask(*steps), LIMIT_S)) == (said, status)


def test_the_details_and_the_metadata(start: Start[brunix_pb2.AgentResponse], engine: ScriptedEngine) -> None:
    """The log would not say what the engine has said, and the answer would have no sources."""
    with pytest.raises(grpc.RpcError, match="why") as caught:
        next(start(ask({"status": ["INTERNAL", "why"]}), LIMIT_S))
    assert caught.value.details() == "why"
    messages = start(ask({"sources": "[]"}), LIMIT_S, (("x-request-id", "one"),))
    assert read(messages) == ([""], "OK")
    assert dict(messages.trailing_metadata()) == {"brunix-sources-bin": b"[]"}
    assert engine.call(1).metadata["x-request-id"] == "one"


def test_the_deadline(start: Start[brunix_pb2.AgentResponse]) -> None:
    """A call without an answer would never end."""
    assert read(start(ask({"hang": True}), 0.05)) == ([], "DEADLINE_EXCEEDED")


def test_nobody_listens() -> None:
    """A question must fail at once without an engine, and the call that waits for one must not."""
    with grpc.insecure_channel(f"127.0.0.1:{free_port()}") as channel:
        start = server_streaming(channel, PATH, brunix_pb2.AgentResponse)
        assert read(start(ask("one"), LIMIT_S)) == ([], "UNAVAILABLE")
        watch = server_streaming(channel, "/grpc.health.v1.Health/Watch", health_pb2.HealthCheckResponse)
        with pytest.raises(grpc.RpcError) as caught:
            next(watch(health_pb2.HealthCheckRequest(), 0.2, wait_for_ready=True))
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("steps", [[{"hang": True}], ["one", {"hang": True}]], ids=["before the first", "after it"])
def test_cancelled(start: Start[brunix_pb2.AgentResponse], engine: ScriptedEngine, steps: list[Any]) -> None:
    """A worker would wait for an engine that nobody wants to hear any more."""
    messages = start(ask(*steps), LIMIT_S)
    for text in steps[:-1]:
        assert next(messages).text == text
    asked = engine.call()
    canceller = threading.Timer(0, messages.cancel)
    canceller.start()
    assert read(messages) == ([], "CANCELLED")
    canceller.join()
    assert asked.ended.wait(LIMIT_S)
    messages.cancel()
    drain(messages)


def test_after_the_end(channel: grpc.Channel, start: Start[brunix_pb2.AgentResponse]) -> None:
    """What is over stays over: a call that has ended, and a channel that is closed."""
    messages = start(ask(), LIMIT_S)
    assert read(messages) == ([""], "OK")
    assert read(messages) == ([], "OK")
    messages.cancel()
    channel.close()
    with pytest.raises(ValueError, match="closed"):
        start(ask(), LIMIT_S)


def test_the_operator_is_told(engine: ScriptedEngine, *, is_tested: bool) -> None:
    """Nobody would know why a gateway is slower than documented."""
    with log_lines() as lines:
        client = BlockingClient(engine.target, LIMIT_S)
        assert texts(client.call(question(script("one")))) == ["one"]
        client.close()
    told = [line for line in lines.texts if "is not a release that the gateway has been tested with" in line]
    assert len(told) == (not is_tested)


def test_which_releases_are_tested() -> None:
    """A release that pyproject.toml allows is read directly, and any other through grpc's public interface."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (allowed,) = (found.specifier for found in map(Requirement, project["dependencies"]) if found.name == "grpcio")
    assert IS_TESTED(grpc.__version__)
    for version in ("1.84.9", "1.85.1", "1.85.3", "1.86.0", "1.186.0", "2.0.0"):
        assert IS_TESTED(version) == (Version(version) in allowed)
