"""Conversations of clients that know no session: each goes on in its own engine session, over real HTTP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs
import pytest
import pytest_twisted

from brunix_twisted.config import trusted_proxies
from endpoints import CHAT, CHATS, ENDPOINTS, MESSAGES, RESPONSES, busy_status, limited
from fake_reactor import LIMIT_S
from gateways import RunningGateway, in_thread, run_gateway, stop_gateway
from received import Received
from scripted_engine import ScriptedEngine, script

every_api = pytest.mark.parametrize("path", CHATS)
streamed_or_whole = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])

Message = dict[str, Any]


def user(content: object) -> Message:
    return {"role": "user", "content": content}


def assistant(content: object) -> Message:
    return {"role": "assistant", "content": content}


def body_for(path: str, messages: Sequence[Message], *, stream: bool = False, **more: object) -> dict[str, object]:
    spelled = [spell(path, message) for message in messages]
    return {"model": "brunix", ENDPOINTS[path].question: spelled, "stream": stream, **more}


def spell(path: str, message: Message) -> Message:
    """Write a message as its API does; most are the same in all."""
    role, content = message["role"], message["content"]
    if path == MESSAGES and role == "developer":
        return {"role": "system", "content": content}
    if path == MESSAGES and role == "tool":
        return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": content}]}
    if path == RESPONSES and role == "tool":
        return {"type": "function_call_output", "call_id": "1", "output": content}
    return message


@attrs.frozen
class Answer:
    """What a client gets out of an answer, and the session that it was asked in."""

    text: str
    session_id: str


@attrs.frozen
class Client:
    """A client that keeps its conversations itself; its session ids are what the engine was really asked in."""

    gateway: RunningGateway
    engine: ScriptedEngine

    async def ask(
        self,
        *messages: Message,
        path: str = CHAT,
        stream: bool = False,
        headers: dict[str, str] | None = None,
        **more: object,
    ) -> Answer:
        number = len(self.engine.calls)
        body = body_for(path, messages, stream=stream, **more)
        reply = await self.gateway.ask("POST", path, json=body, headers=headers or {})
        assert reply.status == 200, reply.body
        session_id = self.engine.calls[number].request.session_id
        assert reply.headers["x-session-id"] == session_id
        return Answer(text_in(path, reply.body, reply.json if not stream else None), session_id)

    async def talk(self, *questions: str, **more: Any) -> tuple[list[Message], str]:  # noqa: ANN401 - as in ask
        """Have a conversation, and return it and its session."""
        messages: list[Message] = []
        session_ids = set()
        for question in questions:
            messages.append(user(question))
            answer = await self.ask(*messages, **more)
            messages.append(assistant(answer.text))
            session_ids.add(answer.session_id)
        (session_id,) = session_ids
        return messages, session_id

    async def begin(self, *messages: Message, path: str = CHAT, **more: object) -> tuple[Received, str]:
        """Ask, and return once the headers are there."""
        response = await self.gateway.send("POST", path, json=body_for(path, messages, stream=True, **more))
        assert response.code == 200
        received = Received()
        response.deliverBody(received)
        (session_id,) = response.headers.getRawHeaders("X-Session-Id") or [""]
        return received, session_id


def text_in(path: str, body: bytes, whole: Callable[[], Any] | None) -> str:
    """Read the text of an answer, also of one that broke off."""
    endpoint = ENDPOINTS[path]
    if whole is None:
        return "".join(endpoint.text(event) for event in endpoint.events(body) if endpoint.failed(event) is None)
    return endpoint.whole(whole())


@pytest.fixture
def client(gateway: RunningGateway, engine: ScriptedEngine) -> Client:
    return Client(gateway, engine)


# It goes on.


@pytest.mark.parametrize("first", CHATS)
@pytest.mark.parametrize("second", CHATS)
@pytest.mark.parametrize("streams", [(True, True), (True, False), (False, True), (False, False)])
@pytest_twisted.ensureDeferred
async def test_goes_on(client: Client, first: str, second: str, streams: tuple[bool, bool]) -> None:
    """The second question would be answered without what was said before; or in another API, or streamed, it would."""
    messages, session_id = await client.talk("my name is Ann", path=first, stream=streams[0])
    assert messages[1]["content"] == "my name is Ann "
    messages.append(user("what is it?"))
    answer = await client.ask(*messages, path=second, stream=streams[1])
    assert answer.session_id == session_id
    # The engine has the rest itself: it is asked nothing but the question.
    assert [asked.request.query for asked in client.engine.calls] == ["my name is Ann", "what is it?"]
    messages += [assistant(answer.text), user("and now?")]
    assert (await client.ask(*messages, path=first)).session_id == session_id


@every_api
@pytest.mark.parametrize(
    "changed",
    [
        pytest.param([user("one"), assistant("one")], id="trimmed"),
        pytest.param([user("  one\n"), assistant("\n one \n\n")], id="padded"),
        pytest.param([{"role": "system", "content": "Be brief"}, user("one"), assistant("one ")], id="system"),
        pytest.param(
            [user("one"), {"role": "developer", "content": "x"}, assistant("one "), {"role": "system", "content": "y"}],
            id="system in between",
        ),
        pytest.param(
            [user([{"type": "text", "text": "one"}]), assistant([{"type": "text", "text": "one "}])], id="parts"
        ),
        pytest.param([user("one") | {"name": "ann"}, assistant("one ") | {"tool_calls": None}], id="more keys"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_goes_on_though_the_client_changed_it(client: Client, path: str, changed: list[Message]) -> None:
    """A user whose client trims texts, or adds the time of day to its instructions, would lose the thread."""
    _, session_id = await client.talk("one", path=path)
    assert (await client.ask(*changed, user("two"), path=path)).session_id == session_id


@every_api
@pytest_twisted.ensureDeferred
async def test_an_answer_that_no_limit_cut(client: Client, path: str) -> None:
    """A user whose client always sends stop sequences and a length would lose the thread with every question."""
    limits: dict[str, Any] = limited(path, stop=None if path == RESPONSES else ["END"], length=100)
    await client.talk("one", "two", "three", path=path, **limits)


# It does not go on in another's.


@every_api
@pytest_twisted.ensureDeferred
async def test_callers_who_began_alike(client: Client, path: str) -> None:
    """Two users who both began with "hello" would read each other's questions in their answers."""
    (messages, first), (_, second) = [await client.talk("hello", path=path) for _ in range(2)]
    assert first != second
    # Nobody can tell whose is whose, and it does not matter: both hold the same. But each is given once.
    going_on = [(await client.ask(*messages, user(f"question {n}"), path=path)).session_id for n in range(3)]
    assert set(going_on[:2]) == {first, second}
    assert going_on[2] not in {first, second}


@pytest_twisted.ensureDeferred
async def test_at_the_same_time(client: Client) -> None:
    """A user who asks twice in a hurry, in two windows, would mix the two conversations."""
    messages, session_id = await client.talk("hello")
    received, taken = await client.begin(*messages, user(script("a", {"wait": "go"})))
    assert taken == session_id
    other = await client.ask(*messages, user("and?"))
    assert other.session_id != session_id
    client.engine.go("go")
    await received.ended


# What users and their clients do.


@every_api
@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(lambda said: said[:2], id="edited or regenerated"),
        pytest.param(lambda said: said[2:], id="window of one turn"),
        pytest.param(lambda said: [assistant("Welcome!"), *said], id="greeting put before"),
        pytest.param(lambda said: [user("What was said?"), assistant("One."), *said[2:]], id="summary"),
        pytest.param(lambda said: [assistant("Summary: one."), *said[2:]], id="summary as an answer"),
        pytest.param(lambda said: [{"role": "system", "content": "Summary"}, *said[2:]], id="summary as instructions"),
        pytest.param(lambda said: [*said, user("asked, and failed")], id="failed question left"),
        pytest.param(lambda said: [*said, user("asked"), assistant("")], id="failed question with an empty answer"),
        pytest.param(lambda said: [*said, assistant("more")], id="note of the client"),
        pytest.param(lambda said: [*said, {"role": "tool", "content": "r"}], id="tool"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_goes_on_after(client: Client, path: str, edit: Callable[[list[Message]], list[Message]]) -> None:
    """A user whose client sends less than all of it, or who goes back a turn, would be answered without context."""
    said, session_id = await client.talk("one", "two", path=path)
    answer = await client.ask(*edit(said), user("three"), path=path)
    assert answer.session_id == session_id
    # And from there on, whichever way it was.
    for history in ([*edit(said), user("three"), assistant(answer.text)], said):
        assert (await client.ask(*history, user("four"), path=path)).session_id == session_id


@every_api
@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(lambda said: [user("uno"), said[1]], id="first question"),
        pytest.param(lambda said: [said[0], assistant("uno")], id="first answer"),
        pytest.param(lambda said: [*said[:2], user("dos"), said[3]], id="last question"),
        pytest.param(lambda said: [*said[:3], assistant("dos")], id="last answer"),
        pytest.param(lambda said: [user("one two"), said[3]], id="joined"),
        pytest.param(lambda said: [*said, *said[2:]], id="doubled"),
        pytest.param(lambda _: [assistant("Welcome!")], id="greeting alone"),
        pytest.param(lambda _: [], id="new"),
        pytest.param(
            lambda said: [user("a"), assistant("b"), user("c"), assistant("d"), *said[2:]], id="end of another"
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_another_conversation(client: Client, path: str, edit: Callable[[list[Message]], list[Message]]) -> None:
    """A user would be answered out of another conversation than the one on the screen."""
    said, session_id = await client.talk("one", "two", path=path)
    assert (await client.ask(*edit(said), user("three"), path=path)).session_id != session_id
    # Nor has that taken it from the conversation as it was.
    assert (await client.ask(*said, user("three"), path=path)).session_id == session_id


@every_api
@streamed_or_whole
@pytest_twisted.ensureDeferred
async def test_a_greeting(client: Client, path: str, *, stream: bool) -> None:
    """A user of an assistant that speaks first would never be answered in context."""
    greeting = assistant("Hello! Ask me anything.")
    said: list[Message] = [greeting]
    session_ids = []
    for question in ("one", "two", "three"):
        said.append(user(question))
        answer = await client.ask(*said, path=path, stream=stream)
        said.append(assistant(answer.text))
        session_ids.append(answer.session_id)
    assert len(set(session_ids)) == 1
    # Every conversation begins with it.
    assert (await client.ask(greeting, user("one"), path=path)).session_id != session_ids[0]


@every_api
@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest_twisted.ensureDeferred
async def test_a_sliding_window(client: Client, path: str, turns: int) -> None:
    """A user whose client sends only the last turns would lose the context as soon as the first turn is left out."""
    said: list[Message] = []
    session_ids = set()
    for number in range(7):
        question = user(f"question {number}")
        answer = await client.ask(*said[-2 * turns :], question, path=path)
        said += [question, assistant(answer.text)]
        session_ids.add(answer.session_id)
    assert len(session_ids) == 1


@every_api
@pytest_twisted.ensureDeferred
async def test_a_window_of_a_lost_conversation(client: Client, path: str) -> None:
    """After a restart of the gateway, a client that sends only the last turns would get a new session every time."""
    said = [message for n in range(5) for message in (user(f"old {n}"), assistant(f"answer {n}"))]
    session_ids = set()
    for number in range(4):
        question = user(f"question {number}")
        answer = await client.ask(*said[-10:], question, path=path)
        said += [question, assistant(answer.text)]
        session_ids.add(answer.session_id)
    assert len(session_ids) == 1


@every_api
@pytest_twisted.ensureDeferred
async def test_an_answer_asked_for_again(client: Client, path: str) -> None:
    """A user who has an answer made anew would get one without context."""
    said, session_id = await client.talk("one", "two", path=path)
    again = await client.ask(*said[:-1], path=path)
    assert again.session_id == session_id
    for history in (said, [*said[:-1], assistant(again.text)]):
        assert (await client.ask(*history, user("three"), path=path)).session_id == session_id


@every_api
@pytest_twisted.ensureDeferred
async def test_the_first_answer_asked_for_again(client: Client, path: str) -> None:
    """Somebody who begins like another would be answered out of that conversation."""
    said, session_id = await client.talk("one", path=path)
    again = await client.ask(said[0], path=path)
    assert again.session_id != session_id
    assert (await client.ask(said[0], assistant(again.text), user("two"), path=path)).session_id == again.session_id


@every_api
@pytest_twisted.ensureDeferred
async def test_a_side_request_that_nobody_knows(client: Client, path: str) -> None:
    """A client's request for a title would take the session away from its conversation."""
    said, session_id = await client.talk("one", path=path)
    for number in range(3):
        await client.ask(*said, user("a title in three words, please"), path=path)
        question = user(f"question {number}")
        answer = await client.ask(*said, question, path=path)
        assert answer.session_id == session_id
        said += [question, assistant(answer.text)]


@every_api
@pytest_twisted.ensureDeferred
async def test_an_answer_begun_by_the_client(client: Client, path: str) -> None:
    """A client that puts words into the answer's mouth would change the conversation that it has shown so far."""
    said, session_id = await client.talk("one", path=path)
    assert (await client.ask(*said, user("two"), assistant("Well, "), path=path)).session_id != session_id
    assert (await client.ask(*said, user("two"), path=path)).session_id == session_id


# Answers that do not come to their end.


@every_api
@pytest.mark.parametrize("questions", [(), ("zero",)], ids=["first", "later"])
@pytest.mark.parametrize("shown", ["partial", "part", None], ids=["all", "some of it", "nothing"])
@pytest_twisted.ensureDeferred
async def test_an_answer_that_the_client_stopped(
    client: Client, path: str, questions: tuple[str, ...], shown: str | None
) -> None:
    """A user who stops an answer and asks again would be answered without context."""
    said, session_id = await client.talk(*questions, path=path) if questions else ([], "")
    question = user(script("partial", {"hang": True}))
    received, asked_in = await client.begin(*said, question, path=path)
    assert session_id in {asked_in, ""}
    await received.until(b"partial")
    received.leave()
    assert await in_thread(client.engine.call(len(questions)).ended.wait, LIMIT_S)
    stopped = [] if shown is None else [question, assistant(shown)]
    if not said and shown is None:
        return  # the client has nothing left of the conversation
    answer = await client.ask(*said, *stopped, user("two"), path=path)
    assert answer.session_id == asked_in
    history = [*said, *stopped, user("two"), assistant(answer.text)]
    assert (await client.ask(*history, user("three"), path=path)).session_id == asked_in


@every_api
@pytest.mark.parametrize("shown", ["part", "partial"])
@pytest_twisted.ensureDeferred
async def test_a_question_that_follows_at_once(client: Client, path: str, shown: str) -> None:
    """A user who asks again would lose the context if the gateway hears last that the answer was stopped or read."""
    said, session_id = await client.talk("one", path=path)
    question = user(script("partial", {"wait": "go"}))
    received, asked_in = await client.begin(*said, question, path=path)
    await received.until(b"partial")
    said += [question, assistant(shown), user("two")]
    answer = await client.ask(*said, path=path)
    assert (asked_in, answer.session_id) == (session_id, session_id)
    client.engine.go("go")
    await received.ended
    assert (await client.ask(*said, assistant(answer.text), user("three"), path=path)).session_id == session_id


@every_api
@streamed_or_whole
@pytest.mark.parametrize("status", ["INTERNAL", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED"])
@pytest_twisted.ensureDeferred
async def test_an_answer_that_failed(client: Client, path: str, status: str, *, stream: bool) -> None:
    """A client that repeats a failed question would be answered without its context."""
    said, session_id = await client.talk("one", path=path)
    calls = len(client.engine.calls)
    body = body_for(path, [*said, user(script({"status": status}))], stream=stream)
    reply = await client.gateway.ask("POST", path, json=body)
    assert reply.status >= 400
    assert {asked.request.session_id for asked in client.engine.calls[calls:]} == {session_id}
    assert (await client.ask(*said, user("two"), path=path, stream=stream)).session_id == session_id


@every_api
@pytest_twisted.ensureDeferred
async def test_an_answer_that_broke_off(client: Client, path: str) -> None:
    """A user would be answered without context after an answer that ended with an error."""
    said, session_id = await client.talk("one", path=path)
    question = user(script("partial", {"status": "INTERNAL"}))
    assert (await client.gateway.ask("POST", path, json=body_for(path, [*said, question], stream=True))).status == 200
    for history in (said, [*said, question, assistant("partial")], [*said, question, assistant("Error: 502")]):
        assert (await client.ask(*history, user("two"), path=path)).session_id == session_id


@pytest.mark.parametrize(
    ("path", "limit"),
    # Of these only one knows no stop sequences.
    [(path, limit) for path in CHATS for limit in ("stop", "length") if (path, limit) != (RESPONSES, "stop")],
)
@streamed_or_whole
@pytest_twisted.ensureDeferred
async def test_an_answer_that_a_limit_cut(client: Client, path: str, limit: str, *, stream: bool) -> None:
    """A user would be answered without context after an answer that was cut, or from what nobody has seen."""
    limits: dict[str, Any] = limited(path, stop=["END"]) if limit == "stop" else limited(path, length=1)
    question = user(script("one ", "END of it"))
    cut = await client.ask(question, path=path, stream=stream, **limits)
    assert cut.text == "one "
    whole = await client.ask(question, assistant("one END of it"), user("two"), path=path)
    assert whole.session_id != cut.session_id
    later = await client.ask(question, assistant(cut.text), user("two"), path=path)
    assert later.session_id == cut.session_id


# Callers.

BEARERS: Final[tuple[dict[str, str], ...]] = (
    {"Authorization": "Bearer a"},
    {"Authorization": "Bearer b"},
    {"x-api-key": "a"},
    {},
)


@every_api
@pytest_twisted.ensureDeferred
async def test_callers_with_other_keys(client: Client, path: str) -> None:
    """A caller would get into the session of another, by what it presents or by an id that it has seen."""
    said, session_id = await client.talk("one", "two", path=path, headers=BEARERS[0])
    for headers in BEARERS[1:]:
        for history in (said, said[:2], said[2:]):
            assert (await client.ask(*history, user("x"), path=path, headers=headers)).session_id != session_id
        named = headers | {"X-Session-Id": session_id}
        assert (await client.ask(*said, user("x"), path=path, headers=named)).session_id != session_id
        answer = await client.ask(user("x"), path=path, headers=headers, session_id=session_id)
        assert answer.session_id != session_id
    assert (await client.ask(*said, user("three"), path=path, headers=BEARERS[0])).session_id == session_id


@pytest_twisted.ensureDeferred
async def test_callers_behind_a_proxy(engine: ScriptedEngine) -> None:
    """Users behind one proxy could not be told apart, or anybody could say to be another."""
    ann = {"X-Forwarded-For": "10.1.1.1", "X-Forwarded-User": "ann"}
    others: tuple[dict[str, str], ...] = (
        {"X-Forwarded-For": "10.1.1.2", "X-Forwarded-User": "ann"},
        ann | {"X-Forwarded-User": "bob"},
        {},
    )
    for trusted, alike in (("127.0.0.0/8", False), ("10.0.0.0/8", True)):
        gateway = await run_gateway(
            grpc_target=engine.target, drain_s=0.0, trusted_proxies=trusted_proxies.read(trusted)
        )
        client = Client(gateway, engine)
        said, session_id = await client.talk("one", "two", headers=ann)
        for headers in others:
            answer = await client.ask(*said[:2], user("three"), headers=headers)
            assert (answer.session_id == session_id) is alike
        await stop_gateway(gateway)


@every_api
@pytest_twisted.ensureDeferred
async def test_complete_conversations_only(engine: ScriptedEngine, path: str) -> None:
    """Strangers who share an address and a key would get into each other's sessions by a few common words."""
    gateway = await run_gateway(grpc_target=engine.target, drain_s=0.0, session_match="exact")
    client = Client(gateway, engine)
    said, session_id = await client.talk("one", "two", path=path)
    for history in (said[:2], said[2:], [assistant("Hello!"), *said], [*said, user("x"), assistant("y")]):
        assert (await client.ask(*history, user("three"), path=path)).session_id != session_id
    # What fails changes nothing.
    question = user(script({"status": "INTERNAL"}))
    assert (await gateway.ask("POST", path, json=body_for(path, [*said, question]))).status == 502
    assert (await client.ask(*said, user("three"), path=path)).session_id == session_id
    await stop_gateway(gateway)


@every_api
@pytest_twisted.ensureDeferred
async def test_what_a_response_says(client: Client, path: str) -> None:
    """Nobody could see whether a conversation has found its session."""

    async def outcome(*messages: Message, **headers: str) -> str:
        body = body_for(path, messages)
        reply = await client.gateway.ask(
            "POST", path, json=body, headers={key.replace("_", "-"): value for key, value in headers.items()}
        )
        return reply.headers["x-brunix-session"]

    assert await outcome(user("one")) == "new"
    assert await outcome(user("one"), assistant("one "), user("two")) == "found"
    assert await outcome(user("x"), assistant("y"), user("two")) == "new"
    assert await outcome(user("one"), X_Session_Id="mine") == "named"
    assert await outcome(user(TASK), X_Session_Id="mine") == "side"


# Sessions that a caller names.


NAMED: Final[dict[str, dict[str, Any]]] = {
    "body": {"session_id": "mine"},
    "header": {"headers": {"X-Session-Id": "mine"}},
    "Open WebUI": {"headers": {"X-OpenWebUI-Chat-Id": "mine"}},
}


@every_api
@pytest.mark.parametrize("named", NAMED.values(), ids=NAMED)
@pytest_twisted.ensureDeferred
async def test_a_named_session(client: Client, path: str, named: dict[str, Any]) -> None:
    """Somebody who only knows what was said would get into a session that its owner has named, and keeps."""
    said, session_id = await client.talk("one", "two", path=path, **named)
    assert session_id == "mine"
    assert (await client.ask(*said, user("three"), path=path)).session_id != "mine"
    # It depends on nothing that is sent beside the name.
    assert (await client.ask(user("three"), path=path, **named)).session_id == "mine"


@every_api
@pytest_twisted.ensureDeferred
async def test_the_engines_default_session(client: Client, path: str) -> None:
    """A caller who asks for the engine's shared session would get another, or later callers would get into it."""
    said, session_id = await client.talk("one", path=path, session_id="default")
    assert session_id == "default"
    assert (await client.ask(*said, user("two"), path=path)).session_id != "default"


@pytest.mark.parametrize(
    ("headers", "body", "session_id"),
    [
        ({"X-Session-Id": "ours", "X-OpenWebUI-Chat-Id": "theirs"}, {"session_id": "body"}, "body"),
        ({"X-Session-Id": "ours", "X-OpenWebUI-Chat-Id": "theirs"}, {}, "ours"),
        ({"X-Session-Id": "ours", "X-OpenWebUI-Chat-Id": "theirs"}, {"session_id": ""}, "ours"),
        ({"X-Session-Id": "", "X-OpenWebUI-Chat-Id": "theirs"}, {"session_id": None}, "theirs"),
        ({"X-Session-Id": " ", "X-OpenWebUI-Chat-Id": "theirs"}, {}, "theirs"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_which_name_counts(
    client: Client, headers: dict[str, str], body: dict[str, Any], session_id: str
) -> None:
    """Of several names the wrong one would be taken, or an empty one for the engine's shared session."""
    assert (await client.ask(user("one"), headers=headers, **body)).session_id == session_id


@pytest.mark.parametrize("header", ["X-Session-Id", "X-OpenWebUI-Chat-Id"])
@pytest.mark.parametrize("value", [b"two words", b"x" * 257, "é".encode(), b"\xff"])
@pytest_twisted.ensureDeferred
async def test_an_unsafe_name_in_a_header(client: Client, header: str, value: bytes) -> None:
    """A caller could put into a log or into gRPC's metadata what does not belong there, or would get a traceback."""
    body = body_for(CHAT, [user("one")])
    reply = await client.gateway.ask("POST", CHAT, json=body, headers={header: value})
    assert reply.status == 400
    assert reply.json()["error"]["param"] == "session_id"
    assert client.engine.calls == []


PLACEHOLDERS: Final = [
    *("local", "local:wBnA0lpDZQKbBhsLAAAB", "local:undefined", "LOCAL", "null", "Null", "undefined", "None", "nil"),
    *("NaN", "false", "string", "00000000-0000-0000-0000-000000000000", "{{CHAT_ID}}", "${session}", "{id}"),
    *("<session-id>", "%SESSION%", "%(session)s", "%s", "$CHAT_ID", "chat-{{CHAT_ID}}", "%7B%7BCHAT_ID%7D%7D"),
    *('"null"', '""', "undefined:undefined", "unknown", "(null)", "0" * 32),
]


@pytest.mark.parametrize("value", [*PLACEHOLDERS, "default", "Default"])
@pytest.mark.parametrize("header", ["X-Session-Id", "X-OpenWebUI-Chat-Id"])
@pytest_twisted.ensureDeferred
async def test_a_placeholder_in_a_header(client: Client, header: str, value: str) -> None:
    """Two users whose clients send the same placeholder are not asked in one session, and both keep their threads."""
    talks = [await client.talk(f"I am {name}", "who am I?", headers={header: value}) for name in ("Ann", "Bob")]
    assert len({value, *(session_id for _, session_id in talks)}) == 3


@pytest.mark.parametrize("value", PLACEHOLDERS)
@pytest_twisted.ensureDeferred
async def test_a_placeholder_in_the_body(client: Client, value: str) -> None:
    """A client that writes a missing value as text does not share a session with the others that do."""
    talks = [await client.talk(f"I am {name}", "who am I?", session_id=value) for name in ("Ann", "Bob")]
    assert len({value, *(session_id for _, session_id in talks)}) == 3


@pytest.mark.parametrize(
    "value",
    ["locale", "localhost:1", "my-local:1", "nullable", "channel:7", "defaults", "100%", "a{b}", "0", "$5", "null:7"],
)
@pytest_twisted.ensureDeferred
async def test_no_placeholder(client: Client, value: str) -> None:
    """A session's own name is not mistaken for a placeholder."""
    for named in ({"session_id": value}, {"headers": {"X-Session-Id": value}}):
        assert (await client.ask(user("one"), **named)).session_id == value


@every_api
@pytest_twisted.ensureDeferred
async def test_a_name_after_its_conversation_was_presented(client: Client, path: str) -> None:
    """A caller cannot name its way into the session that another, who began alike, was given for the conversation."""
    (said, _), (_, kept) = [await client.talk("hello", path=path) for _ in range(2)]
    other = await client.ask(*said, user("a secret"), path=path)
    assert other.session_id == kept
    for named in ({"session_id": kept}, {"headers": {"X-Session-Id": kept}}):
        answer = await client.ask(user("what was said?"), path=path, **named)
        assert answer.session_id != kept
    # Whoever presents all of it goes on, named or not.
    whole = (*said, user("a secret"), assistant(other.text), user("and?"))
    assert (await client.ask(*whole, path=path, session_id=kept)).session_id == kept


@every_api
@pytest_twisted.ensureDeferred
async def test_a_remembered_session_is_named(client: Client, path: str) -> None:
    """A user's conversation would go on where somebody has asked something else in between."""
    said, session_id = await client.talk("one", path=path)
    await client.ask(user("something else"), path=path, session_id=session_id)
    assert (await client.ask(*said, user("two"), path=path)).session_id != session_id


@every_api
@pytest_twisted.ensureDeferred
async def test_a_session_under_way_is_named(client: Client, path: str) -> None:
    """A user's conversation would go on where somebody has asked something else while the answer was being written."""
    question = user(script("one", {"wait": "go"}))
    received, session_id = await client.begin(question, path=path)
    await client.ask(user("something else"), path=path, session_id=session_id)
    client.engine.go("go")
    await received.ended
    assert (await client.ask(question, assistant("one"), user("two"), path=path)).session_id != session_id


@pytest.mark.parametrize("path", ["/v1/completions", "/api/generate"])
@pytest_twisted.ensureDeferred
async def test_prompts_take_no_part(client: Client, path: str) -> None:
    """An editor's completions would turn up in the conversation of somebody who said the same words."""
    said, session_id = await client.talk("one")
    for prompt in ("one", "two"):
        body = {"model": "brunix", "prompt": prompt, "stream": False}
        reply = await client.gateway.ask("POST", path, json=body)
        assert reply.headers["x-session-id"] != session_id
        going_on = await client.ask(user("two"), assistant("two "), user("three"))
        assert going_on.session_id != reply.headers["x-session-id"]
    assert (await client.ask(*said, user("two"))).session_id == session_id


# Side requests.

TASK: Final = "### Task:\nGenerate a concise title.\n### Chat History:\n<chat_history>one</chat_history>"


@every_api
@pytest.mark.parametrize("task", [TASK, "\n  " + TASK], ids=["as it is", "after white space"])
@pytest.mark.parametrize("header", ["X-OpenWebUI-Chat-Id", "X-Session-Id"])
@pytest_twisted.ensureDeferred
async def test_a_side_request_with_the_chats_header(client: Client, path: str, task: str, header: str) -> None:
    """The requests for a title, tags and follow-ups would be part of the conversation that they are about."""
    headers = {header: "chat-1"}
    assert (await client.ask(user("one"), path=path, headers=headers)).session_id == "chat-1"
    aside = {(await client.ask(user(task), path=path, headers=headers)).session_id for _ in range(3)}
    assert len(aside) == 3
    assert not aside & {"chat-1", "default", ""}
    assert (await client.ask(user("two"), path=path, headers=headers)).session_id == "chat-1"


@every_api
@pytest_twisted.ensureDeferred
async def test_a_side_request_after_the_conversation(client: Client, path: str) -> None:
    """A side request that comes with the conversation's messages would take its session away from it."""
    said, session_id = await client.talk("one", path=path)
    assert (await client.ask(*said, user(TASK), path=path)).session_id != session_id
    assert (await client.ask(*said, user("two"), path=path)).session_id == session_id


@every_api
@pytest_twisted.ensureDeferred
async def test_a_side_request_with_a_session_of_its_own(client: Client, path: str) -> None:
    """A caller who names a session in the body would be answered in another, because of how the question begins."""
    headers = {"X-OpenWebUI-Chat-Id": "chat-1"}
    answer = await client.ask(user(TASK), path=path, headers=headers, session_id="chat-1")
    assert answer.session_id == "chat-1"


@pytest.mark.parametrize("question", ["# Task: x", "My ### Task:", "### task: x", "## Task:"])
@pytest_twisted.ensureDeferred
async def test_no_side_request(client: Client, question: str) -> None:
    """A user's own question would be left out of the chat that it was asked in."""
    answer = await client.ask(user(question), headers={"X-OpenWebUI-Chat-Id": "chat-1"})
    assert answer.session_id == "chat-1"


# Settings.


@every_api
@pytest_twisted.ensureDeferred
async def test_turned_off(engine: ScriptedEngine, path: str) -> None:
    """An operator who wants nothing remembered would not be obeyed, or named sessions would stop working too."""
    gateway = await run_gateway(grpc_target=engine.target, drain_s=0.0, session_continuity=False)
    client = Client(gateway, engine)
    said, session_id = await client.talk("one", path=path)
    assert (await client.ask(*said, user("two"), path=path)).session_id != session_id
    await client.talk("one", "two", path=path, session_id="mine")
    await stop_gateway(gateway)


@pytest_twisted.ensureDeferred
async def test_how_many(engine: ScriptedEngine) -> None:
    """The operator's bound on what is remembered would have no effect."""
    gateway = await run_gateway(grpc_target=engine.target, drain_s=0.0, session_max=2)
    client = Client(gateway, engine)
    talks = [await client.talk(question) for question in ("one", "two", "three")]
    going_on = [(await client.ask(*said, user("more"))).session_id == session_id for said, session_id in talks[::-1]]
    assert going_on == [True, True, False]
    await stop_gateway(gateway)


@every_api
@pytest_twisted.ensureDeferred
async def test_a_question_that_was_turned_away(engine: ScriptedEngine, path: str) -> None:
    """A client that repeats a question which found the gateway too busy would be answered without its context."""
    gateway = await run_gateway(grpc_target=engine.target, drain_s=0.0, thread_workers=1, queue_size=0)
    client = Client(gateway, engine)
    said, session_id = await client.talk("one", path=path)
    busy, _ = await client.begin(user(script("a", {"wait": "the end"})), path=path)
    refused = await gateway.ask("POST", path, json=body_for(path, [*said, user("two")]))
    assert refused.status == busy_status(path)
    engine.go("the end")
    await busy.ended
    assert (await client.ask(*said, user("two"), path=path)).session_id == session_id
    await stop_gateway(gateway)
