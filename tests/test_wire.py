"""The judges themselves: what they let pass and what they catch."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any, Final

import pytest

from wire import check, names, ndjson_lines, sse_comments, sse_events

USAGE: Final = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
DETAILS: Final = {
    "parent_model": "",
    "format": "",
    "family": "brunix",
    "families": ["brunix"],
    "parameter_size": "",
    "quantization_level": "",
}
CHUNK: Final = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "brunix",
    "system_fingerprint": "fp_1",
    "choices": [{"index": 0, "delta": {"content": "Hi"}, "logprobs": None, "finish_reason": None}],
}
TEXT_CHUNK: Final = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1,
    "model": "brunix",
    "choices": [{"index": 0, "text": "Hi", "logprobs": None, "finish_reason": None}],
}
LISTED: Final = {
    "name": "brunix:latest",
    "model": "brunix:latest",
    "size": 0,
    "digest": "a" * 64,
    "details": DETAILS,
}
MODIFIED: Final = {"modified_at": "2026-11-22T12:00:00Z"}
ACCOUNT: Final = {
    "total_duration": 5,
    "load_duration": 1,
    "prompt_eval_count": 26,
    "prompt_eval_duration": 1,
    "eval_count": 298,
    "eval_duration": 3,
}
LINE: Final = {"model": "brunix", "created_at": "2026-11-22T12:00:00.123456789Z"}
MESSAGE: Final = {"message": {"role": "assistant", "content": "Hi"}}
NO_MESSAGE: Final = {"message": {"role": "assistant", "content": ""}}

GOOD: Final[dict[str, list[dict[str, Any]]]] = {
    "openai_usage": [USAGE],
    "openai_chat_completion": [
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "brunix",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "Hi", "refusal": None},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": USAGE,
            "system_fingerprint": "fp_1",
        }
    ],
    "openai_chat_chunk": [
        CHUNK,
        CHUNK | {"usage": None},
        CHUNK | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]},
        CHUNK | {"choices": [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}]},
        CHUNK | {"choices": [], "usage": USAGE},
    ],
    "openai_completion": [
        TEXT_CHUNK
        | {
            "choices": [{"index": 0, "text": "Hi", "logprobs": None, "finish_reason": "stop"}],
            "usage": USAGE,
        }
    ],
    "openai_completion_chunk": [
        TEXT_CHUNK,
        TEXT_CHUNK | {"usage": None},
        TEXT_CHUNK | {"choices": [{"index": 1, "text": "", "logprobs": None, "finish_reason": "stop"}]},
        TEXT_CHUNK | {"choices": [], "usage": USAGE},
    ],
    "openai_model": [{"id": "brunix", "object": "model", "created": 1, "owned_by": "brunix"}],
    "openai_models": [
        {"object": "list", "data": [{"id": "brunix", "object": "model", "created": 1, "owned_by": "brunix"}]},
        {"object": "list", "data": []},
    ],
    "openai_error": [
        {"error": {"message": "No", "type": "invalid_request_error", "param": None, "code": None}},
        {"error": {"message": "No", "type": "invalid_request_error", "param": "n", "code": "bad"}},
    ],
    "ollama_chat": [
        LINE | MESSAGE | {"done": False},
        LINE | NO_MESSAGE | {"done": True, "done_reason": "stop"} | ACCOUNT,
        LINE | MESSAGE | {"done": True, "done_reason": "length"} | ACCOUNT,
        LINE | NO_MESSAGE | {"done": True, "done_reason": "load"},
    ],
    "ollama_generate": [
        LINE | {"response": "Hi", "done": False},
        LINE | {"response": "", "done": True, "done_reason": "stop", "context": [1, 2]} | ACCOUNT,
        LINE | {"response": "", "done": True, "done_reason": "unload"},
    ],
    "ollama_details": [DETAILS],
    "ollama_tags": [{"models": [LISTED | MODIFIED]}, {"models": []}],
    "ollama_ps": [
        {"models": [LISTED | {"expires_at": "2026-11-22T12:00:00.5Z", "size_vram": 0, "context_length": 4096}]}
    ],
    "ollama_show": [
        {
            "license": "",
            "modelfile": "FROM brunix:latest\n",
            "parameters": "",
            "template": "{{ .Prompt }}",
            "details": DETAILS,
            "model_info": {
                "general.architecture": "brunix",
                "general.basename": "brunix",
                "brunix.context_length": 4096,
            },
            "capabilities": ["completion"],
            "modified_at": "2026-11-22T12:00:00+01:00",
        }
    ],
    "ollama_version": [{"version": "0.6.4"}, {"version": "0.6.10"}, {"version": "0.13.0"}, {"version": "1.0.0"}],
    "ollama_error": [{"error": "model 'x' not found"}],
    "openai_chat_logprobs": [],
    "openai_completion_logprobs": [],
}


@pytest.mark.parametrize("name", names())
def test_good_bodies_pass(name: str) -> None:
    """Every other test of an answer would fail without a fault: the judge refuses what the documents allow."""
    for body in GOOD[name]:
        check(name, body)


GONE: Final = object()

# A schema, the place in its first good body, and what to put there.
BAD: Final[list[tuple[str, str, object]]] = [
    ("openai_chat_completion", "usage", GONE),
    ("openai_chat_completion", "usage.total_tokens", GONE),
    ("openai_chat_completion", "usage.total_tokens", 2.0),
    ("openai_chat_completion", "created", 1.0),
    ("openai_chat_completion", "created", "1"),
    ("openai_chat_completion", "id", "1"),
    ("openai_chat_completion", "object", "chat.completion.chunk"),
    ("openai_chat_completion", "error", None),
    ("openai_chat_completion", "system_fingerprint", None),
    ("openai_chat_completion", "choices", []),
    ("openai_chat_completion", "choices.0.finish_reason", None),
    ("openai_chat_completion", "choices.0.finish_reason", "load"),
    ("openai_chat_completion", "choices.0.index", GONE),
    ("openai_chat_completion", "choices.0.logprobs", GONE),
    ("openai_chat_completion", "choices.0.logprobs", {}),
    ("openai_chat_completion", "choices.0.message.refusal", GONE),
    ("openai_chat_completion", "choices.0.message.content", None),
    ("openai_chat_completion", "choices.0.message.role", "user"),
    ("openai_chat_completion", "choices.0.message.tool_calls", []),
    ("openai_chat_chunk", "choices", []),
    ("openai_chat_chunk", "usage", USAGE),
    ("openai_chat_chunk", "error", None),
    ("openai_chat_chunk", "object", "chat.completion"),
    ("openai_chat_chunk", "system_fingerprint", None),
    ("openai_chat_chunk", "choices.0.delta", GONE),
    ("openai_chat_chunk", "choices.0.delta.tool_calls", []),
    ("openai_chat_chunk", "choices.0.finish_reason", ""),
    ("openai_chat_chunk", "choices.0.finish_reason", "stop"),  # and a delta that is not empty
    ("openai_chat_chunk", "choices.0.finish_reason", GONE),
    ("openai_completion", "choices.0.text", None),
    ("openai_completion", "choices.0.finish_reason", "tool_calls"),
    ("openai_completion", "choices.0.logprobs", GONE),
    ("openai_completion", "usage", GONE),
    ("openai_completion", "system_fingerprint", None),
    ("openai_completion_chunk", "choices", []),
    ("openai_completion_chunk", "usage", USAGE),
    ("openai_completion_chunk", "system_fingerprint", None),
    ("openai_completion_chunk", "choices.0.finish_reason", ""),
    ("openai_completion_chunk", "choices.0.finish_reason", "stop"),  # and a text that is not empty
    ("openai_model", "id", None),
    ("openai_model", "data", []),
    ("openai_model", "created", 1.5),
    ("openai_models", "object", "models"),
    ("openai_models", "id", None),
    ("openai_error", "error.param", GONE),
    ("openai_error", "error.code", GONE),
    ("openai_error", "error.code", 400),
    ("openai_error", "error.type", None),
    ("openai_error", "error.message", ""),
    ("openai_error", "choices", []),
    ("ollama_chat", "error", None),
    ("ollama_chat", "done", GONE),
    ("ollama_chat", "done", True),  # without a reason
    ("ollama_chat", "done_reason", "stop"),  # of a line that is not the last
    ("ollama_chat", "eval_count", 1),
    ("ollama_chat", "message.tool_calls", []),
    ("ollama_chat", "message.content", None),
    ("ollama_chat", "message.content", [{"type": "text", "text": "Hi"}]),
    ("ollama_chat", "response", "Hi"),
    ("ollama_chat", "created_at", 1),
    ("ollama_chat", "created_at", "2026-11-22 12:00:00"),
    ("ollama_generate", "error", None),
    ("ollama_generate", "message", {"role": "assistant", "content": "Hi"}),
    ("ollama_generate", "context", ["1"]),
    ("ollama_tags", "models", GONE),
    ("ollama_tags", "models.0.name", "brunix"),
    ("ollama_tags", "models.0.model", GONE),
    ("ollama_tags", "models.0.modified_at", GONE),
    ("ollama_tags", "models.0.size", "0"),
    ("ollama_tags", "models.0.digest", "sha256:" + "a" * 64),
    ("ollama_tags", "models.0.digest", "A" * 64),
    *(("ollama_tags", f"models.0.details.{key}", GONE) for key in DETAILS),
    ("ollama_tags", "models.0.details.families", None),
    ("ollama_ps", "models.0.expires_at", GONE),
    ("ollama_ps", "models.0.size_vram", GONE),
    ("ollama_ps", "models.0.context_length", "4096"),
    ("ollama_show", "model_info", GONE),
    ("ollama_show", "model_info", {"general.architecture": "brunix", "general.basename": "brunix"}),
    ("ollama_show", "capabilities", GONE),
    ("ollama_show", "capabilities", []),
    ("ollama_show", "parameters", {}),
    ("ollama_show", "template", None),
    ("ollama_version", "version", "0.6.3"),
    ("ollama_version", "version", "0.6.4-rc1"),
    ("ollama_version", "version", "v0.7.0"),
    ("ollama_version", "version", 1.0),
    ("ollama_error", "error", {"message": "No"}),
    ("ollama_error", "error", None),
    ("ollama_error", "done", True),
]


@pytest.mark.parametrize(("name", "place", "value"), BAD)
def test_bad_bodies_are_caught(name: str, place: str, value: object) -> None:
    """A body that makes a client fail goes out unseen: the judge lets it pass."""
    body = deepcopy(GOOD[name][0])
    *way, last = place.split(".")
    inner: Any = body
    for step in way:
        inner = inner[int(step) if step.isdigit() else step]
    if value is GONE:
        del inner[last]
    else:
        inner[last] = value
    with pytest.raises(AssertionError, match=f"^not {name} at "):
        check(name, body)


@pytest.mark.parametrize("reason", ["stop", "length"])
@pytest.mark.parametrize("missing", ACCOUNT)
@pytest.mark.parametrize(("name", "content"), [("ollama_chat", NO_MESSAGE), ("ollama_generate", {"response": ""})])
def test_an_ollama_answer_has_its_whole_account(name: str, content: dict[str, Any], missing: str, reason: str) -> None:
    """A client that computes tokens a second fails on the last line: the judge lets a figure be missing."""
    account = {key: value for key, value in ACCOUNT.items() if key != missing}
    with pytest.raises(AssertionError, match=missing):
        check(name, LINE | content | {"done": True, "done_reason": reason} | account)


def test_loading_a_model_says_nothing() -> None:
    """A client that loads the model shows a text that nobody asked for: the judge lets it pass."""
    with pytest.raises(AssertionError):
        check("ollama_chat", LINE | MESSAGE | {"done": True, "done_reason": "load"})
    with pytest.raises(AssertionError):
        check("ollama_generate", LINE | {"response": "Hi", "done": True, "done_reason": "unload"})


def test_every_schema_has_a_source_and_examples() -> None:
    """Nobody can say why a body is refused: a schema without its source, or one that no example tries."""
    assert set(GOOD) == set(names())
    assert {name for name, _, _ in BAD} | {name for name in names() if name.endswith(("_logprobs", "_usage"))} == {
        *names()
    } - {"ollama_details"}


def test_events_are_read() -> None:
    """Tests of a stream see other events than a client does."""
    body = b': keep-alive\n\ndata: {"a": 1}\n\n: still\n\ndata: {"error": {}}\n\ndata: [DONE]\n\n'
    assert sse_events(body) == [{"a": 1}, {"error": {}}]
    assert sse_comments(body) == ["keep-alive", "still"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"data: [DONE]",  # no blank line after it
        b"data: [DONE]\n",
        b'data: {"a":1}\n\n',  # no end
        b": only a comment\n\n",
        b'data: {"a":1}\n\ndata: [DONE]\n\ndata: {"a":2}\n\n',
        b"data: [DONE]\n\n: a comment after the end\n\n",
        b"data: [DONE]\n\ndata: [DONE]\n\n",
        b'id: 1\ndata: {"a":1}\n\ndata: [DONE]\n\n',
        b'id: 1\n\ndata: {"a":1}\n\ndata: [DONE]\n\n',
        b'event: message\ndata: {"a":1}\n\ndata: [DONE]\n\n',
        b'retry: 5\n\ndata: {"a":1}\n\ndata: [DONE]\n\n',
        b'data: {"a":\ndata: 1}\n\ndata: [DONE]\n\n',
        b"data: \n\ndata: [DONE]\n\n",
        b"data:\n\ndata: [DONE]\n\n",
        b'data: {"a":1}\n\n\n\ndata: [DONE]\n\n',
        b'data: {"a":1}\r\n\r\ndata: [DONE]\r\n\r\n',
        b'data: {"a":1}\n\ndata: [DONE]\n\n\n',
        b"data: [1]\n\ndata: [DONE]\n\n",
        b"data: no\n\ndata: [DONE]\n\n",
        b'data: {"a":NaN}\n\ndata: [DONE]\n\n',
        b'data: {"a":1,"a":2}\n\ndata: [DONE]\n\n',
        'data: {"a":"\u2028"}\n\ndata: [DONE]\n\n'.encode(),
        b'data: {"a":"\x1e"}\n\ndata: [DONE]\n\n',
    ],
)
def test_events_that_clients_stumble_over_are_caught(body: bytes) -> None:
    """A stream that kills a client goes out unseen."""
    with pytest.raises(AssertionError):
        sse_events(body)


def test_lines_are_read() -> None:
    """Tests of a stream see other lines than a client does."""
    value = {"text": "a\u2028b\u0085c"}
    assert ndjson_lines(json.dumps(value).encode() + b'\n{"done": true}\n') == [value, {"done": True}]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n",
        b'{"a":1}',
        b'{"a":1}\n{"a":2}',
        b'{"a":1}\n\n{"a":2}\n',
        b'{"a":1}\n \n',
        b'{"a":1}\r\n',
        b'{"a":1}{"a":2}\n',
        b"[1]\n",
        b"null\n",
        b"no\n",
        b'{"a":Infinity}\n',
        b'{"a":1,"a":1}\n',
        '{"a":"é"}\n'.encode(),
        '{"a":"\u0085"}\n'.encode(),
        b'{"a":"\x0c"}\n',
    ],
)
def test_lines_that_clients_stumble_over_are_caught(body: bytes) -> None:
    """A stream that kills a client goes out unseen."""
    with pytest.raises(AssertionError):
        ndjson_lines(body)
