"""Conversations over restarts, and over several gateways with one state; the clients send only messages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import attrs
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults

from brunix_twisted.config.state_address import StateAddress
from brunix_twisted.state import guarded
from endpoints import CHAT, CHATS, ENDPOINTS, RESPONSES
from fake_reactor import LIMIT_S
from gateways import RunningGateway, run_gateway, stop_gateway
from redis_servers import RedisServer
from scripted_engine import ScriptedEngine

SECRET = 64 * "a"


@attrs.define
class Conversation:
    """A client's conversation, as it shows it."""

    path: str
    messages: list[dict[str, Any]] = attrs.Factory(list)
    session_ids: list[str] = attrs.Factory(list)
    headers: dict[str, str] = attrs.Factory(dict)
    response_id: str = ""

    async def ask(self, gateway: RunningGateway, question: str, *, stream: bool = False) -> None:
        """Ask a question on a new connection, and keep what a client keeps."""
        self.messages.append({"role": "user", "content": question})
        await self.send(gateway, self.messages, stream=stream)

    async def ask_by_id(self, gateway: RunningGateway, question: str) -> None:
        """Ask a question, and name the response that it continues instead of sending the conversation."""
        message = {"role": "user", "content": question}
        await self.send(gateway, [message], previous_response_id=self.response_id)

    async def send(self, gateway: RunningGateway, messages: list[Any], *, stream: bool = False, **more: object) -> None:
        """Send a request, and keep the answer and the session."""
        endpoint = ENDPOINTS[self.path]
        body = {"model": "brunix", endpoint.question: messages, "stream": stream, "max_tokens": 1000, **more}
        reply = await gateway.ask("POST", self.path, json=body, headers={"Connection": "close"} | self.headers)
        assert reply.status == 200, reply.body
        if stream:
            text = "".join(endpoint.text(event) for event in endpoint.events(reply.body))
        else:
            text = endpoint.whole(reply.json())
            self.response_id = reply.json().get("id", "")
        self.messages.append({"role": "assistant", "content": text})
        self.session_ids.append(reply.headers["x-session-id"])

    @property
    def is_kept(self) -> bool:
        """Whether all of it was in one session."""
        return len(set(self.session_ids)) == 1


Start = Callable[..., Deferred[RunningGateway]]


@pytest.fixture(params=["sqlite", "redis"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> StateAddress:
    """Somewhere to keep a state, which nothing is in."""
    if request.param == "sqlite":
        return StateAddress("sqlite", path=str(tmp_path / "state.sqlite"))
    redis: RedisServer = request.getfixturevalue("redis")
    return StateAddress("redis", url=redis.url(query=f"?prefix={tmp_path.name}"))


@pytest_twisted.async_yield_fixture
async def start(engine: ScriptedEngine, state: StateAddress, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    """Start gateways with this state, and stop them in the end."""
    # On a busy machine a store can take longer than answers wait for it.
    monkeypatch.setattr(guarded, "CALL_S", LIMIT_S)
    gateways: list[RunningGateway] = []

    async def started(**settings: Any) -> RunningGateway:  # noqa: ANN401 - as in Settings
        gateway = await run_gateway(
            grpc_target=engine.target, drain_s=0.0, state=state, state_secret=SECRET, queue_size=10_000, **settings
        )
        gateways.append(gateway)
        return gateway

    yield lambda **settings: ensureDeferred(started(**settings))
    for gateway in gateways:
        await stop_gateway(gateway)


async def in_groups(conversations: list[Conversation], ask: Callable[[int, Conversation], Any]) -> None:
    """Let each conversation go its own way, twenty at a time."""
    remaining = iter(enumerate(conversations))

    async def work() -> None:
        for number, conversation in remaining:
            await ask(number, conversation)

    await gatherResults([ensureDeferred(work()) for _ in range(20)])


@pytest.mark.parametrize("path", CHATS)
async def test_restart(start: Start, path: str) -> None:
    """Every user would lose the context with each restart of the gateway."""
    conversations = [Conversation(path) for _ in range(5)]
    gateway = await start()
    for number, conversation in enumerate(conversations):
        await conversation.ask(gateway, f"question {number}")
    await stop_gateway(gateway)
    gateway = await start()
    for conversation in conversations:
        await conversation.ask(gateway, "and?")
    assert [conversation.is_kept for conversation in conversations] == [True] * 5


async def test_responses_after_a_restart(start: Start) -> None:
    """A client that continues by a response's id would get 404 after each restart."""
    conversation = Conversation(RESPONSES)
    gateway = await start()
    await conversation.ask(gateway, "one")
    response_id = conversation.response_id
    await stop_gateway(gateway)
    gateway = await start()
    stored = await gateway.ask("GET", f"/v1/responses/{response_id}")
    assert (stored.status, stored.json()["id"]) == (200, response_id)
    await conversation.ask_by_id(gateway, "two")
    assert conversation.is_kept
    other = await gateway.ask("GET", f"/v1/responses/{response_id}", headers={"Authorization": "Bearer other"})
    assert other.status == 404


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("match", ["fitting", "exact"])
async def test_two_gateways_in_turn(start: Start, match: str, *, stream: bool) -> None:
    """A load balancer would take the context away from every user."""
    gateways = [await start(session_match=match) for _ in range(2)]
    conversations = [Conversation(path) for _ in range(10) for path in CHATS]

    async def talk(number: int, conversation: Conversation) -> None:
        for turn, gateway in zip(range(3), cycle(gateways), strict=False):
            await conversation.ask(gateway, f"question {number} {turn}", stream=stream)

    await in_groups(conversations, talk)
    assert [conversation for conversation in conversations if not conversation.is_kept] == []


async def test_responses_of_another_gateway(start: Start) -> None:
    """A client that continues by a response's id would get 404 from every second gateway."""
    gateways = [await start() for _ in range(2)]
    conversations = [Conversation(RESPONSES) for _ in range(20)]

    async def talk(number: int, conversation: Conversation) -> None:
        await conversation.ask(gateways[number % 2], f"question {number}")
        for turn in range(1, 4):
            await conversation.ask_by_id(gateways[(number + turn) % 2], "and?")

    await in_groups(conversations, talk)
    assert [conversation for conversation in conversations if not conversation.is_kept] == []


@pytest.mark.parametrize("match", ["fitting", "exact"])
async def test_pairs(start: Start, match: str) -> None:
    """Two callers who look the same and say the same at the same time would read each other's questions."""
    gateways = [await start(session_match=match) for _ in range(2)]
    pairs = [(Conversation(CHAT), Conversation(CHAT)) for _ in range(40)]

    async def talk(number: int, conversation: Conversation, first: int) -> None:
        for turn in range(3):
            await conversation.ask(gateways[(first + turn) % 2], f"question {number % 5} {turn}", stream=turn == 1)

    await in_groups(
        [one for one, _ in pairs],
        lambda number, one: gatherResults(
            [ensureDeferred(talk(number, one, 0)), ensureDeferred(talk(number, pairs[number][1], 1))]
        ),
    )
    sessions = [set(conversation.session_ids) for pair in pairs for conversation in pair]
    used = [session_id for session in sessions for session_id in session]
    # They cannot be told apart, so one may get the other's session. But no session is in two of them at a time.
    turns = [session_ids for pair in pairs for session_ids in (pair[0].session_ids, pair[1].session_ids)]
    for turn in range(3):
        at_once = [session_ids[turn] for session_ids in turns]
        assert len(set(at_once)) == len(at_once)
    assert len(set(used)) == 80
