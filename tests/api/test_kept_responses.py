"""Answers of ``/v1/responses`` by their ids: going on from one, having it again, deleting it; over real HTTP."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import pytest_twisted

from endpoints import CHAT, RESPONSES, asking, streamed, whole_text
from gateways import Reply, RunningGateway, run_gateway, stop_gateway
from scripted_engine import ScriptedEngine, script
from wire import check, response_events

streamed_or_whole = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])


@attrs.frozen
class Client:
    """A client that leaves its conversations to the server."""

    gateway: RunningGateway
    engine: ScriptedEngine

    async def ask(self, query: str, *, stream: bool = False, **more: Any) -> tuple[dict[str, Any], str]:  # noqa: ANN401 - whatever JSON holds
        """Ask, and return the whole answer and the session that the engine was really asked in."""
        number = len(self.engine.calls)
        reply = await self.gateway.ask("POST", RESPONSES, json=asking(RESPONSES, query, stream=stream, **more))
        assert reply.status == 200, reply.body
        answer = response_events(reply.body)[-1]["response"] if stream else reply.json()
        return answer, self.engine.calls[number].request.session_id

    async def get(self, name: str, method: str = "GET", query: str = "") -> Reply:
        return await self.gateway.ask(method, f"{RESPONSES}/{name}{query}")


@pytest.fixture
def client(gateway: RunningGateway, engine: ScriptedEngine) -> Client:
    return Client(gateway, engine)


@streamed_or_whole
@pytest.mark.parametrize("store", [None, True, False])
@pytest_twisted.ensureDeferred
async def test_goes_on(client: Client, store: bool | None, *, stream: bool) -> None:  # noqa: FBT001 - a column
    """The second question of a conversation that the server is to keep is answered without the first."""
    answer, session_id = await client.ask("my name is Ann", stream=stream, store=store)
    sessions = {session_id}
    for question in ("what is it?", "and now?"):
        answer, session_id = await client.ask(question, stream=stream, store=store, previous_response_id=answer["id"])
        sessions.add(session_id)
    assert len(sessions) == 1
    assert [asked.request.query for asked in client.engine.calls] == ["my name is Ann", "what is it?", "and now?"]


@pytest_twisted.ensureDeferred
async def test_goes_on_at_once(client: Client) -> None:
    """A program that asks on as soon as it has read the end of a stream is told that there was no answer."""
    for _ in range(20):
        answer, session_id = await client.ask("one", stream=True)
        assert (await client.ask("two", previous_response_id=answer["id"]))[1] == session_id


@pytest_twisted.ensureDeferred
async def test_goes_on_from_what_a_limit_cut(client: Client) -> None:
    """A user who asks for the rest of an answer that was too long is asked in another session."""
    answer, session_id = await client.ask(script("one two ", "three"), max_output_tokens=1)
    assert (answer["status"], answer["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert (await client.ask("go on", previous_response_id=answer["id"]))[1] == session_id


@pytest.mark.parametrize("name", ["resp_" + "0" * 32, "resp_", "chatcmpl-1", "resp_é", "../x"])
@streamed_or_whole
@pytest_twisted.ensureDeferred
async def test_goes_on_from_nothing(client: Client, name: str, *, stream: bool) -> None:
    """A question that belongs to a conversation which is not known here is answered as if there were none."""
    body = asking(RESPONSES, "and?", stream=stream, previous_response_id=name)
    reply = await client.gateway.ask("POST", RESPONSES, json=body)
    assert reply.status == 404
    check("openai_error", reply.json())
    error = reply.json()["error"]
    assert (error["code"], error["param"]) == ("previous_response_not_found", "previous_response_id")
    assert client.engine.calls == []


@pytest_twisted.ensureDeferred
async def test_another_users_answer(client: Client) -> None:
    """Two users who began alike are put into one session, one by an answer's id, the other by the conversation."""
    (mine, session_id), (theirs, other_id) = [await client.ask("hello") for _ in range(2)]
    assert session_id != other_id
    assert mine["id"] != theirs["id"]
    said = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": whole_text(RESPONSES, theirs)},
        {"role": "user", "content": "and?"},
    ]
    number = len(client.engine.calls)
    await client.gateway.ask("POST", CHAT, json={"model": "brunix", "messages": said})
    taken = client.engine.calls[number].request.session_id
    left = {session_id: mine, other_id: theirs}
    gone = left.pop(taken)
    body = asking(RESPONSES, "and?", previous_response_id=gone["id"])
    assert (await client.gateway.ask("POST", RESPONSES, json=body)).status == 404
    # It can still be read, for that tells nothing that its owner has not been told.
    assert (await client.get(gone["id"])).json() == gone
    ((still, answer),) = left.items()
    assert (await client.ask("and?", previous_response_id=answer["id"]))[1] == still


@streamed_or_whole
@pytest_twisted.ensureDeferred
async def test_had_again(client: Client, *, stream: bool) -> None:
    """A program that asks for an answer by its id gets another one, or none."""
    answer, _ = await client.ask("one two", stream=stream, metadata={"ticket": "4711"})
    for _ in range(2):
        reply = await client.get(answer["id"])
        assert reply.status == 200
        assert reply.headers["content-type"] == "application/json; charset=utf-8"
        check("openai_response", reply.json())
        assert reply.json() == answer
    assert answer["metadata"] == {"ticket": "4711"}
    assert whole_text(RESPONSES, answer) == "one two "
    assert (await client.get(answer["id"], "HEAD")).status == 200


@pytest_twisted.ensureDeferred
async def test_had_again_as_a_stream(client: Client) -> None:
    """A program that wants an answer's events once more reads JSON for events, and waits for what never comes."""
    answer, _ = await client.ask("one")
    reply = await client.get(answer["id"], query="?stream=true")
    assert (reply.status, reply.json()["error"]["param"]) == (400, "stream")
    assert (await client.get(answer["id"], query="?stream=false&include[]=x")).json() == answer


@pytest_twisted.ensureDeferred
async def test_deleted(client: Client) -> None:
    """An answer that its owner has deleted is still there for everyone who knows its id."""
    (answer, _), (other, _) = [await client.ask(query) for query in ("one", "two")]
    reply = await client.get(answer["id"], "DELETE")
    assert reply.status == 200
    check("openai_response_deleted", reply.json())
    assert reply.json()["id"] == answer["id"]
    for method in ("GET", "DELETE"):
        reply = await client.get(answer["id"], method)
        assert (reply.status, reply.json()["error"]["code"]) == (404, "not_found")
        check("openai_error", reply.json())
    body = asking(RESPONSES, "and?", previous_response_id=answer["id"])
    assert (await client.gateway.ask("POST", RESPONSES, json=body)).status == 404
    assert (await client.get(other["id"])).status == 200


@pytest_twisted.ensureDeferred
async def test_not_to_be_had_again(client: Client) -> None:
    """An answer that its caller wanted not to be stored is handed to whoever knows its id."""
    answer, _ = await client.ask("secret", store=False)
    for name in (answer["id"], "resp_" + "0" * 32, "resp_", "x", "%C3%A9"):
        for method in ("GET", "DELETE"):
            reply = await client.get(name, method)
            assert (reply.status, reply.json()["error"]["code"]) == (404, "not_found")


@pytest_twisted.ensureDeferred
async def test_a_failed_answer(client: Client) -> None:
    """A conversation goes on from an answer that the engine has not kept, or half of one is handed out as whole."""
    body = asking(RESPONSES, script("partial", {"status": "INTERNAL"}))
    reply = await client.gateway.ask("POST", RESPONSES, json=body)
    assert streamed(RESPONSES, reply.body).error
    name = response_events(reply.body)[-1]["response"]["id"]
    assert (await client.get(name)).status == 404
    again = asking(RESPONSES, "and?", previous_response_id=name)
    assert (await client.gateway.ask("POST", RESPONSES, json=again)).status == 404


@pytest_twisted.ensureDeferred
async def test_how_many(engine: ScriptedEngine) -> None:
    """An operator's bound on what is kept has no effect, or takes the conversations with it."""
    gateway = await run_gateway(grpc_target=engine.target, store_max=1)
    client = Client(gateway, engine)
    (first, session_id), (second, _) = [await client.ask(query) for query in ("one", "two")]
    assert [(await client.get(answer["id"])).status for answer in (first, second)] == [404, 200]
    assert (await client.ask("and?", previous_response_id=first["id"]))[1] == session_id
    await stop_gateway(gateway)


@pytest_twisted.ensureDeferred
async def test_how_much(engine: ScriptedEngine) -> None:
    """Long answers must not fill the memory, and their conversations must go on although they are not stored."""
    gateway = await run_gateway(grpc_target=engine.target, store_max_bytes=50_000)
    client = Client(gateway, engine)
    (small, _), (large, session_id) = [await client.ask(query) for query in ("small", script({"letters": 60_000}))]
    assert [(await client.get(answer["id"])).status for answer in (small, large)] == [200, 404]
    assert (await client.ask("and?", previous_response_id=large["id"]))[1] == session_id
    await client.ask(script({"letters": 45_000}))
    assert (await client.get(small["id"])).status == 404
    await stop_gateway(gateway)


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "resp_1/cancel"), ("GET", "resp_1/input_items"), ("POST", "compact"), ("POST", "input_tokens")],
)
@pytest_twisted.ensureDeferred
async def test_not_offered(client: Client, method: str, path: str) -> None:
    """A program that uses more of this API than there is here is told that it has mistyped a path."""
    reply = await client.get(path, method)
    assert (reply.status, reply.json()["error"]["code"]) == (404, "not_offered")
