"""What Anthropic's clients send is understood, and what they get is what they read."""

from __future__ import annotations

import json
from typing import Any, Final

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from answers import HEAD, MODELS, body_of, bounded
from answers import ending as ending_of
from brunix_twisted import errors
from brunix_twisted.dialects import anthropic, anthropic_models
from brunix_twisted.dialects.anthropic_requests import CountTokensRequest, MessagesRequest
from brunix_twisted.errors import GatewayError, Kind
from brunix_twisted.limits import count_tokens
from brunix_twisted.model import CompletionEnd, CompletionRequest, FinishReason, Limits, Model, Turn
from wire import check, message_events

# What the question counts in the answers below.
MESSAGES: Final = anthropic.Messages(MODELS, lambda _: 26)

USER: Final[dict[str, object]] = {"role": "user", "content": "Hi"}
HELLO: Final[dict[str, object]] = {"role": "assistant", "content": "Hello!"}
REQUIRED: Final[dict[str, object]] = {"model": "brunix", "max_tokens": 1024, "messages": [USER]}
PLAIN: Final = CompletionRequest(
    model="brunix", queries=("Hi",), stream=False, prompt="Hi", history=(), limits=Limits(max_tokens=1024)
)


def parsed(parameters: dict[str, object]) -> CompletionRequest:
    return MESSAGES.parse(body_of(**REQUIRED | parameters))


def text(said: str, **more: object) -> dict[str, object]:
    return {"type": "text", "text": said, **more}


CACHED: Final = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
CALL: Final = {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {"path": "a.py"}}
IMAGE: Final = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}
REMINDER: Final = {"type": "text", "text": "<system-reminder>\nBe kind.\n</system-reminder>\n"}
THOUGHT: Final = {"type": "thinking", "thinking": "Hm", "signature": "x"}


def result(content: object) -> dict[str, object]:
    return {"type": "tool_result", "tool_use_id": "toolu_1", "content": content}


# What is sent beside "Hi", and what it changes in what is asked.
PARAMETERS: Final[list[tuple[dict[str, object], dict[str, object]]]] = [
    ({}, {}),
    ({"stream": True}, {"stream": True}),
    ({"stream": False}, {}),
    ({"max_tokens": 256.0}, {"limits": Limits(max_tokens=256)}),
    ({"max_tokens": 0}, {"limits": Limits(max_tokens=0)}),
    ({"max_tokens": None}, {"limits": Limits()}),
    ({"stop_sequences": ["\n\nHuman:"]}, {"limits": Limits(stop=("\n\nHuman:",), max_tokens=1024)}),
    ({"stop_sequences": list("abcdef")}, {"limits": Limits(stop=tuple("abcdef"), max_tokens=1024)}),
    ({"stop_sequences": []}, {}),
    ({"stop_sequences": ["", "b"]}, {"limits": Limits(stop=("b",), max_tokens=1024)}),
    ({"session_id": "s-1"}, {"session_id": "s-1"}),
    ({"session_id": ""}, {}),
    ({"model": "brunix:latest"}, {"model": "brunix:latest"}),
    ({"system": "Be brief"}, {"prompt": "Be brief\nHi", "instructions": ("Be brief",)}),
    (
        {"system": [text("Be"), text("brief", **CACHED)]},
        {"prompt": "Be\nbrief\nHi", "instructions": ("Be", "brief")},
    ),
    ({"temperature": 1, "top_k": 5, "top_p": 0.7}, {"ignored": ("temperature", "top_k", "top_p")}),
    ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, {"ignored": ("thinking",)}),
    ({"metadata": {"user_id": "someone"}}, {"ignored": ("metadata",)}),
    ({"tools": []}, {"ignored": ("tools",)}),
    ({"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}, {}),
    ({"tool_choice": {"type": "none"}}, {}),
    ({"thread": {"type": "create"}}, {}),
    # Bedrock's and Vertex's, who have it here and not in a header; and what is still to come.
    ({"anthropic_version": "2023-06-01", "x_next": {}}, {"ignored": ("anthropic_version", "x_next")}),
]


@pytest.mark.parametrize(("parameters", "changes"), PARAMETERS)
def test_parameters(parameters: dict[str, object], changes: dict[str, Any]) -> None:
    """A setting has no effect, or another one than Anthropic's documentation says."""
    assert parsed(parameters) == attrs.evolve(PLAIN, **changes)


def test_null_means_absent() -> None:
    """A client that writes out every setting it knows, most of them null, is refused."""
    names = set(MessagesRequest.__struct_fields__) - set(REQUIRED)
    assert parsed(dict.fromkeys(names)) == PLAIN


def test_the_number_of_tokens_need_not_be_limited() -> None:
    """A client that leaves out what only Anthropic needs is refused."""
    assert MESSAGES.parse(body_of(model="brunix", messages=[USER])).limits == Limits()


# The messages that clients are known to send, and what is asked.
CONVERSATIONS: Final[list[tuple[list[dict[str, object]], dict[str, object]]]] = [
    ([{"role": "user", "content": [text("a", **CACHED), IMAGE, text("b")]}], {"queries": ("a\nb",), "prompt": "a\nb"}),
    ([{"role": "user", "content": text("a")}], {"queries": ("a",), "prompt": "a"}),
    ([{"role": "user", "content": [{"text": "a"}]}], {"queries": ("a",), "prompt": "a"}),
    ([{"role": "user", "content": [{"type": "search_result", "content": [text("x")]}, text("a")]}],
     {"queries": ("a",), "prompt": "a"}),
    # A conversation, as its answers were sent or as they are sent back; instructions are no part of it.
    ([{"role": "system", "content": "Be brief"}, USER, {"role": "assistant", "content": [text("Hello!")]},
      {"role": "user", "content": "Why?"}],
     {"queries": ("Why?",), "prompt": "Be brief\nHi\nHello!\nWhy?", "history": (Turn("Hi", "Hello!"),),
      "instructions": ("Be brief",)}),
    ([USER, {"role": "assistant", "content": [THOUGHT, text("Hello!", citations=None)]},
      {"role": "user", "content": "Why?"}],
     {"queries": ("Why?",), "prompt": "Hi\nHello!\nWhy?", "history": (Turn("Hi", "Hello!"),)}),
    ([USER, HELLO, {"role": "system", "content": [text("Be brief")]}, {"role": "user", "content": "Why?"}],
     {"queries": ("Why?",), "prompt": "Hi\nHello!\nBe brief\nWhy?", "history": (Turn("Hi", "Hello!"),),
      "instructions": ("Be brief",)}),
    ([USER, HELLO, {"role": "user", "content": "And"}, {"role": "user", "content": "why?"}],
     {"queries": ("why?",), "prompt": "Hi\nHello!\nAnd\nwhy?", "history": (Turn("Hi", "Hello!"),)}),
    # The beginning of an answer, which the engine cannot go on from: the question is asked.
    ([USER, HELLO], {"prompt": "Hi\nHello!", "history": None}),
    # What an agent tells its model, in messages and in blocks of its own: it counts, and nobody asks it.
    ([{"role": "user", "content": [REMINDER, text("Hi")]}, {"role": "system", "content": [text("Be brief")]}],
     {"prompt": f"{REMINDER['text']}\nHi\nBe brief", "instructions": ("Be brief",)}),
    ([{"role": "user", "content": [text("Hi"), REMINDER]}, {"role": "system", "content": "Be brief"}, HELLO,
      {"role": "user", "content": [text("Why?", **CACHED)]}],
     {"queries": ("Why?",), "prompt": f"Hi\n{REMINDER['text']}\nBe brief\nHello!\nWhy?",
      "instructions": ("Be brief",),
      "history": (Turn("Hi", "Hello!"),)}),
    ([USER, {"role": "user", "content": [REMINDER]}, HELLO, {"role": "user", "content": [REMINDER, text("Why?")]},
      {"role": "user", "content": [REMINDER, REMINDER]}],
     {"queries": ("Why?",), "prompt": "\n".join(
         ["Hi", REMINDER["text"], "Hello!", REMINDER["text"], "Why?", REMINDER["text"], REMINDER["text"]]),
      "history": (Turn("Hi", "Hello!"),), "reminders": (REMINDER["text"], REMINDER["text"])}),
    ([USER, {"role": "assistant", "content": [CALL]}, {"role": "user", "content": [result("42"), REMINDER]}],
     {"prompt": f"Hi\n\n{REMINDER['text']}\n42", "history": None, "reminders": (REMINDER["text"],)}),
    # The user's own words are asked, whatever they look like.
    ([{"role": "user", "content": REMINDER["text"]}], {"queries": (REMINDER["text"],), "prompt": REMINDER["text"]}),
    ([{"role": "user", "content": [text("What is <system-reminder>?")]}],
     {"queries": ("What is <system-reminder>?",), "prompt": "What is <system-reminder>?"}),
    ([{"role": "user", "content": [text("<system-reminder> is what?")]}],
     {"queries": ("<system-reminder> is what?",), "prompt": "<system-reminder> is what?"}),
    ([{"role": "user", "content": [text("And </system-reminder>")]}],
     {"queries": ("And </system-reminder>",), "prompt": "And </system-reminder>"}),
    # So are the model's.
    ([USER, {"role": "assistant", "content": [REMINDER, text("Hello!")]}, {"role": "user", "content": "Why?"}],
     {"queries": ("Why?",), "prompt": f"Hi\n{REMINDER['text']}\nHello!\nWhy?",
      "history": (Turn("Hi", f"{REMINDER['text']}\nHello!"),)}),
    # Tools: what they say counts as tokens, and no session contains it.
    ([USER, {"role": "assistant", "content": CALL}, {"role": "user", "content": result("42")}],
     {"prompt": "Hi\n\n\n42", "history": None}),
    ([USER, {"role": "assistant", "content": [text("Let me see"), CALL]},
      {"role": "user", "content": [result("42"), text("Why?")]}],
     {"queries": ("Why?",), "prompt": "Hi\nLet me see\nWhy?\n42", "history": (Turn("Hi", "Let me see"),)}),
    ([USER, {"role": "assistant", "content": [CALL]}, {"role": "user", "content": [result([text("4"), text("2")])]}],
     {"prompt": "Hi\n\n\n4\n2", "history": None}),
    ([USER, {"role": "assistant", "content": [CALL]}, {"role": "user", "content": [result(None), text(" ")]}],
     {"prompt": "Hi\n\n ", "history": None}),
    ([USER, {"role": "assistant", "content": [
        {"type": "server_tool_use", "id": "1", "name": "web_search", "input": {"query": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": "1", "content": [
            {"type": "web_search_result", "url": "https://x.example", "title": "x", "encrypted_content": "x"}]},
        text("Hello!")]}, {"role": "user", "content": "Why?"}],
     {"queries": ("Why?",), "prompt": "Hi\nHello!\n\nWhy?", "history": (Turn("Hi", "Hello!"),)}),
    ([USER, {"role": "assistant", "content": [
        {"type": "web_fetch_tool_result", "tool_use_id": "1", "content": {
            "type": "web_fetch_result", "url": "https://x.example", "content": {
                "type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}}},
        {"type": "code_execution_tool_result", "tool_use_id": "2", "content": {
            "type": "code_execution_result", "stdout": "", "stderr": "", "return_code": 0, "content": []}}]},
      {"role": "user", "content": "Why?"}],
     {"queries": ("Why?",), "prompt": "Hi\n\n\n\nWhy?"}),
]  # fmt: skip


@pytest.mark.parametrize(("messages", "changes"), CONVERSATIONS)
def test_conversations_seen_on_the_wire(messages: list[dict[str, object]], changes: dict[str, Any]) -> None:
    """A client that works with the other servers is refused, or something else is asked than its user wrote."""
    assert parsed({"messages": messages}) == attrs.evolve(PLAIN, **changes)


def test_what_an_agent_sends() -> None:
    """An agent is refused for the settings that it sends with every question."""
    ask = parsed(
        {
            "stream": True,
            "max_tokens": 32000,
            "system": [text("x-header: 1"), text("You are an agent. " * 1000, **CACHED)],
            "messages": [{"role": "user", "content": [text("<reminder>…</reminder>"), text("Hi", **CACHED)]}],
            "tools": [
                {"name": "Read", "description": "x" * 25_000, "input_schema": {"type": "object"}, **CACHED},
                {"type": "web_search_20250305", "name": "web_search", "max_uses": 8},
                {"type": "mcp_toolset", "mcp_server_name": "x"},
            ],
            "metadata": {"user_id": "user_0_account__session_0"},
            "thinking": {"type": "adaptive", "display": "omitted"},
            "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
            "output_config": {"effort": "high", "task_budget": {}},
            "cache_control": {"type": "ephemeral"},
            "container": {"id": "x", "skills": []},
            "mcp_servers": [{"type": "url", "url": "https://x.example", "name": "x"}],
            "diagnostics": {"previous_message_id": None},
            "fallbacks": [{"model": "x"}],
            "speed": "fast",
            "service_tier": "auto",
            "inference_geo": "eu",
            "temperature": 1,
        }
    )
    assert ask.queries == ("<reminder>…</reminder>\nHi",)
    assert ask.history == ()
    assert len(ask.ignored) == 14  # all but the stream, the limit, the messages, the system prompt


def test_any_model_may_be_accepted() -> None:
    """A client with a fixed list of models cannot be used, though the operator said that any name will do."""
    anything = anthropic.Messages(Model("brunix", aliases=("*",)), count_tokens)
    assert anything.parse(body_of(model="claude-sonnet-5", messages=[USER])).model == "claude-sonnet-5"


# What is sent beside "Hi", and what is said against it.
BAD: Final[list[tuple[dict[str, object], Kind, str, str]]] = [
    ({"model": "claude-sonnet-5"}, errors.UNKNOWN_MODEL, "model", "The model 'claude-sonnet-5' does not exist"),
    ({"model": None}, errors.INVALID_REQUEST, "model", "Missing required parameter: 'model'"),
    ({"messages": []}, errors.INVALID_REQUEST, "messages", "'messages' must contain a message with the role 'user'"),
    ({"messages": None}, errors.INVALID_REQUEST, "messages", "Missing required parameter: 'messages'"),
    ({"messages": [HELLO]}, errors.INVALID_REQUEST, "messages", "'messages' must contain"),
    ({"messages": [{"role": "tool", "content": "x"}]}, errors.INVALID_REQUEST, "messages[0].role", "Invalid value"),
    ({"messages": [{"role": "user", "content": [IMAGE]}]}, errors.INVALID_REQUEST, "messages[0].content", "The last"),
    ({"messages": [HELLO, USER, {"role": "user", "content": ""}]}, errors.INVALID_REQUEST, "messages[2].content", ""),
    ({"messages": [{"role": "user", "content": [result("42")]}]}, errors.INVALID_REQUEST, "messages", "'messages'"),
    ({"max_tokens": -1}, errors.INVALID_REQUEST, "max_tokens", "'max_tokens' is -1; it must not be negative"),
    ({"stop_sequences": "x"}, errors.INVALID_REQUEST, "stop_sequences", "Invalid value for 'stop_sequences'"),
    ({"stop_sequences": ["x" * 4097]}, errors.INVALID_REQUEST, "stop_sequences", "'stop_sequences' has 4097 "),
    ({"tool_choice": {"type": "any"}}, errors.INVALID_REQUEST, "tool_choice", "'tool_choice' requires a"),
    ({"tool_choice": {"type": "tool", "name": "f"}}, errors.INVALID_REQUEST, "tool_choice", "'tool_choice' requires"),
    ({"tool_choice": {"type": "nonsense"}}, errors.INVALID_REQUEST, "tool_choice", "'tool_choice' requires"),
    ({"output_config": {"format": {"type": "json_schema", "schema": {}}}},
     errors.INVALID_REQUEST, "output_config.format", "'output_config.format' requires an answer in a JSON schema"),
    ({"output_format": {"type": "json_schema", "schema": {}}},
     errors.INVALID_REQUEST, "output_format", "'output_format' requires an answer in a JSON schema"),
    ({"tool_choice": {"name": "f"}}, errors.INVALID_REQUEST, "tool_choice", "'tool_choice' requires"),
    ({"thread": {"type": "continue", "previous_message_id": "msg_1"}}, errors.INVALID_REQUEST, "thread", "'thread'"),
    ({"thread": {"type": "continue"}}, errors.INVALID_REQUEST, "thread", "'thread' cannot continue"),
    ({"thread": {"previous_message_id": "msg_1"}}, errors.INVALID_REQUEST, "thread", "'thread' cannot continue"),
    ({"compaction": {}}, errors.INVALID_REQUEST, "compaction", "'compaction' is not supported"),
]  # fmt: skip


@pytest.mark.parametrize(("parameters", "kind", "param", "message"), BAD)
def test_refusals(parameters: dict[str, object], kind: Kind, param: str, message: str) -> None:
    """A request that cannot be answered as it was meant is answered all the same, or not told what is wrong."""
    with pytest.raises(GatewayError) as caught:
        parsed(parameters)
    assert (caught.value.kind, caught.value.param) == (kind, param)
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize("name", ["model", "messages"])
def test_what_is_missing_is_named(name: str) -> None:
    """A client without a model or a message is not told that this is what is missing."""
    body = body_of(**{key: value for key, value in REQUIRED.items() if key != name})
    for read in (MESSAGES.parse, counted):
        with pytest.raises(GatewayError, match=f"Missing required parameter: '{name}'") as caught:
            read(body)
        assert caught.value.param == name


@pytest.mark.parametrize("name", MessagesRequest.__struct_fields__)
def test_wrong_types_are_refused(name: str) -> None:
    """A mistyped setting is passed over in silence."""
    with pytest.raises(GatewayError) as caught:
        parsed({name: [[True]]})
    assert caught.value.kind is errors.INVALID_REQUEST
    assert caught.value.param is not None
    assert caught.value.param.partition("[")[0] == name


# Counts.


def counted(body_bytes: bytes) -> int:
    body = json.loads(anthropic.count_tokens_body(MODELS, body_bytes, count_tokens))
    check("anthropic_tokens_count", body)
    return int(body["input_tokens"])


@pytest.mark.parametrize("messages", [messages for messages, _ in CONVERSATIONS])
@pytest.mark.parametrize("system", [None, "Be brief", [text("Be"), text("brief")]])
def test_a_question_counts_what_its_answer_says(messages: list[dict[str, object]], system: object) -> None:
    """A client plans with one number of tokens and is told another."""
    body = body_of(model="brunix", messages=messages, system=system, stream=True, tools=[{"name": "f"}])
    dialect = anthropic.Messages(MODELS, count_tokens)
    ask = dialect.parse(body)
    expected = count_tokens(ask.prompt)
    assert counted(body) == expected
    begun = dialect.encoder(ask, HEAD).begin().splitlines()[1].removeprefix(b"data: ")
    assert json.loads(begun)["message"]["usage"]["input_tokens"] == expected


def test_anything_that_is_said_can_be_counted() -> None:
    """A client that counts a part of its conversation is refused because the part asks nothing."""
    assert counted(body_of(model="brunix", messages=[HELLO])) == count_tokens("Hello!")
    assert counted(body_of(model="brunix", messages=[], system="Be brief")) == count_tokens("Be brief")
    assert counted(body_of(model="brunix", messages=[])) == 0
    demand = {"type": "tool", "name": "f"}
    assert counted(body_of(model="brunix", messages=[USER], tool_choice=demand, compaction={})) == count_tokens("Hi")


def test_a_count_needs_the_model() -> None:
    """A count is told for a model that will not answer."""
    with pytest.raises(GatewayError, match="The model 'claude-sonnet-5' does not exist") as caught:
        counted(body_of(model="claude-sonnet-5", messages=[USER]))
    assert caught.value.kind is errors.UNKNOWN_MODEL


@pytest.mark.parametrize("name", CountTokensRequest.__struct_fields__)
def test_wrong_types_are_not_counted(name: str) -> None:
    """A mistyped setting is passed over in silence."""
    with pytest.raises(GatewayError) as caught:
        counted(body_of(**REQUIRED | {name: [[True]]}))
    assert caught.value.param is not None
    assert caught.value.param.partition("[")[0] == name


# Answers.


def ending(reason: FinishReason, stop: str | None = None) -> CompletionEnd:
    whole = ending_of(reason)
    return attrs.evolve(whole, choices=tuple(attrs.evolve(choice, stop=stop) for choice in whole.choices))


def answered(ask: CompletionRequest, *texts: str, reason: FinishReason = "stop", stop: str | None = None) -> bytes:
    encoder = MESSAGES.encoder(ask, HEAD)
    return encoder.begin() + b"".join(encoder.delta(0, piece) for piece in texts) + encoder.finish(ending(reason, stop))


NO_TOOLS: Final = '"output_tokens_details":null,"server_tool_use":null'
UNCACHED: Final = '"cache_creation_input_tokens":0,"cache_read_input_tokens":0'
REST: Final = (
    '"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},'
    '"inference_geo":null,"service_tier":null'
)
MESSAGE: Final = '"id":"msg_1","type":"message","role":"assistant","model":"brunix"'
START: Final = (
    f'event: message_start\ndata: {{"type":"message_start","message":{{{MESSAGE},"content":[],"container":null,'
    f'"stop_details":null,"usage":{{"input_tokens":26,{UNCACHED},"output_tokens":0,{NO_TOOLS},{REST}}},'
    '"stop_reason":null,"stop_sequence":null}}\n\n'
    'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
    '"content_block":{"type":"text","text":"","citations":[]}}\n\n'
    'event: ping\ndata: {"type":"ping"}\n\n'
)


def piece(said: str) -> str:
    return (
        'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        f'"delta":{{"type":"text_delta","text":"{said}"}}}}\n\n'
    )


def end(reason: str, stop: str = "null") -> str:
    return (
        'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
        'event: message_delta\ndata: {"type":"message_delta",'
        f'"delta":{{"stop_reason":"{reason}","stop_sequence":{stop},"stop_details":null,"container":null}},'
        f'"usage":{{"input_tokens":26,{UNCACHED},"output_tokens":2,{NO_TOOLS}}}}}\n\n'
        'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    )


def whole(said: str, reason: str, stop: str = "null") -> str:
    return (
        f'{{{MESSAGE},"content":[{{"type":"text","text":"{said}","citations":[]}}],"container":null,"stop_details":null,'
        f'"usage":{{"input_tokens":26,{UNCACHED},"output_tokens":2,{NO_TOOLS},{REST}}},'
        f'"stop_reason":"{reason}","stop_sequence":{stop}}}'
    )


ANSWERS: Final[list[tuple[tuple[str, ...], FinishReason, str | None, str, str]]] = [
    (("Hi", " you"), "stop", None, START + piece("Hi") + piece(" you") + end("end_turn"), whole("Hi you", "end_turn")),
    (("Hi",), "length", None, START + piece("Hi") + end("max_tokens"), whole("Hi", "max_tokens")),
    (("Hi",), "stop", "\n", START + piece("Hi") + end("stop_sequence", r'"\n"'), whole("Hi", "stop_sequence", r'"\n"')),
    ((), "stop", None, START + end("end_turn"), whole("", "end_turn")),
    ((), "length", None, START + end("max_tokens"), whole("", "max_tokens")),
]


@pytest.mark.parametrize(("texts", "reason", "stop", "streamed", "in_one"), ANSWERS)
def test_answers(texts: tuple[str, ...], reason: FinishReason, stop: str | None, streamed: str, in_one: str) -> None:
    """A client shows no text, no end, or a wrong account of an answer, or reports a complete one as broken."""
    stream = answered(parsed({"stream": True}), *texts, reason=reason, stop=stop)
    assert stream == streamed.encode("ascii")
    message_events(stream)
    body = answered(parsed({}), *texts, reason=reason, stop=stop)
    assert body == in_one.encode("ascii")
    check("anthropic_message", json.loads(body))


@pytest.mark.parametrize(
    ("stream", "content_type"),
    [(True, b"text/event-stream; charset=utf-8"), (False, b"application/json; charset=utf-8")],
)
def test_the_model_is_echoed(stream: bool, content_type: bytes) -> None:  # noqa: FBT001 - one of the table's columns
    """A client that checks which model answered, or what kind of body, finds another than it asked for."""
    ask = parsed({"model": "brunix:latest", "stream": stream})
    assert b'"model":"brunix:latest"' in answered(ask, "Hi")
    assert MESSAGES.encoder(ask, HEAD).content_type == content_type


def accumulated(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Put a stream together as the official packages do."""
    message: dict[str, Any] = {}
    for event in events:
        if event["type"] == "message_start":
            message = event["message"]
        elif event["type"] == "content_block_start":
            message["content"].append(event["content_block"])
        elif event["type"] == "content_block_delta":
            message["content"][event["index"]]["text"] += event["delta"]["text"]
        elif event["type"] == "message_delta":
            message |= event["delta"]
            message["usage"] |= event["usage"]
    return message


@bounded
@given(st.lists(st.text(min_size=1), max_size=5))
def test_any_text_arrives(texts: list[str]) -> None:
    """An answer loses or gains characters on its way, or differs when it is streamed."""
    stream = answered(parsed({"stream": True}), *texts)
    body = answered(parsed({}), *texts)
    assert body.isascii()
    message = json.loads(body)
    assert message["content"] == [{"type": "text", "text": "".join(texts), "citations": []}]
    assert accumulated(message_events(stream)) == message


def test_a_heartbeat_is_no_part_of_the_answer() -> None:
    """A sign of life shows up in the text, or breaks the client that it was to keep waiting."""
    ask = parsed({"stream": True})
    encoder = MESSAGES.encoder(ask, HEAD)
    assert encoder.heartbeat() == b'event: ping\ndata: {"type":"ping"}\n\n'
    counting = anthropic.Messages(MODELS, lambda _: 26, heartbeat="delta").encoder(ask, HEAD)
    assert counting.heartbeat() == piece("").encode()
    for form in (encoder, counting):
        stream = form.begin() + form.heartbeat() + form.delta(0, "Hi") + form.heartbeat() + form.finish(ending("stop"))
        assert accumulated(message_events(stream)) == json.loads(answered(parsed({}), "Hi"))
    assert MESSAGES.encoder(parsed({}), HEAD).heartbeat() == b""


FAILURE: Final = GatewayError(errors.ENGINE_ERROR, "The engine failed", detail="disk full")
FAILED: Final = b'{"type":"error","error":{"type":"api_error","message":"The engine failed"},"request_id":null}'


@pytest.mark.parametrize("texts", [(), ("Half",)])
def test_a_broken_answer_is_not_presented_as_whole(texts: tuple[str, ...]) -> None:
    """A user takes half an answer for all of it."""
    encoder = MESSAGES.encoder(parsed({"stream": True}), HEAD)
    begun = encoder.begin() + b"".join(encoder.delta(0, said) for said in texts)
    broken = encoder.fail(FAILURE)
    assert broken == b"event: error\ndata: " + FAILED + b"\n\n"
    assert accumulated(message_events(begun + broken))["stop_reason"] is None
    in_one = MESSAGES.encoder(parsed({}), HEAD)
    assert in_one.begin() + b"".join(in_one.delta(0, said) for said in texts) + in_one.fail(FAILURE) == FAILED


# Failures.

TOLD: Final[dict[str, tuple[int, str]]] = {
    "INVALID_REQUEST": (400, "invalid_request_error"),
    "WRONG_HOST": (403, "permission_error"),
    "WRONG_ORIGIN": (403, "permission_error"),
    "SIDE_REQUEST": (400, "invalid_request_error"),
    "UNKNOWN_MODEL": (404, "not_found_error"),
    "UNKNOWN_PATH": (404, "not_found_error"),
    "PREVIOUS_NOT_FOUND": (404, "not_found_error"),
    "NOT_FOUND": (404, "not_found_error"),
    "NOT_OFFERED": (404, "not_found_error"),
    "WRONG_METHOD": (405, "invalid_request_error"),
    "NO_WEBSOCKET": (426, "invalid_request_error"),
    "TOO_SLOW": (408, "invalid_request_error"),
    "BODY_TOO_LARGE": (413, "request_too_large"),
    "URL_TOO_LONG": (414, "invalid_request_error"),
    "UNSUPPORTED_CODING": (415, "invalid_request_error"),
    "RATE_LIMITED": (429, "rate_limit_error"),
    "QUEUE_PER_CALLER": (429, "rate_limit_error"),
    "HEADERS_TOO_LARGE": (431, "invalid_request_error"),
    "CANCELLED": (499, "invalid_request_error"),
    "INTERNAL": (500, "api_error"),
    "NOT_IMPLEMENTED": (501, "invalid_request_error"),
    "ENGINE_ERROR": (502, "api_error"),
    "ENGINE_AUTH": (502, "api_error"),
    "ENGINE_UNAVAILABLE": (503, "api_error"),
    "OVERLOADED": (529, "overloaded_error"),
    "STOPPING": (503, "api_error"),
    "ENGINE_TIMEOUT": (504, "timeout_error"),
    "UNKNOWN_VERSION": (505, "invalid_request_error"),
}


@pytest.mark.parametrize("name", [name for name, kind in vars(errors).items() if isinstance(kind, Kind)])
def test_errors(name: str) -> None:
    """A client fails on the error that it should have shown, retries in vain, or shows what was for the log only."""
    kind = getattr(errors, name)
    status, told = TOLD[name]
    body = json.loads(anthropic.error_body(GatewayError(kind, "Nö\n", detail="disk full")))
    check("anthropic_error", body)
    assert body == {"type": "error", "error": {"type": told, "message": "Nö\n"}, "request_id": None}
    assert anthropic.error_status(kind) == status


@pytest.mark.parametrize(
    ("param", "message", "told"),
    [
        (None, "No", "No"),
        ("messages[2].content", "It has no text", "messages[2].content: It has no text"),
        ("max_tokens", "'max_tokens' is -1", "'max_tokens' is -1"),
    ],
)
def test_the_parameter_at_fault_is_told(param: str | None, message: str, told: str) -> None:
    """A caller is not told which of a hundred messages is at fault."""
    body = json.loads(anthropic.error_body(GatewayError(errors.INVALID_REQUEST, message, param=param)))
    assert body["error"]["message"] == told


# The model.


def test_models() -> None:
    """A client finds the model in the list as it finds it by its name, and by no name that is not accepted."""
    model = json.loads(anthropic_models.model_body(MODELS, "brunix", HEAD.created_s))
    check("anthropic_model", model)
    assert (model["id"], model["display_name"], model["max_input_tokens"]) == ("brunix", "brunix", 131_072)
    assert (model["created_at"], model["lifecycle"]) == ("2026-11-22T12:00:00Z", "active")
    listed = json.loads(anthropic_models.models_body(MODELS, HEAD.created_s))
    named = json.loads(anthropic_models.model_body(MODELS, "old", HEAD.created_s))
    assert named == model | {"id": "old", "display_name": "old"}
    assert listed == {"data": [model, named], "has_more": False, "first_id": "brunix", "last_id": "old"}
    with pytest.raises(GatewayError, match="The model 'gpt-4o' does not exist") as caught:
        anthropic_models.model_body(MODELS, "gpt-4o", HEAD.created_s)
    assert caught.value.kind is errors.UNKNOWN_MODEL
