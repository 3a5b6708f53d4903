"""What Ollama's clients send is understood, and what they get is what they read."""

from __future__ import annotations

import json
from typing import Any, Final

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from answers import HEAD, MODELS, answered, body_of, bounded, ending
from brunix_twisted import errors
from brunix_twisted.dialects import Dialect, ollama
from brunix_twisted.dialects.ollama_requests import ChatRequest, GenerateRequest, Options
from brunix_twisted.errors import GatewayError, Kind
from brunix_twisted.model import CompletionRequest, FinishReason, Limits, Model, Turn
from wire import check, ndjson_lines

CHAT: Final = ollama.Chat(MODELS)
GENERATE: Final = ollama.Generate(MODELS)
BOTH: Final = pytest.mark.parametrize("dialect", [CHAT, GENERATE], ids=["chat", "generate"])

USER: Final = {"role": "user", "content": "Hi"}
REQUIRED: Final[dict[Dialect, dict[str, object]]] = {
    CHAT: {"model": "brunix", "messages": [USER]},
    GENERATE: {"model": "brunix", "prompt": "Hi"},
}
PLAIN: Final = CompletionRequest(model="brunix", queries=("Hi",), stream=True, prompt="Hi")
# A chat's question has a conversation before it, were it an empty one; a prompt has none.
HISTORY: Final = {CHAT: (), GENERATE: None}


def parsed(dialect: Dialect, parameters: dict[str, object]) -> CompletionRequest:
    return dialect.parse(body_of(**REQUIRED[dialect] | parameters))


# What is sent beside "Hi", and what it changes in what is asked.
PARAMETERS: Final[list[tuple[dict[str, object], dict[str, object]]]] = [
    ({}, {}),
    ({"stream": True}, {}),
    ({"stream": False}, {"stream": False}),
    ({"session_id": "s-1"}, {"session_id": "s-1"}),
    ({"session_id": "default"}, {"session_id": "default"}),
    ({"session_id": ""}, {}),
    ({"options": {}}, {}),
    ({"options": {"stop": "\n"}}, {"limits": Limits(stop=("\n",))}),
    # As many as one likes: the limit of four is OpenAI's.
    ({"options": {"stop": list("abcde")}}, {"limits": Limits(stop=tuple("abcde"))}),
    ({"options": {"stop": ["", "b"]}}, {"limits": Limits(stop=("b",))}),
    ({"options": {"stop": []}}, {}),
    ({"options": {"num_predict": 256}}, {"limits": Limits(max_tokens=256)}),
    ({"options": {"num_predict": 256.0}}, {"limits": Limits(max_tokens=256)}),
    ({"options": {"num_predict": 0}}, {"limits": Limits(max_tokens=0)}),
    ({"options": {"num_predict": -1}}, {}),
    ({"options": {"num_predict": -2}}, {}),
    ({"options": {"num_predict": None, "stop": None, "seed": None}}, {}),
    ({"options": {"num_ctx": 4096, "temperature": 0}}, {"ignored": ("options.num_ctx", "options.temperature")}),
    ({"think": False, "format": ""}, {"ignored": ("format", "think")}),
    ({"think": "high", "format": "json"}, {"ignored": ("format", "think")}),
    ({"format": {}}, {"ignored": ("format",)}),
    # How long to stay says nothing about a question, not even when it is no time.
    ({"keep_alive": 300}, {}),
    ({"keep_alive": 0}, {}),
    ({"keep_alive": -1.0}, {}),
    ({"keep_alive": "0s"}, {}),
    # Not Ollama's, whatever they hold.
    (
        {"max_tokens": "many", "stream_options": 5, "n": [], "options": {"mirostat": "x"}},
        {"ignored": ("max_tokens", "stream_options", "n")},
    ),
    # Every spelling of the model, echoed as it came.
    ({"model": "brunix:latest"}, {"model": "brunix:latest"}),
    ({"model": "old:latest"}, {"model": "old:latest"}),
]


@BOTH
@pytest.mark.parametrize(("parameters", "changes"), PARAMETERS)
def test_parameters(dialect: Dialect, parameters: dict[str, object], changes: dict[str, Any]) -> None:
    """A setting has no effect, or another one than Ollama's documentation says."""
    assert parsed(dialect, parameters) == attrs.evolve(PLAIN, **{"history": HISTORY[dialect]} | changes)


@pytest.mark.parametrize(("dialect", "request_type"), [(CHAT, ChatRequest), (GENERATE, GenerateRequest)])
def test_null_means_absent(dialect: Dialect, request_type: type[msgspec.Struct]) -> None:
    """A client that writes out every setting it knows, most of them null, is refused."""
    names = set(request_type.__struct_fields__) - set(REQUIRED[dialect])
    assert parsed(dialect, dict.fromkeys(names)) == attrs.evolve(PLAIN, history=HISTORY[dialect])


# What clients are known to send: the endpoint, beside the model, and what is asked.
REQUESTS: Final[list[tuple[Dialect, dict[str, object], dict[str, object]]]] = [
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}]},
     {"queries": ("a",), "prompt": "a"}),
    (CHAT, {"messages": [{"role": "user", "content": "Hi", "images": []}], "tools": [], "keep_alive": -1},
     {"ignored": ("tools",)}),
    # A conversation, as its answers were sent; instructions are no part of it.
    (CHAT, {"messages": [
        {"role": "system", "content": "Be brief"},
        USER,
        {"role": "assistant", "content": "Hello!", "thinking": None, "images": None, "tool_calls": None},
        {"role": "user", "content": "Why?"}]},
     {"queries": ("Why?",), "prompt": "Be brief\nHi\nHello!\nWhy?", "history": (Turn("Hi", "Hello!"),),
      "instructions": ("Be brief",)}),
    (CHAT, {"messages": [
        USER,
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
        {"role": "tool", "tool_name": "f", "content": "42"}]},
     {"prompt": "Hi\n\n42", "history": None}),
    # What editors complete code with.
    (GENERATE, {"prompt": "<fim_prefix>a<fim_suffix>b<fim_middle>", "raw": True, "options": {"stop": ["\n\n"]}},
     {"queries": ("<fim_prefix>a<fim_suffix>b<fim_middle>",), "prompt": "<fim_prefix>a<fim_suffix>b<fim_middle>",
      "limits": Limits(stop=("\n\n",)), "ignored": ()}),
    (GENERATE, {"prompt": "a", "suffix": "b"}, {"queries": ("a<gap>b",), "prompt": "a<gap>b"}),
    (GENERATE, {"prompt": "a", "system": "Be brief"},
     {"queries": ("a",), "prompt": "a", "instructions": ("Be brief",)}),
    (GENERATE, {"prompt": "### User:\nHi\n\n", "stream": False, "images": [], "system": "", "context": [1, 2]},
     {"queries": ("### User:\nHi\n\n",), "prompt": "### User:\nHi\n\n", "stream": False,
      "ignored": ("context", "images")}),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "parameters", "changes"), REQUESTS)
def test_requests_seen_on_the_wire(dialect: Dialect, parameters: dict[str, object], changes: dict[str, Any]) -> None:
    """A client that works with Ollama is refused, or something else is asked than its user wrote."""
    assert parsed(dialect, parameters) == attrs.evolve(PLAIN, **{"history": HISTORY[dialect]} | changes)


NOTHING: Final[list[tuple[Dialect, dict[str, object]]]] = [
    (CHAT, {"messages": []}),
    (CHAT, {"messages": None}),
    (GENERATE, {"prompt": ""}),
    (GENERATE, {"prompt": None}),
]


@pytest.mark.parametrize(("dialect", "parameters"), NOTHING)
@pytest.mark.parametrize("stream", [True, False, None])
@pytest.mark.parametrize(
    ("keep_alive", "reason"),
    [(unload, "unload") for unload in (0, 0.0, "0", "0s", "0m", "0h", "0ms", "0h0m0s", "0.0s", "-0s")]
    + [(load, "load") for load in (None, -1, -1.0, 300, 0.5, "-1", "5m", "10s", "0.5s", "1h0m0s", "")],
)  # fmt: skip
def test_nothing_asked(
    dialect: Dialect, parameters: dict[str, object], stream: object, keep_alive: object, reason: FinishReason
) -> None:
    """Loading or unloading the model asks the engine something, or leaves the client waiting for an end."""
    ask = parsed(dialect, parameters | {"stream": stream, "keep_alive": keep_alive})
    assert ask == attrs.evolve(PLAIN, queries=(), stream=False, prompt="", load_reason=reason)
    answer = json.loads(answered(dialect, ask, reasons=()))
    check(SCHEMAS[dialect], answer)
    assert (answer["done"], answer["done_reason"]) == (True, reason)


@pytest.mark.parametrize(("dialect", "parameters"), NOTHING)
def test_what_a_load_carries(dialect: Dialect, parameters: dict[str, object]) -> None:
    """A client that loads the model is told which settings have no effect, and if it names an impossible session."""
    ask = parsed(dialect, parameters | {"session_id": "s-1", "think": False})
    assert (ask.queries, ask.session_id, ask.ignored) == ((), "s-1", ("think",))


# What is sent beside "Hi", and what is said against it.
Fault = tuple[dict[str, object], Kind, str, str]
BAD_FOR_BOTH: Final[list[Fault]] = [
    ({"model": None}, errors.INVALID_REQUEST, "model", "Missing required parameter: 'model'"),
    ({"model": "llama3"}, errors.UNKNOWN_MODEL, "model", "model 'llama3' not found"),
    ({"model": "brunix:7b"}, errors.UNKNOWN_MODEL, "model", "model 'brunix:7b' not found"),
    ({"options": {"num_predict": 2.5}}, errors.INVALID_REQUEST, "options.num_predict", "Invalid value for"),
    ({"options": {"stop": "x" * 4097}}, errors.INVALID_REQUEST, "options.stop", "'options.stop' has 4097 characters"),
    ({"format": {"type": "object"}}, errors.INVALID_REQUEST, "format", "'format' requires an answer in a JSON schema"),
    ({"format": "yaml"}, errors.INVALID_REQUEST, "format", "'format' must be 'json' or a JSON schema"),
    ({"keep_alive": {}}, errors.INVALID_REQUEST, "keep_alive", "Invalid value for 'keep_alive'"),
]  # fmt: skip
BAD: Final[list[tuple[Dialect, *Fault]]] = [
    *((dialect, *fault) for dialect in (CHAT, GENERATE) for fault in BAD_FOR_BOTH),
    # An unknown model is not loaded either.
    (CHAT, {"model": "llama3", "messages": []}, errors.UNKNOWN_MODEL, "model", "model 'llama3' not found"),
    (GENERATE, {"model": "llama3", "prompt": ""}, errors.UNKNOWN_MODEL, "model", "model 'llama3' not found"),
    (CHAT, {"messages": [{"role": "robot"}]}, errors.INVALID_REQUEST, "messages[0].role", "Invalid value for"),
    (CHAT, {"messages": [{"role": "system", "content": "x"}]}, errors.INVALID_REQUEST, "messages", "'messages' must"),
    (CHAT, {"messages": [{"role": "user", "content": "", "images": ["aGk="]}]},
     errors.INVALID_REQUEST, "messages[0].content", "The last user message has no text"),
    (GENERATE, {"prompt": " \n"}, errors.INVALID_REQUEST, "prompt", "'prompt' has no text"),
    (GENERATE, {"prompt": ["Hi"]}, errors.INVALID_REQUEST, "prompt", "Invalid value for 'prompt'"),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "parameters", "kind", "param", "message"), BAD)
def test_refusals(dialect: Dialect, parameters: dict[str, object], kind: Kind, param: str, message: str) -> None:
    """A request that cannot be answered as it was meant is answered all the same, or not told what is wrong."""
    with pytest.raises(GatewayError) as caught:
        parsed(dialect, parameters)
    assert (caught.value.kind, caught.value.param) == (kind, param)
    assert caught.value.message.startswith(message)


@BOTH
@pytest.mark.parametrize("value", ["gibberish", "5 minutes", "5mm", "m", "-", "1h-30m", "\u0665m"])
def test_a_keep_alive_that_means_nothing_is_refused(dialect: Dialect, value: str) -> None:
    """A mistyped duration must not be taken for a good one."""
    with pytest.raises(GatewayError, match="'keep_alive' must be a number of seconds, or a duration") as caught:
        parsed(dialect, {"keep_alive": value})
    assert caught.value.param == "keep_alive"


@BOTH
@pytest.mark.parametrize(
    "value", ["5m", "1h30m", "-1s", "1.5h", ".5s", "100ms", "5µs", "24h0m0s", "0", "0s", "", "300", "-1"]
)
def test_every_duration_is_accepted(dialect: Dialect, value: str) -> None:
    """A client that writes a duration in another way than most must not be refused."""
    assert parsed(dialect, {"keep_alive": value}) == parsed(dialect, {})


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
    + [(GENERATE, name) for name in GenerateRequest.__struct_fields__]
    + [(dialect, f"options.{name}") for dialect in (CHAT, GENERATE) for name in Options.__struct_fields__],
)
def test_wrong_types_are_refused(dialect: Dialect, name: str) -> None:
    """A mistyped setting is passed over in silence."""
    outer, _, inner = name.partition(".")
    with pytest.raises(GatewayError) as caught:
        parsed(dialect, {outer: {inner: [[True]]} if inner else [[True]]})
    assert caught.value.kind is errors.INVALID_REQUEST
    assert caught.value.param is not None
    assert caught.value.param.partition("[")[0] == name


# Answers.

SCHEMAS: Final[dict[Dialect, str]] = {CHAT: "ollama_chat", GENERATE: "ollama_generate"}
LINE: Final = b'{"model":"brunix","created_at":"2026-11-22T12:00:00.250000Z",'
LAST: Final = b'{"model":"brunix","created_at":"2026-11-22T12:00:01.750000Z",'
ACCOUNT: Final = (
    b'"total_duration":6,"load_duration":1,"prompt_eval_count":26,"prompt_eval_duration":2,'
    b'"eval_count":2,"eval_duration":3}'
)
WHOLE: Final[dict[str, object]] = {"stream": False}

ANSWERS: Final[list[tuple[Dialect, dict[str, object], tuple[str, ...], FinishReason, bytes]]] = [
    (CHAT, {}, ("Hi", " there"), "stop",
     LINE + b'"message":{"role":"assistant","content":"Hi"},"done":false}\n'
     + LINE + b'"message":{"role":"assistant","content":" there"},"done":false}\n'
     + LAST + b'"message":{"role":"assistant","content":""},"done":true,"done_reason":"stop",' + ACCOUNT + b"\n"),
    (CHAT, {}, (), "length",
     LAST + b'"message":{"role":"assistant","content":""},"done":true,"done_reason":"length",' + ACCOUNT + b"\n"),
    (CHAT, WHOLE, ("Hi", " there"), "stop",
     LAST + b'"message":{"role":"assistant","content":"Hi there"},"done":true,"done_reason":"stop",' + ACCOUNT),
    (GENERATE, {}, ("Hi", " there"), "length",
     LINE + b'"response":"Hi","done":false}\n'
     + LINE + b'"response":" there","done":false}\n'
     + LAST + b'"response":"","done":true,"done_reason":"length",' + ACCOUNT + b"\n"),
    (GENERATE, WHOLE, ("Hi", " there"), "stop",
     LAST + b'"response":"Hi there","done":true,"done_reason":"stop",' + ACCOUNT),
    # Loaded and unloaded: one object, with no account of an answer.
    (CHAT, {"messages": []}, (), "load",
     LAST + b'"message":{"role":"assistant","content":""},"done":true,"done_reason":"load"}'),
    (GENERATE, {"prompt": "", "keep_alive": 0}, (), "unload",
     LAST + b'"response":"","done":true,"done_reason":"unload"}'),
    # Echoed as the request spelled it.
    (GENERATE, {"model": "brunix:latest"}, ("Hi",), "stop",
     (LINE + b'"response":"Hi","done":false}\n'
      + LAST + b'"response":"","done":true,"done_reason":"stop",' + ACCOUNT + b"\n").replace(b"x", b"x:latest")),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "parameters", "texts", "reason", "expected"), ANSWERS)
def test_answers(
    dialect: Dialect, parameters: dict[str, object], texts: tuple[str, ...], reason: FinishReason, expected: bytes
) -> None:
    """A client shows no text, no end, or a wrong account of an answer, or reports a complete one as broken."""
    ask = parsed(dialect, parameters)
    answer = answered(dialect, ask, *((0, text) for text in texts), reasons=(reason,) * len(ask.queries))
    assert answer == expected
    for body in ndjson_lines(answer) if ask.stream else [json.loads(answer)]:
        check(SCHEMAS[dialect], body)
    content_type = b"application/x-ndjson" if ask.stream else b"application/json; charset=utf-8"
    assert dialect.encoder(ask, HEAD).content_type == content_type


def text_of(dialect: Dialect, line: dict[str, Any]) -> str:
    return str(line["message"]["content"] if dialect is CHAT else line["response"])


# pytest-twisted takes no parametrised test that hypothesis runs, so the dialects are drawn as well.
@bounded
@given(st.sampled_from([CHAT, GENERATE]), st.lists(st.text(min_size=1), max_size=5))
def test_any_text_arrives(dialect: Dialect, texts: list[str]) -> None:
    """An answer loses or gains characters, or falls apart, on its way."""
    pieces = [(0, text) for text in texts]
    lines = ndjson_lines(answered(dialect, parsed(dialect, {}), *pieces, reasons=("stop",)))
    assert [text_of(dialect, line) for line in lines] == [*texts, ""]
    assert [line["done"] for line in lines] == [False] * len(texts) + [True]
    whole = answered(dialect, parsed(dialect, WHOLE), *pieces, reasons=("stop",))
    assert whole.isascii()
    assert text_of(dialect, json.loads(whole)) == "".join(texts)


@BOTH
def test_a_heartbeat_is_an_empty_piece(dialect: Dialect) -> None:
    """A sign of life shows up in the text, or breaks the client that it was to keep waiting."""
    encoder = dialect.encoder(parsed(dialect, {}), HEAD)
    (line,) = ndjson_lines(encoder.begin() + encoder.heartbeat())
    check(SCHEMAS[dialect], line)
    assert (text_of(dialect, line), line["done"]) == ("", False)
    assert dialect.encoder(parsed(dialect, WHOLE), HEAD).heartbeat() == b""


FAILURE: Final = GatewayError(errors.ENGINE_ERROR, "The engine failed", detail="disk full")


@BOTH
def test_a_broken_answer_is_not_presented_as_whole(dialect: Dialect) -> None:
    """A user takes half an answer for all of it."""
    encoder = dialect.encoder(parsed(dialect, {}), HEAD)
    begun = encoder.begin() + encoder.delta(0, "Half")
    end = encoder.fail(FAILURE)
    assert end == b'{"error":"The engine failed"}\n'
    assert [line.get("done") for line in ndjson_lines(begun + end)] == [False, None]
    whole = dialect.encoder(parsed(dialect, WHOLE), HEAD)
    assert whole.begin() + whole.delta(0, "Half") + whole.fail(FAILURE) == b'{"error":"The engine failed"}'


@pytest.mark.parametrize("kind", [kind for kind in vars(errors).values() if isinstance(kind, Kind)])
def test_errors(kind: Kind) -> None:
    """A client fails on the error that it should have shown, or shows what was for the log only."""
    body = json.loads(ollama.error_body(GatewayError(kind, "Nö\n", detail="disk full")))
    check("ollama_error", body)
    assert body == {"error": "Nö\n"}
    assert ollama.error_status(kind) == kind.status


@pytest.mark.parametrize(
    ("param", "message", "told"),
    [
        ("messages[0].content", "It has no text", "messages[0].content: It has no text"),
        ("model", "model 'x' not found", "model 'x' not found"),
    ],
)
def test_the_parameter_at_fault_is_told(param: str, message: str, told: str) -> None:
    """The message must name the parameter at fault: Ollama's form has no other place for it."""
    assert json.loads(ollama.error_body(GatewayError(errors.INVALID_REQUEST, message, param=param))) == {"error": told}


# What Ollama tells of its models.


DETAILS: Final = {
    "parent_model": "",
    "format": "grpc",
    "family": "brunix",
    "families": ["brunix"],
    "parameter_size": "",
    "quantization_level": "",
}


def test_tags() -> None:
    """A client's list of models is empty, refused as a whole, or has a name that is not accepted."""
    body = json.loads(ollama.tags_body(MODELS, HEAD.created_s))
    check("ollama_tags", body)
    assert [listed["name"] for listed in body["models"]] == ["brunix:latest", "old:latest"]
    for listed in body["models"]:
        assert listed["name"] == listed["model"]
        assert MODELS.accepts(listed["name"])
        assert listed["modified_at"] == "2026-11-22T12:00:00.250000Z"
        assert (listed["size"], listed["details"]) == (0, DETAILS)


def test_a_digest_is_the_models_own() -> None:
    """A client that knows a model by its digest sees a new one at each start, or two as one."""
    digests = [
        json.loads(ollama.tags_body(models, time_s))["models"][0]["digest"]
        for models, time_s in ((MODELS, 0.0), (Model("brunix:latest"), 1.0), (Model("other"), 0.0))
    ]
    assert digests[0] == digests[1] != digests[2]


def test_ps() -> None:
    """A client that looks whether the model is loaded loads it again for each question."""
    body = json.loads(ollama.ps_body(MODELS, HEAD.created_s))
    check("ollama_ps", body)
    (running,) = body["models"]
    assert (running["name"], running["expires_at"]) == ("brunix:latest", "2026-11-22T12:00:00.250000Z")
    assert (running["size"], running["size_vram"], running["context_length"]) == (0, 0, 131_072)


@pytest.mark.parametrize(
    "parameters",
    [
        {"model": "brunix"},
        {"name": "brunix:latest"},
        {"name": "old"},
        {"model": "", "name": "brunix"},
        {"model": None, "name": "brunix"},
        {"model": "brunix", "name": "other", "verbose": True, "options": {}},
    ],
)
def test_show(parameters: dict[str, object]) -> None:
    """A client takes the model for one that cannot chat, or fails on what it is told of it."""
    body = json.loads(ollama.show_body(MODELS, body_of(**parameters), HEAD.created_s))
    check("ollama_show", body)
    assert body == {
        "license": "",
        "modelfile": "FROM brunix:latest\n",
        "parameters": "",
        "template": "{{ .Prompt }}",
        "details": DETAILS,
        "model_info": {
            "general.architecture": "brunix",
            "general.basename": "brunix",
            "brunix.context_length": 131_072,
        },
        "capabilities": ["completion"],
        "modified_at": "2026-11-22T12:00:00.250000Z",
    }


@pytest.mark.parametrize(
    ("parameters", "kind", "param", "message"),
    [
        ({}, errors.INVALID_REQUEST, "model", "Missing required parameter: 'model'"),
        ({"name": ""}, errors.INVALID_REQUEST, "model", "Missing required parameter: 'model'"),
        ({"name": 5}, errors.INVALID_REQUEST, "name", "Invalid value for 'name'"),
        ({"verbose": "yes"}, errors.INVALID_REQUEST, "verbose", "Invalid value for 'verbose'"),
        ({"name": "llama3"}, errors.UNKNOWN_MODEL, "model", "model 'llama3' not found"),
        ({"model": "llama3", "name": "brunix"}, errors.UNKNOWN_MODEL, "model", "model 'llama3' not found"),
    ],
)
def test_show_refuses(parameters: dict[str, object], kind: Kind, param: str, message: str) -> None:
    """A client that asks for another model is told of this one, or not told what is wrong."""
    with pytest.raises(GatewayError) as caught:
        ollama.show_body(MODELS, body_of(**parameters), HEAD.created_s)
    assert (caught.value.kind, caught.value.param) == (kind, param)
    assert caught.value.message.startswith(message)


def test_version() -> None:
    """Copilot refuses the gateway as too old, or cannot read how old it is."""
    body = json.loads(ollama.version_body())
    check("ollama_version", body)
    assert tuple(map(int, body["version"].split("."))) >= (0, 6, 4)


def test_root() -> None:
    """A client that looks whether Ollama is there does not find it."""
    assert ollama.ROOT_BODY == b"Ollama is running"


@pytest.mark.parametrize(
    ("time_s", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000000Z"),
        (HEAD.created_s, "2026-11-22T12:00:00.250000Z"),
        (1795348800, "2026-11-22T12:00:00.000000Z"),
        (ending().finished_s, "2026-11-22T12:00:01.750000Z"),
    ],
)
def test_timestamp(time_s: float, text: str) -> None:
    """A client in Go refuses the whole answer for a time that it cannot read."""
    assert ollama.timestamp(time_s) == text
