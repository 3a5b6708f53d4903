"""What OpenAI's clients send is understood, and what they get is what they read."""

from __future__ import annotations

import json
from typing import Any, Final

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from answers import HEAD, MODELS, answered, body_of, bounded
from brunix_twisted import __version__, errors
from brunix_twisted.dialects import Dialect, openai
from brunix_twisted.dialects.openai_requests import ChatRequest, CompletionsRequest
from brunix_twisted.errors import GatewayError, Kind
from brunix_twisted.model import CompletionRequest, EditorContext, FinishReason, Limits, Model, Turn
from wire import check, sse_comments, sse_events

CHAT: Final = openai.Chat(MODELS)
PROMPT: Final = openai.Completions(MODELS)
BOTH: Final = pytest.mark.parametrize("dialect", [CHAT, PROMPT], ids=["chat", "prompt"])

USER: Final = {"role": "user", "content": "Hi"}
REQUIRED: Final[dict[Dialect, dict[str, object]]] = {
    CHAT: {"model": "brunix", "messages": [USER]},
    PROMPT: {"model": "brunix", "prompt": "Hi"},
}
PLAIN: Final = CompletionRequest(model="brunix", queries=("Hi",), stream=False, prompt="Hi")
# A chat's question has a conversation before it, were it an empty one; a prompt has none.
HISTORY: Final = {CHAT: (), PROMPT: None}


def parsed(dialect: Dialect, parameters: dict[str, object]) -> CompletionRequest:
    return dialect.parse(body_of(**REQUIRED[dialect] | parameters))


# What is sent beside "Hi", and what it changes in what is asked.
PARAMETERS: Final[list[tuple[dict[str, object], dict[str, object]]]] = [
    ({}, {}),
    ({"stream": True}, {"stream": True}),
    ({"stream": False}, {}),
    ({"stream_options": {"include_usage": True}}, {"include_usage": True}),
    ({"stream_options": {"include_usage": False}}, {}),
    ({"stream_options": {"include_usage": None}}, {}),
    ({"stream_options": {}}, {}),
    ({"session_id": "s-1"}, {"session_id": "s-1"}),
    ({"session_id": "default"}, {"session_id": "default"}),
    ({"session_id": ""}, {}),
    ({"stop": "\n"}, {"limits": Limits(stop=("\n",))}),
    ({"stop": ["a", "b", "c", "d"]}, {"limits": Limits(stop=("a", "b", "c", "d"))}),
    ({"stop": ["", "b"]}, {"limits": Limits(stop=("b",))}),
    ({"stop": ""}, {}),
    ({"stop": []}, {}),
    ({"max_tokens": 256}, {"limits": Limits(max_tokens=256)}),
    ({"max_tokens": 256.0}, {"limits": Limits(max_tokens=256)}),
    ({"max_tokens": 0}, {"limits": Limits(max_tokens=0)}),
    ({"max_tokens": 2, "stop": "."}, {"limits": Limits(stop=(".",), max_tokens=2)}),
    ({"n": 1}, {}),
    ({"temperature": 0, "seed": 7.0, "top_p": 0.5}, {"ignored": ("seed", "temperature", "top_p")}),
    ({"stream_options": {"include_obfuscation": False}}, {"ignored": ("stream_options.include_obfuscation",)}),
    # Not OpenAI's, whatever they hold.
    (
        {"top_k": "many", "options": 5, "keep_alive": [], "chat_id": {}},
        {"ignored": ("top_k", "options", "keep_alive", "chat_id")},
    ),
    # Every spelling of the model, echoed as it came.
    ({"model": "brunix:latest"}, {"model": "brunix:latest"}),
    ({"model": "old"}, {"model": "old"}),
]


@BOTH
@pytest.mark.parametrize(("parameters", "changes"), PARAMETERS)
def test_parameters(dialect: Dialect, parameters: dict[str, object], changes: dict[str, Any]) -> None:
    """A setting has no effect, or another one than OpenAI's documentation says."""
    assert parsed(dialect, parameters) == attrs.evolve(PLAIN, **{"history": HISTORY[dialect]} | changes)


@pytest.mark.parametrize(("dialect", "request_type"), [(CHAT, ChatRequest), (PROMPT, CompletionsRequest)])
def test_null_means_absent(dialect: Dialect, request_type: type[msgspec.Struct]) -> None:
    """A client that writes out every setting it knows, most of them null, is refused."""
    names = set(request_type.__struct_fields__) - set(REQUIRED[dialect])
    assert parsed(dialect, dict.fromkeys(names)) == attrs.evolve(PLAIN, history=HISTORY[dialect])


def part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


IMAGE: Final = {"type": "image_url", "image_url": {"url": "data:,"}}


# What clients are known to send: the endpoint, beside the model, and what is asked.
REQUESTS: Final[list[tuple[Dialect, dict[str, object], dict[str, object]]]] = [
    (CHAT, {"messages": [{"role": "user", "content": [part("a"), IMAGE, part("b")]}]},
     {"queries": ("a\nb",), "prompt": "a\nb"}),
    (CHAT, {"messages": [{"role": "user", "content": part("a")}]}, {"queries": ("a",), "prompt": "a"}),
    (CHAT, {"messages": [{"role": "user", "content": "### Task:\n" + "x" * 5_000}]},
     {"queries": ("### Task:\n" + "x" * 5_000,), "prompt": "### Task:\n" + "x" * 5_000}),
    # A conversation, as its answers were sent; instructions are no part of it.
    (CHAT, {"messages": [
        {"role": "system", "content": "Be brief"},
        USER,
        {"role": "assistant", "content": "Hello!", "refusal": None, "tool_calls": None, "annotations": []},
        {"role": "user", "content": "Why?", "name": "anna"}]},
     {"queries": ("Why?",), "prompt": "Be brief\nHi\nHello!\nWhy?", "history": (Turn("Hi", "Hello!"),),
      "instructions": ("Be brief",)}),
    # A tool's result, in all the roles there are.
    (CHAT, {"messages": [
        {"role": "developer", "content": "Be brief"},
        USER,
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": [part("42")]},
        {"role": "function", "name": "f", "content": "43"}]},
     {"prompt": "Be brief\nHi\n\n42\n43", "history": None, "instructions": ("Be brief",)}),
    (CHAT, {"tools": []}, {"ignored": ("tools",)}),
    (CHAT, {"tools": [{"type": "function", "function": {"name": "f", "description": "x" * 25_000}}]},
     {"ignored": ("tools",)}),
    (CHAT, {"tool_choice": "auto"}, {}),
    (CHAT, {"user": '{"editor_content": "aGk="'}, {"ignored": ("user",)}),
    (CHAT, {"user": '{"editor_content": "aGk="}'}, {"editor": EditorContext(editor_content="aGk=")}),
    (CHAT, {"tool_choice": "none", "function_call": "none"}, {}),
    (CHAT, {"max_completion_tokens": 5}, {"limits": Limits(max_tokens=5)}),
    (CHAT, {"max_completion_tokens": 5, "max_tokens": 9}, {"limits": Limits(max_tokens=5)}),
    (CHAT, {"max_completion_tokens": None, "max_tokens": 9}, {"limits": Limits(max_tokens=9)}),
    (CHAT, {"user": "someone"}, {}),
    (CHAT, {"response_format": {"type": "text"}, "store": False, "metadata": {}},
     {"ignored": ("metadata", "response_format", "store")}),
    (PROMPT, {"prompt": ["Hi", "Why?"]}, {"queries": ("Hi", "Why?"), "prompt": "Hi\nWhy?", "history": None}),
    (PROMPT, {"prompt": ["Hi"]}, {}),
    (PROMPT, {"prompt": ["a"] * 20}, {"queries": ("a",) * 20, "prompt": "\n".join("a" * 20)}),
    (PROMPT, {"prompt": " Hi\n"}, {"queries": (" Hi\n",), "prompt": " Hi\n"}),
    (PROMPT, {"echo": True}, {"echo": True}),
    (PROMPT, {"prompt": ["a", "b"], "suffix": "c"},
     {"queries": ("a<gap>c", "b<gap>c"), "prompt": "a<gap>c\nb<gap>c", "history": None}),
    (PROMPT, {"suffix": ""}, {"ignored": ()}),
    (PROMPT, {"prompt": "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>", "stop": ["<|endoftext|>", "\n\n"]},
     {"queries": ("<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>",),
      "prompt": "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>", "limits": Limits(stop=("<|endoftext|>", "\n\n"))}),
    (PROMPT, {"best_of": 1, "user": "someone", "logit_bias": {"50256": -100}},
     {"ignored": ("best_of", "logit_bias", "user")}),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "parameters", "changes"), REQUESTS)
def test_requests_seen_on_the_wire(dialect: Dialect, parameters: dict[str, object], changes: dict[str, Any]) -> None:
    """A client that works with the other servers is refused, or something else is asked than its user wrote."""
    assert parsed(dialect, parameters) == attrs.evolve(PLAIN, **{"history": HISTORY[dialect]} | changes)


def test_any_model_may_be_accepted() -> None:
    """A client with a fixed list of models cannot be used, though the operator said that any name will do."""
    anything = openai.Chat(Model("brunix", aliases=("*",)))
    assert anything.parse(body_of(model="gpt-4o", messages=[USER])).model == "gpt-4o"


@pytest.mark.parametrize(
    "response_format",
    [
        {"type": "text"},
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
        {"type": "json_schema", "json_schema": {"name": "x", "strict": False}},
        {"type": "json_schema", "json_schema": {"name": "x", "strict": None}},
    ],
)
def test_json_that_is_not_promised_is_ignored(response_format: object) -> None:
    """A client that prefers JSON, and would take a text, must get the text and read that its wish had no effect."""
    assert parsed(CHAT, {"response_format": response_format}).ignored == ("response_format",)


# What is sent beside "Hi", and what is said against it.
Fault = tuple[dict[str, object], Kind, str, str]
BAD_FOR_BOTH: Final[list[Fault]] = [
    ({"model": "gpt-4o"}, errors.UNKNOWN_MODEL, "model", "The model 'gpt-4o' does not exist"),
    ({"model": "*"}, errors.UNKNOWN_MODEL, "model", "The model '*' does not exist"),
    ({"model": None}, errors.INVALID_REQUEST, "model", "Missing required parameter: 'model'"),
    ({"stop": list("abcde")}, errors.INVALID_REQUEST, "stop", "'stop' has 5 sequences; at most 4 are allowed"),
    ({"stop": [None]}, errors.INVALID_REQUEST, "stop[0]", "Invalid value for 'stop[0]'"),
    ({"max_tokens": -1}, errors.INVALID_REQUEST, "max_tokens", "'max_tokens' is -1; it must not be negative"),
    ({"n": 2}, errors.INVALID_REQUEST, "n", "'n' is 2; it must be 1"),
    ({"n": 0}, errors.INVALID_REQUEST, "n", "'n' is 0; it must be 1"),
    ({"n": -1}, errors.INVALID_REQUEST, "n", "'n' is -1; it must be 1"),
]
BAD: Final[list[tuple[Dialect, *Fault]]] = [
    *((dialect, *fault) for dialect in (CHAT, PROMPT) for fault in BAD_FOR_BOTH),
    (CHAT, {"max_completion_tokens": -2.0}, errors.INVALID_REQUEST, "max_completion_tokens", "'max_completion_tokens'"),
    (CHAT, {"messages": []}, errors.INVALID_REQUEST, "messages", "'messages' must contain a message with the role"),
    (CHAT, {"messages": None}, errors.INVALID_REQUEST, "messages", "Missing required parameter: 'messages'"),
    (CHAT, {"messages": [{"role": "robot"}]}, errors.INVALID_REQUEST, "messages[0].role", "Invalid value for"),
    (CHAT, {"messages": [{"role": "user", "content": IMAGE}]}, errors.INVALID_REQUEST, "messages[0].content", "The"),
    (CHAT, {"tool_choice": "required"}, errors.INVALID_REQUEST, "tool_choice", "'tool_choice' requires"),
    (CHAT, {"tool_choice": {"type": "nonsense"}}, errors.INVALID_REQUEST, "tool_choice", "'tool_choice' requires"),
    (CHAT, {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": {}}}},
     errors.INVALID_REQUEST, "response_format", "'response_format' requires an answer in a JSON schema"),
    (CHAT, {"messages": [{"role": None, "content": "x"}]},
     errors.INVALID_REQUEST, "messages[0].role", "Missing required parameter: 'messages[0].role'"),
    (CHAT, {"function_call": {"name": "f"}}, errors.INVALID_REQUEST, "function_call", "'function_call' requires"),
    (PROMPT, {"prompt": None}, errors.INVALID_REQUEST, "prompt", "Missing required parameter: 'prompt'"),
    (PROMPT, {"prompt": []}, errors.INVALID_REQUEST, "prompt", "Missing required parameter: 'prompt'"),
    (PROMPT, {"prompt": ""}, errors.INVALID_REQUEST, "prompt", "'prompt' has no text"),
    (PROMPT, {"prompt": ["a", " \n"]}, errors.INVALID_REQUEST, "prompt[1]", "'prompt[1]' has no text"),
    (PROMPT, {"prompt": [1, 2]}, errors.INVALID_REQUEST, "prompt", "'prompt[0]' is a token id; only text is supported"),
    (PROMPT, {"prompt": ["a"] * 21}, errors.INVALID_REQUEST, "prompt", "'prompt' has 21 prompts; at most 20 are"),
    (PROMPT, {"prompt": [[1], [2]]}, errors.INVALID_REQUEST, "prompt", "'prompt[0]' is a token id"),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "parameters", "kind", "param", "message"), BAD)
def test_refusals(dialect: Dialect, parameters: dict[str, object], kind: Kind, param: str, message: str) -> None:
    """A request that cannot be answered as it was meant is answered all the same, or not told what is wrong."""
    with pytest.raises(GatewayError) as caught:
        parsed(dialect, parameters)
    assert (caught.value.kind, caught.value.param) == (kind, param)
    assert caught.value.message.startswith(message)


@BOTH
def test_a_missing_model_is_named(dialect: Dialect) -> None:
    """A client without a model is not told that this is what is missing."""
    for body in (b"{}", b'{"messages":[{"role":"user","content":"Hi"}],"prompt":"Hi"}'):
        with pytest.raises(GatewayError, match="Missing required parameter: 'model'") as caught:
            dialect.parse(body)
        assert caught.value.param == "model"


@pytest.mark.parametrize(
    ("dialect", "name"),
    [(CHAT, name) for name in ChatRequest.__struct_fields__]
    + [(PROMPT, name) for name in CompletionsRequest.__struct_fields__],
)
def test_wrong_types_are_refused(dialect: Dialect, name: str) -> None:
    """A mistyped setting is passed over in silence."""
    with pytest.raises(GatewayError) as caught:
        parsed(dialect, {name: [[True]]})
    assert caught.value.kind is errors.INVALID_REQUEST
    assert caught.value.param is not None
    assert caught.value.param.partition("[")[0] == name


# Answers.

FINGERPRINT: Final = f'"system_fingerprint":"fp_brunix_{__version__}"'
CHUNK: Final = (
    f'{{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1795348800,"model":"brunix",{FINGERPRINT},'
)
CHAT_BODY: Final = (
    f'{{"id":"chatcmpl-1","object":"chat.completion","created":1795348800,"model":"brunix",{FINGERPRINT},'
)
TEXT: Final = f'{{"id":"cmpl-1","object":"text_completion","created":1795348800,"model":"brunix",{FINGERPRINT},'
USAGE: Final = '"usage":{"prompt_tokens":26,"completion_tokens":2,"total_tokens":28}}'
USAGE_OF_TWO: Final = '"usage":{"prompt_tokens":26,"completion_tokens":5,"total_tokens":31}}'


def events(common: str, *rests: str) -> bytes:
    return "".join([f"data: {common}{rest}\n\n" for rest in rests] + ["data: [DONE]\n\n"]).encode("ascii")


STREAM: Final[dict[str, object]] = {"stream": True}
STREAM_USAGE: Final[dict[str, object]] = {"stream": True, "stream_options": {"include_usage": True}}
TWO: Final[dict[str, object]] = {"prompt": ["a", "b"]}
HI_THERE: Final = ((0, "Hi"), (0, " there"))
INTERLEAVED: Final = ((1, "B"), (0, "A"))

ANSWERS: Final[
    list[tuple[Dialect, dict[str, object], tuple[tuple[int, str], ...], tuple[FinishReason, ...], bytes]]
] = [
    (CHAT, STREAM, HI_THERE, ("stop",), events(
        CHUNK,
        '"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}',
        '"choices":[{"index":0,"delta":{"content":"Hi"},"logprobs":null,"finish_reason":null}]}',
        '"choices":[{"index":0,"delta":{"content":" there"},"logprobs":null,"finish_reason":null}]}',
        '"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}',
    )),
    (CHAT, STREAM_USAGE, HI_THERE[:1], ("length",), events(
        CHUNK,
        '"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":null}',
        '"choices":[{"index":0,"delta":{"content":"Hi"},"logprobs":null,"finish_reason":null}],"usage":null}',
        '"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"length"}],"usage":null}',
        '"choices":[],' + USAGE,
    )),
    (CHAT, STREAM, (), ("stop",), events(
        CHUNK,
        '"choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}',
        '"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}',
    )),
    (CHAT, {}, HI_THERE, ("stop",), (
        CHAT_BODY
        + '"choices":[{"index":0,"message":{"role":"assistant","content":"Hi there","refusal":null,"annotations":[]},'
        + '"logprobs":null,"finish_reason":"stop"}],' + USAGE
    ).encode()),
    # Usage is always in a whole answer, whether or not it was asked for.
    (CHAT, STREAM_USAGE | {"stream": False}, (), ("length",), (
        CHAT_BODY
        + '"choices":[{"index":0,"message":{"role":"assistant","content":"","refusal":null,"annotations":[]},'
        + '"logprobs":null,"finish_reason":"length"}],' + USAGE
    ).encode()),
    (PROMPT, STREAM, HI_THERE, ("stop",), events(
        TEXT,
        '"choices":[{"index":0,"text":"Hi","logprobs":null,"finish_reason":null}]}',
        '"choices":[{"index":0,"text":" there","logprobs":null,"finish_reason":null}]}',
        '"choices":[{"index":0,"text":"","logprobs":null,"finish_reason":"stop"}]}',
    )),
    (PROMPT, STREAM_USAGE | TWO, INTERLEAVED, ("stop", "length"), events(
        TEXT,
        '"choices":[{"index":1,"text":"B","logprobs":null,"finish_reason":null}],"usage":null}',
        '"choices":[{"index":0,"text":"A","logprobs":null,"finish_reason":null}],"usage":null}',
        '"choices":[{"index":0,"text":"","logprobs":null,"finish_reason":"stop"}],"usage":null}',
        '"choices":[{"index":1,"text":"","logprobs":null,"finish_reason":"length"}],"usage":null}',
        '"choices":[],' + USAGE_OF_TWO,
    )),
    (PROMPT, {}, HI_THERE, ("length",), (
        TEXT + '"choices":[{"index":0,"text":"Hi there","logprobs":null,"finish_reason":"length"}],' + USAGE
    ).encode()),
    (PROMPT, TWO, INTERLEAVED, ("stop", "length"), (
        TEXT + '"choices":[{"index":0,"text":"A","logprobs":null,"finish_reason":"stop"},'
        + '{"index":1,"text":"B","logprobs":null,"finish_reason":"length"}],' + USAGE_OF_TWO
    ).encode()),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "parameters", "pieces", "reasons", "expected"), ANSWERS)
def test_answers(
    dialect: Dialect,
    parameters: dict[str, object],
    pieces: tuple[tuple[int, str], ...],
    reasons: tuple[FinishReason, ...],
    expected: bytes,
) -> None:
    """A client shows no text, no end, or a wrong account of an answer, or reports a complete one as broken."""
    ask = parsed(dialect, parameters)
    answer = answered(dialect, ask, *pieces, reasons=reasons)
    assert answer == expected
    schemas = {
        CHAT: ("openai_chat_completion", "openai_chat_chunk"),
        PROMPT: ("openai_completion", "openai_completion_chunk"),
    }
    bodies = sse_events(answer) if ask.stream else [json.loads(answer)]
    for body in bodies:
        check(schemas[dialect][ask.stream], body)
    content_type = b"text/event-stream; charset=utf-8" if ask.stream else b"application/json; charset=utf-8"
    assert dialect.encoder(ask, HEAD).content_type == content_type


def test_the_model_is_echoed() -> None:
    """A client that checks which model answered finds another than it asked for."""
    for stream in (True, False):
        ask = parsed(CHAT, {"model": "brunix:latest", "stream": stream})
        assert b'"model":"brunix:latest"' in answered(CHAT, ask, (0, "Hi"), reasons=("stop",))


# pytest-twisted takes no parametrised test that hypothesis runs, so the dialects are drawn as well.
@bounded
@given(st.sampled_from([CHAT, PROMPT]), st.lists(st.text(min_size=1), max_size=5))
def test_any_text_arrives(dialect: Dialect, texts: list[str]) -> None:
    """An answer loses or gains characters, or falls apart, on its way."""
    pieces = [(0, text) for text in texts]
    stream = answered(dialect, parsed(dialect, STREAM), *pieces, reasons=("stop",))
    choices = [event["choices"][0] for event in sse_events(stream)]
    deltas = [choice["text"] if dialect is PROMPT else choice["delta"].get("content", "") for choice in choices]
    assert [delta for delta in deltas if delta] == texts
    whole = answered(dialect, parsed(dialect, {}), *pieces, reasons=("stop",))
    (choice,) = json.loads(whole)["choices"]
    assert whole.isascii()
    assert (choice["text"] if dialect is PROMPT else choice["message"]["content"]) == "".join(texts)


@BOTH
def test_a_heartbeat_is_no_part_of_the_answer(dialect: Dialect) -> None:
    """A sign of life shows up in the text, or breaks the client that it was to keep waiting."""
    encoder = dialect.encoder(parsed(dialect, STREAM_USAGE), HEAD)
    beat = encoder.heartbeat()
    assert beat == b": keep-alive\n\n"
    assert sse_comments(encoder.begin() + beat + b"data: [DONE]\n\n") == ["keep-alive"]
    counted: Dialect = openai.Chat(MODELS, "delta") if dialect is CHAT else openai.Completions(MODELS, "delta")
    counting = counted.encoder(parsed(dialect, STREAM_USAGE), HEAD)
    assert counting.heartbeat() == counting.delta(0, "")
    assert dialect.encoder(parsed(dialect, {}), HEAD).heartbeat() == b""


FAILURE: Final = GatewayError(errors.ENGINE_ERROR, "The engine failed", detail="disk full")
FAILED: Final = b'{"error":{"message":"The engine failed","type":"server_error","param":null,"code":"engine_error"}}'


@BOTH
def test_a_broken_answer_is_not_presented_as_whole(dialect: Dialect) -> None:
    """A user takes half an answer for all of it."""
    encoder = dialect.encoder(parsed(dialect, STREAM_USAGE), HEAD)
    begun = encoder.begin() + encoder.delta(0, "Half")
    end = encoder.fail(FAILURE)
    assert end == b"data: " + FAILED + b"\n\ndata: [DONE]\n\n"
    *told, fault = sse_events(begun + end)
    assert all(event["choices"][0]["finish_reason"] is None for event in told)
    check("openai_error", fault)
    whole = dialect.encoder(parsed(dialect, {}), HEAD)
    assert whole.begin() + whole.delta(0, "Half") + whole.fail(FAILURE) == FAILED


@pytest.mark.parametrize("kind", [kind for kind in vars(errors).values() if isinstance(kind, Kind)])
@pytest.mark.parametrize("param", [None, "messages[0].role"])
def test_errors(kind: Kind, param: str | None) -> None:
    """A client fails on the error that it should have shown, or shows what was for the log only."""
    body = json.loads(openai.error_body(GatewayError(kind, "Nö\n", param=param, detail="disk full")))
    check("openai_error", body)
    assert body == {"error": {"message": "Nö\n", "type": kind.type, "param": param, "code": kind.code}}
    assert openai.error_status(kind) == kind.status


def test_models() -> None:
    """The model is missing from a client's list, or found there under a name that is not accepted."""
    body = json.loads(openai.models_body(MODELS, HEAD.created_s))
    check("openai_models", body)
    model = {"id": "brunix", "object": "model", "created": 1795348800, "owned_by": "brunix"}
    model |= {"context_length": 131_072, "max_model_len": 131_072}
    assert (body["object"], body["data"]) == ("list", [model, model | {"id": "old"}])
    assert [listed["slug"] for listed in body["models"]] == ["brunix", "old"]
    for name in ("brunix", "brunix:latest", "old"):
        # The bare object: from a list openai-python makes a model without an id.
        described = json.loads(openai.model_body(MODELS, name, HEAD.created_s))
        check("openai_model", described)
        assert described == model | {"id": name}
    with pytest.raises(GatewayError, match="The model 'gpt-4o' does not exist") as caught:
        openai.model_body(MODELS, "gpt-4o", HEAD.created_s)
    assert caught.value.kind is errors.UNKNOWN_MODEL
