"""What clients of OpenAI's Responses send is understood, and what they get is what they read."""

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
from brunix_twisted.dialects import responses
from brunix_twisted.dialects.responses_requests import ResponsesRequest
from brunix_twisted.errors import GatewayError, Kind
from brunix_twisted.model import CompletionEnd, CompletionRequest, EditorContext, FinishReason, Limits, Turn
from wire import check, named_comments, named_events, response_events

DIALECT: Final = responses.Responses(MODELS)
# What is asked by the request that has no more than it must.
PLAIN: Final = CompletionRequest(
    model="brunix",
    queries=("Hi",),
    stream=False,
    prompt="Hi",
    history=(),
    stored=True,
)


def parsed(**parameters: object) -> CompletionRequest:
    return DIALECT.parse(body_of(**{"model": "brunix", "input": "Hi"} | parameters))


# What is sent beside "Hi", and what it changes in what is asked.
PARAMETERS: Final[list[tuple[dict[str, object], dict[str, object]]]] = [
    ({}, {}),
    ({"stream": True}, {"stream": True}),
    ({"stream": False, "stream_options": {}}, {}),
    ({"stream_options": {"include_obfuscation": False}}, {"ignored": ("stream_options.include_obfuscation",)}),
    ({"max_output_tokens": 256}, {"limits": Limits(max_tokens=256), "echoed_params": {"max_output_tokens": 256}}),
    ({"max_output_tokens": 16.0}, {"limits": Limits(max_tokens=16), "echoed_params": {"max_output_tokens": 16}}),
    ({"max_output_tokens": 0}, {"limits": Limits(max_tokens=0), "echoed_params": {"max_output_tokens": 0}}),
    ({"session_id": "s-1"}, {"session_id": "s-1"}),
    ({"session_id": ""}, {}),
    ({"previous_response_id": "resp_ab"},
     {"previous_response_id": "ab", "history": None, "echoed_params": {"previous_response_id": "resp_ab"}}),
    ({"previous_response_id": ""}, {}),
    # Whether the session is the right one is not known here, nor whether the id is.
    ({"previous_response_id": "resp_ab", "session_id": "s-1"},
     {"previous_response_id": "ab", "history": None, "session_id": "s-1",
      "echoed_params": {"previous_response_id": "resp_ab"}}),
    ({"store": True}, {"echoed_params": {"store": True}}),
    ({"store": False}, {"stored": False, "echoed_params": {"store": False}}),
    ({"metadata": {}}, {"echoed_params": {"metadata": {}}}),
    ({"metadata": {"k" * 64: "v" * 512}}, {"echoed_params": {"metadata": {"k" * 64: "v" * 512}}}),
    ({"metadata": {str(n): "" for n in range(16)}}, {"echoed_params": {"metadata": {str(n): "" for n in range(16)}}}),
    ({"user": "someone"}, {}),
    ({"user": '{"selected_text": "eA=="}'}, {"editor": EditorContext(selected_text="eA==")}),
    ({"instructions": "Be brief"},
     {"prompt": "Be brief\nHi", "instructions": ("Be brief",)}),
    ({"instructions": ""}, {}),
    ({"background": True}, {"ignored": ("background",)}),
    ({"prompt": {"id": "pmpt_1"}}, {"ignored": ("prompt",)}),
    ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {}}, "verbosity": "low"}},
     {"ignored": ("text",)}),
    ({"temperature": 0, "top_p": 0.5, "truncation": "auto"},
     {"ignored": ("temperature", "top_p", "truncation"),
      "echoed_params": {"temperature": 0, "top_p": 0.5, "truncation": "auto"}}),
    ({"text": {"format": {"type": "json_object"}}}, {"ignored": ("text",)}),
    ({"text": {"verbosity": "low"}}, {"ignored": ("text",)}),
    ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {}}}}, {"ignored": ("text",)}),
    ({"user": '{"editor_content": "aGk="'}, {"ignored": ("user",)}),
    ({"frequency_penalty": 0.5, "presence_penalty": -1},
     {"ignored": ("frequency_penalty", "presence_penalty"),
      "echoed_params": {"frequency_penalty": 0.5, "presence_penalty": -1}}),
    ({"top_logprobs": 2.0, "max_tool_calls": 3, "parallel_tool_calls": False},
     {"ignored": ("max_tool_calls", "parallel_tool_calls", "top_logprobs"),
      "echoed_params": {"top_logprobs": 2, "max_tool_calls": 3, "parallel_tool_calls": False}}),
    ({"tools": [{"type": "function", "name": "f", "parameters": {}}], "tool_choice": "auto"},
     {"ignored": ("tools",), "echoed_params": {"tool_choice": "auto"}}),
    ({"tool_choice": "none"}, {"echoed_params": {"tool_choice": "none"}}),
    ({"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]}}, {}),
    # Of another API, or none.
    ({"stop": ["x"], "max_tokens": 5, "client_metadata": {}}, {"ignored": ("stop", "max_tokens", "client_metadata")}),
    # Every spelling of the model, echoed as it came.
    ({"model": "brunix:latest"}, {"model": "brunix:latest"}),
    ({"model": "old"}, {"model": "old"}),
]  # fmt: skip


@pytest.mark.parametrize(("parameters", "changes"), PARAMETERS)
def test_parameters(parameters: dict[str, object], changes: dict[str, Any]) -> None:
    """A setting has no effect, or another one than the documentation says."""
    assert parsed(**parameters) == attrs.evolve(PLAIN, **changes)


def test_null_means_absent() -> None:
    """A client that writes out every setting it knows, most of them null, is refused."""
    names = set(ResponsesRequest.__struct_fields__) - {"model", "input"}
    assert parsed(**dict.fromkeys(names)) == PLAIN


def user(text: str, **keys: object) -> dict[str, object]:
    return {"role": "user", "content": [{"type": "input_text", "text": text}], **keys}


def answer(text: str) -> dict[str, object]:
    """Send an answer back just as it was got."""
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [part]}


def reference(name: str) -> dict[str, object]:
    return {"type": "item_reference", "id": name}


CALL: Final = {"type": "function_call", "id": "fc_1", "call_id": "1", "name": "f", "arguments": "{}"}
CALLED: Final = {"type": "function_call_output", "call_id": "1", "output": [{"type": "input_text", "text": "42"}]}
REASONING: Final[dict[str, object]] = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [],
    "content": None,
    "encrypted_content": "x",
}

# The input, and what is asked.
INPUTS: Final[list[tuple[object, dict[str, object]]]] = [
    (" Hi\n", {"queries": (" Hi\n",), "prompt": " Hi\n"}),
    ([{"role": "user", "content": "Hi"}], {}),
    ([{"type": "message", "role": "user", "content": "Hi", "phase": None}], {}),
    ([user("Hi", type="message", id="msg_0", status="completed")], {}),
    ([{"role": "user", "content": [
        {"type": "input_text", "text": "a"},
        {"type": "input_image", "image_url": "data:,", "detail": "auto"},
        {"type": "input_file", "file_id": "f"},
        {"type": "input_text", "text": "b", "prompt_cache_breakpoint": {}}]}],
     {"queries": ("a\nb",), "prompt": "a\nb"}),
    # A conversation, as its answers were got and in short; instructions are no part of it.
    ([{"role": "developer", "content": "Be brief"}, user("Hi"), answer("Hello!"), user("Why?")],
     {"queries": ("Why?",), "prompt": "Be brief\nHi\nHello!\nWhy?", "history": (Turn("Hi", "Hello!"),),
      "instructions": ("Be brief",)}),
    ([user("Hi"), {"role": "assistant", "content": "Hello!"}, user("Why?")],
     {"queries": ("Why?",), "prompt": "Hi\nHello!\nWhy?", "history": (Turn("Hi", "Hello!"),)}),
    # What Codex puts before the first question.
    ([{"type": "message", **user("<environment_context>")}, {"type": "message", **user("Hi")}],
     {"prompt": "<environment_context>\nHi"}),
    # Whatever else an agent keeps: it has no text, and no engine session contains it.
    ([user("Hi"), REASONING, CALL, CALLED],
     {"prompt": "Hi\n\n\n", "history": None}),
    ([user("Hi"), CALL, CALLED, answer("42"), user("Why?")],
     {"queries": ("Why?",), "prompt": "Hi\n\n\n42\nWhy?", "history": (Turn("Hi", "42"),)}),
    ([user("Hi"), answer("Hello!"), {"type": "of a year to come", "role": "user", "summary": 5}, user("Why?")],
     {"queries": ("Why?",), "prompt": "Hi\nHello!\n\nWhy?", "history": (Turn("Hi", "Hello!"),)}),
    # Nor is it a message if its type is the word for a role.
    ([user("Hi"), {"type": "assistant", "content": "Hello!"}, user("Why?")],
     {"queries": ("Why?",), "prompt": "Hi\n\nWhy?"}),
    ([user("Hi"), {"type": "user", "content": "Why?"}], {"prompt": "Hi\n", "history": None}),
    # An earlier answer, told by its id alone.
    ([user("Hi"), reference("msg_ab"), user("Why?")],
     {"queries": ("Why?",), "prompt": "Hi\n\nWhy?", "history": None, "previous_response_id": "ab"}),
    ([user("a"), reference("rs_1"), reference("msg_a"), user("b"), {"id": "msg_b"},
      {"role": "system", "content": "Be brief"}, {"role": "developer", "content": "Be kind"}, user("c"), user("d")],
     {"queries": ("d",), "prompt": "a\n\n\nb\n\nBe brief\nBe kind\nc\nd", "history": None,
      "instructions": ("Be brief", "Be kind"),
      "previous_response_id": "b"}),
    # Whose text is there after all, or which is not what the question goes on from.
    ([user("a"), reference("msg_a"), user("b"), answer("B"), user("c")],
     {"queries": ("c",), "prompt": "a\n\nb\nB\nc", "history": (Turn("b", "B"),)}),
    ([user("Hi"), reference("msg_ab"), CALL, CALLED], {"prompt": "Hi\n\n\n", "history": None}),
    ([user("a"), reference("msg_a"), {"type": "of a year to come", "role": "user"}, user("b")],
     {"queries": ("b",), "prompt": "a\n\n\nb"}),
]  # fmt: skip


@pytest.mark.parametrize(("given", "changes"), INPUTS)
def test_inputs_seen_on_the_wire(given: object, changes: dict[str, Any]) -> None:
    """A client that works with the other servers is refused, or something else is asked than its user wrote."""
    assert parsed(input=given) == attrs.evolve(PLAIN, **changes)


def test_what_goes_on_where() -> None:
    """A question that names its session or its predecessor is asked where an older reference leads."""
    referring = [user("a"), reference("msg_ab"), user("b")]
    named = parsed(input=referring, session_id="s")
    assert (named.session_id, named.previous_response_id) == ("s", None)
    assert parsed(input=referring, previous_response_id="resp_cd").previous_response_id == "cd"
    # OpenAI's own items, which were never here, do no harm where nothing goes on from them.
    assert parsed(input=[user("a"), reference("rs_1"), user("b")], session_id="s").previous_response_id is None


# What is sent beside "Hi", and what is said against it.
BAD: Final[list[tuple[dict[str, object], Kind, str | None, str]]] = [
    ({"model": "gpt-5"}, errors.UNKNOWN_MODEL, "model", "The model 'gpt-5' does not exist"),
    ({"input": None}, errors.INVALID_REQUEST, "input", "Missing required parameter: 'input'"),
    ({"input": None, "prompt": {"id": "p"}}, errors.INVALID_REQUEST, "prompt", "'prompt' names a template"),
    ({"input": None, "previous_response_id": "resp_1"}, errors.INVALID_REQUEST, "input", "Missing required parameter"),
    ({"input": ""}, errors.INVALID_REQUEST, "input", "'input' has no text"),
    ({"input": " \n"}, errors.INVALID_REQUEST, "input", "'input' has no text"),
    ({"input": []}, errors.INVALID_REQUEST, "input", "'input' must contain a message with the role 'user'"),
    ({"input": [CALLED]}, errors.INVALID_REQUEST, "input", "'input' must contain a message with the role 'user'"),
    ({"input": [answer("x"), user("")]}, errors.INVALID_REQUEST, "input[1].content", "The last user message has no"),
    ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
     errors.INVALID_REQUEST, "input[0].content", "The last user message has no text"),
    ({"input": [{"role": "robot", "content": "x"}]}, errors.INVALID_REQUEST, "input[0].role", "Invalid value for"),
    ({"input": [user("x"), {"type": "message"}]}, errors.INVALID_REQUEST, "input[1].role", "Missing required"),
    ({"input": [{}, user("x")]}, errors.INVALID_REQUEST, "input[0].id", "Missing required parameter"),
    ({"input": [{"type": "item_reference"}, user("x")]}, errors.INVALID_REQUEST, "input[0].id", "Missing required"),
    ({"input": [reference("fc_1"), user("x")]}, errors.NOT_FOUND, "input", "Item with id 'fc_1' not found"),
    ({"input": [reference("msg_"), user("x")]}, errors.NOT_FOUND, "input", "Item with id 'msg_' not found"),
    ({"previous_response_id": "1"}, errors.PREVIOUS_NOT_FOUND, "previous_response_id", "Previous response with id '1'"),
    ({"previous_response_id": "resp_"}, errors.PREVIOUS_NOT_FOUND, "previous_response_id", "Previous response with"),
    ({"previous_response_id": "msg_1", "session_id": "s"},
     errors.PREVIOUS_NOT_FOUND, "previous_response_id", "Previous response with id 'msg_1' not found"),
    ({"conversation": "conv_1"}, errors.INVALID_REQUEST, "conversation", "'conversation' is not supported"),
    ({"conversation": {"id": "conv_1"}}, errors.INVALID_REQUEST, "conversation", "'conversation' is not supported"),
    ({"max_output_tokens": -1}, errors.INVALID_REQUEST, "max_output_tokens", "'max_output_tokens' is -1; it must not"),
    ({"metadata": {"a": 1}}, errors.INVALID_REQUEST, "metadata[...]", "Invalid value for 'metadata[...]'"),
    ({"metadata": {str(n): "" for n in range(17)}}, errors.INVALID_REQUEST, "metadata", "'metadata' is too large"),
    ({"metadata": {"k" * 65: ""}}, errors.INVALID_REQUEST, "metadata", "'metadata' is too large"),
    ({"metadata": {"k": "v" * 513}}, errors.INVALID_REQUEST, "metadata", "'metadata' is too large"),
    ({"text": {"format": {"type": "json_schema", "name": "x", "strict": True, "schema": {}}}},
     errors.INVALID_REQUEST, "text.format", "'text.format' requires an answer in a JSON schema"),
    ({"truncation": "gibberish"}, errors.INVALID_REQUEST, "truncation", "Invalid value for 'truncation'"),
    ({"user": '{"user_info": 5}'}, errors.INVALID_REQUEST, "user.user_info", "Invalid value for 'user.user_info'"),
]  # fmt: skip


@pytest.mark.parametrize(("parameters", "kind", "param", "message"), BAD)
def test_refusals(parameters: dict[str, object], kind: Kind, param: str | None, message: str) -> None:
    """A request that cannot be answered as it was meant is answered all the same, or not told what is wrong."""
    with pytest.raises(GatewayError) as caught:
        parsed(**parameters)
    assert (caught.value.kind, caught.value.param) == (kind, param)
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "name": "f"},
        {"name": "f"},
        {"type": "web_search_preview"},
        {"type": "mcp", "server_label": "x"},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}]},
    ],
)
def test_a_demand_for_a_tool(choice: object) -> None:
    """A client that insists on a tool call gets a text and fails on it."""
    with pytest.raises(GatewayError, match="'tool_choice' requires a tool") as caught:
        parsed(tool_choice=choice)
    assert (caught.value.kind, caught.value.param) == (errors.INVALID_REQUEST, "tool_choice")


@pytest.mark.parametrize("name", ResponsesRequest.__struct_fields__)
def test_wrong_types_are_refused(name: str) -> None:
    """A mistyped setting is passed over in silence."""
    with pytest.raises(GatewayError) as caught:
        parsed(**{name: [[True]]})
    assert caught.value.kind is errors.INVALID_REQUEST
    assert caught.value.param is not None
    assert caught.value.param.partition("[")[0] == name


# Answers.

REST: Final = (
    '"background":false,"instructions":null,"reasoning":{"effort":null,"summary":null},"service_tier":"default",'
    '"text":{"format":{"type":"text"}},"tools":[],"frequency_penalty":0,"max_output_tokens":null,"max_tool_calls":null,'
    '"metadata":{},'
    '"parallel_tool_calls":true,"presence_penalty":0,"previous_response_id":null,"prompt_cache_key":null,"safety_identifier":null,'
    '"store":true,"temperature":1,"tool_choice":"auto","top_logprobs":0,"top_p":1,"truncation":"disabled"}'
)
USAGE: Final = (
    '"usage":{"input_tokens":26,"input_tokens_details":{"cached_tokens":0,"cache_write_tokens":0},"output_tokens":2,'
    '"output_tokens_details":{"reasoning_tokens":0},"total_tokens":28}'
)
BEGUN: Final = '{"id":"resp_1","object":"response","created_at":1795348800,"status":'
IN_PROGRESS: Final = (
    BEGUN + '"in_progress","completed_at":null,"error":null,"incomplete_details":null,"model":"brunix","output":[],'
    '"usage":null,' + REST
)
FAILED: Final = (
    BEGUN + '"failed","completed_at":null,"error":{"code":"server_error","message":"The engine failed"},'
    '"incomplete_details":null,"model":"brunix","output":[],"usage":null,' + REST
)
PLACE: Final = '"item_id":"msg_1","output_index":0,"content_index":0'


def item(status: str, *parts: str) -> str:
    return f'{{"id":"msg_1","type":"message","status":"{status}","role":"assistant","content":[{",".join(parts)}]}}'


def part(text: str) -> str:
    return f'{{"type":"output_text","text":"{text}","annotations":[],"logprobs":[]}}'


def finished(text: str, *, cut: bool = False) -> str:
    status, completed, why = (
        ("incomplete", "null", '{"reason":"max_output_tokens"}') if cut else ("completed", "1795348801", "null")
    )
    return (
        f'{BEGUN}"{status}","completed_at":{completed},"error":null,"incomplete_details":{why},"model":"brunix",'
        f'"output":[{item(status, part(text))}],{USAGE},{REST}'
    )


def stream(*events: tuple[str, str]) -> bytes:
    return "".join(
        f'event: {kind}\ndata: {{"type":"{kind}",{rest},"sequence_number":{number}}}\n\n'
        for number, (kind, rest) in enumerate(events)
    ).encode("ascii")


OPENING: Final = (
    ("response.created", f'"response":{IN_PROGRESS}'),
    ("response.in_progress", f'"response":{IN_PROGRESS}'),
    ("response.output_item.added", f'"output_index":0,"item":{item("in_progress")}'),
    ("response.content_part.added", f'{PLACE},"part":{part("")}'),
)


def delta(text: str) -> tuple[str, str]:
    return "response.output_text.delta", f'{PLACE},"delta":"{text}","logprobs":[]'


def closing(text: str, *, cut: bool = False) -> tuple[tuple[str, str], ...]:
    status = "incomplete" if cut else "completed"
    return (
        ("response.output_text.done", f'{PLACE},"text":"{text}","logprobs":[]'),
        ("response.content_part.done", f'{PLACE},"part":{part(text)}'),
        ("response.output_item.done", f'"output_index":0,"item":{item(status, part(text))}'),
        (f"response.{status}", f'"response":{finished(text, cut=cut)}'),
    )


def ending(text: str, reason: FinishReason = "stop") -> CompletionEnd:
    ended = ending_of(reason)
    return attrs.evolve(ended, choices=(attrs.evolve(ended.choices[0], text=text, cut=reason == "length"),))


def answered(ask: CompletionRequest, *texts: str, reason: FinishReason = "stop") -> bytes:
    encoder = DIALECT.encoder(ask, HEAD)
    begun = encoder.begin()
    return begun + b"".join(encoder.delta(0, text) for text in texts) + encoder.finish(ending("".join(texts), reason))


ANSWERS: Final[list[tuple[tuple[str, ...], FinishReason, bytes, str]]] = [
    (("Hi", " there"), "stop", stream(*OPENING, delta("Hi"), delta(" there"), *closing("Hi there")),
     finished("Hi there")),
    (("Hi",), "length", stream(*OPENING, delta("Hi"), *closing("Hi", cut=True)), finished("Hi", cut=True)),
    # There is an item, and text in it, even where the text is empty.
    ((), "stop", stream(*OPENING, *closing("")), finished("")),
    ((), "length", stream(*OPENING, *closing("", cut=True)), finished("", cut=True)),
]  # fmt: skip


@pytest.mark.parametrize(("texts", "reason", "streamed", "whole"), ANSWERS)
def test_answers(texts: tuple[str, ...], reason: FinishReason, streamed: bytes, whole: str) -> None:
    """A client shows no text, no end, or a wrong account of an answer, or reports a complete one as broken."""
    asked = parsed(stream=True)
    assert answered(asked, *texts, reason=reason) == streamed
    *_, last = response_events(streamed)
    body = answered(parsed(), *texts, reason=reason)
    assert body == whole.encode()
    check("openai_response", json.loads(body))
    assert last["response"] == json.loads(body)
    # The same as whoever asks for it again gets.
    assert responses.response_body(asked, HEAD, ending("".join(texts), reason)) == body
    assert DIALECT.encoder(asked, HEAD).content_type == b"text/event-stream; charset=utf-8"
    assert DIALECT.encoder(PLAIN, HEAD).content_type == b"application/json; charset=utf-8"


def test_what_an_answer_says_of_its_request() -> None:
    """A client finds other settings in an answer than it sent, or gets all its tools back three times."""
    given: dict[str, object] = {
        "frequency_penalty": 0.5,
        "max_output_tokens": 99,
        "max_tool_calls": 3,
        "metadata": {"ticket": "4711"},
        "model": "brunix:latest",
        "parallel_tool_calls": False,
        "presence_penalty": -1,
        "previous_response_id": "resp_ab",
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "store": False,
        "temperature": 0.5,
        "tool_choice": "none",
        "top_logprobs": 5,
        "top_p": 0.1,
        "truncation": "auto",
    }
    without_effect = {
        "background": True,
        "instructions": "x" * 20_000,
        "reasoning": {"effort": "high"},
        "service_tier": "flex",
        "text": {"format": {"type": "json_schema", "name": "x", "schema": {"x": "x" * 20_000}}},
        "tools": [{"type": "function", "name": "f", "description": "x" * 20_000}],
        "user": '{"editor_content": "' + "eHh4" * 5_000 + '"}',
    }
    events = response_events(answered(parsed(**given, **without_effect, stream=True), "Hi"))
    told = [event["response"] for event in events if "response" in event]
    assert len(told) == 3
    for response in told:
        assert {name: response[name] for name in given} == given
    assert len(json.dumps(events)) < 10_000


# pytest-twisted takes no parametrised test that hypothesis runs.
@bounded
@given(st.lists(st.text(min_size=1), max_size=5))
def test_any_text_arrives(texts: list[str]) -> None:
    """An answer loses or gains characters, or falls apart, on its way."""
    events = response_events(answered(parsed(stream=True), *texts))
    assert [event["delta"] for event in events if "delta" in event] == texts
    whole = answered(parsed(), *texts)
    assert whole.isascii()
    (message,) = json.loads(whole)["output"]
    assert [part["text"] for part in message["content"]] == ["".join(texts)]


def test_a_heartbeat_is_no_part_of_the_answer() -> None:
    """A sign of life shows up in the text, or breaks the client that it was to keep waiting."""
    for form, beat in (("comment", b": keep-alive\n\n"), ("delta", None)):
        encoder = responses.Responses(MODELS, form).encoder(parsed(stream=True), HEAD)  # type: ignore[arg-type]  # both are forms
        beaten = encoder.begin() + encoder.heartbeat() + encoder.delta(0, "Hi") + encoder.heartbeat()
        events = response_events(beaten + encoder.finish(ending("Hi")))
        assert beat is None or beaten.count(beat) == 2
        assert named_comments(beaten) == ([] if beat is None else ["keep-alive"] * 2)
        assert [event["delta"] for event in events if "delta" in event] == (["", "Hi", ""] if beat is None else ["Hi"])
    assert DIALECT.encoder(parsed(), HEAD).heartbeat() == b""


FAILURE: Final = GatewayError(errors.ENGINE_ERROR, "The engine failed", detail="disk full")


def test_a_broken_answer_is_not_presented_as_whole() -> None:
    """A user takes half an answer for all of it."""
    encoder = DIALECT.encoder(parsed(stream=True), HEAD)
    told = '"code":"engine_error","message":"The engine failed","param":null'
    broken = encoder.begin() + encoder.delta(0, "Half") + encoder.fail(FAILURE)
    assert broken == stream(
        *OPENING,
        delta("Half"),
        ("error", f'{told},"error":{{"type":"server_error",{told}}}'),
        ("response.failed", f'"response":{FAILED}'),
    )
    response_events(broken)
    whole = DIALECT.encoder(parsed(), HEAD)
    error = '{"error":{"message":"The engine failed","type":"server_error","param":null,"code":"engine_error"}}'
    assert whole.begin() + whole.delta(0, "Half") + whole.fail(FAILURE) == error.encode()


@pytest.mark.parametrize("kind", [kind for kind in vars(errors).values() if isinstance(kind, Kind)])
def test_errors(kind: Kind) -> None:
    """A client fails on the error that it should have shown, or shows what was for the log only."""
    encoder = DIALECT.encoder(parsed(stream=True), HEAD)
    failed = encoder.begin() + encoder.fail(GatewayError(kind, "Nö\n", param="input[0]", detail="disk full"))
    response_events(failed)
    *_, error, last = named_events(failed)
    told = {"message": "Nö\n", "param": "input[0]", "code": kind.code}
    assert error["error"] == told | {"type": kind.type}
    assert {name: error[name] for name in told} == told
    assert last["response"]["error"]["message"] == "Nö\n"
    assert b"disk" not in failed


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.RATE_LIMITED, "rate_limit_exceeded"),
        (errors.INVALID_REQUEST, "invalid_prompt"),
        (errors.OVERLOADED, "server_error"),
        (errors.ENGINE_TIMEOUT, "server_error"),
    ],
)
def test_how_a_response_failed(kind: Kind, code: str) -> None:
    """A client that asks again unless the question itself was wrong asks again for ever, or gives up too early."""
    encoder = DIALECT.encoder(parsed(stream=True), HEAD)
    *_, last = named_events(encoder.begin() + encoder.fail(GatewayError(kind, "No")))
    assert last["response"]["error"] == {"code": code, "message": "No"}


def test_ids() -> None:
    """An answer is not found by the id that it told, or another is found."""
    for stream_it in (True, False):
        body = answered(parsed(stream=stream_it), "Hi")
        response = response_events(body)[-1]["response"] if stream_it else json.loads(body)
        assert responses.answer_id(response["id"]) == HEAD.id
        # By either of its names it is what the next question goes on from.
        assert parsed(previous_response_id=response["id"]).previous_response_id == HEAD.id
        assert parsed(input=[reference(response["output"][0]["id"]), user("And?")]).previous_response_id == HEAD.id
    for name in ("", "resp_", "1", "msg_1", "chatcmpl-1", "RESP_1"):
        with pytest.raises(GatewayError) as caught:
            responses.answer_id(name)
        assert (caught.value.kind, caught.value.message) == (errors.NOT_FOUND, f"Response with id '{name}' not found")


def test_deleted() -> None:
    """A client that deletes an answer is not told that it is gone, and tries again."""
    body = json.loads(responses.deleted_body("resp_1"))
    check("openai_response_deleted", body)
    assert body == {"id": "resp_1", "object": "response", "deleted": True}
