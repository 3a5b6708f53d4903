"""Request bodies: what is taken, what is refused, and what the reference page says of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Final

import pytest

from brunix_twisted.dialects import openai_requests
from brunix_twisted.dialects.decode import decode
from brunix_twisted.dialects.parameters import Parameters, ignored
from brunix_twisted.errors import GatewayError
from parameter_tables import ENDPOINTS, PAGE, rewritten
from threads import Threads

OPENAI_CHAT: Final = "POST /v1/chat/completions"
OPENAI_COMPLETION: Final = "POST /v1/completions"
OPENAI_RESPONSES: Final = "POST /v1/responses"
ANTHROPIC_MESSAGES: Final = "POST /v1/messages"
ANTHROPIC_COUNT: Final = "POST /v1/messages/count_tokens"
OLLAMA_CHAT: Final = "POST /api/chat"
OLLAMA_GENERATE: Final = "POST /api/generate"
OLLAMA_SHOW: Final = "POST /api/show"

# What the published documents list, and of which JSON types. "number" includes "integer".
OPTIONS: Final = {
    "draft_num_predict": "integer",
    "frequency_penalty": "number",
    "main_gpu": "integer",
    "min_p": "number",
    "num_batch": "integer",
    "num_ctx": "integer",
    "num_gpu": "integer",
    "num_keep": "integer",
    "num_predict": "integer",
    "num_thread": "integer",
    "numa": "boolean",
    "penalize_newline": "boolean",
    "presence_penalty": "number",
    "repeat_last_n": "integer",
    "repeat_penalty": "number",
    "seed": "integer",
    "stop": "string array",
    "temperature": "number",
    "top_k": "integer",
    "top_p": "number",
    "typical_p": "number",
    "use_mmap": "boolean",
}
OLLAMA_BOTH: Final = {
    "_debug_render_only": "boolean",
    "format": "string object",
    "keep_alive": "number string",
    "logprobs": "boolean",
    "model": "string",
    "options": "object",
    **{f"options.{name}": types for name, types in OPTIONS.items()},
    "shift": "boolean",
    "stream": "boolean",
    "think": "boolean string",
    "top_logprobs": "integer",
    "truncate": "boolean",
}
ANTHROPIC_BOTH: Final = {
    "billing_policy": "object",
    "cache_control": "object",
    "compaction": "object",
    "context_management": "object",
    "mcp_servers": "array",
    "messages": "array",
    "model": "string",
    "output_config": "object",
    "output_format": "object",
    "speed": "string",
    # An object is one block without a list around it: not documented, but for messages clients send it.
    "system": "string array object",
    "thinking": "object",
    "tool_choice": "object",
    "tools": "array",
}
DOCUMENTED: Final = {
    OPENAI_CHAT: {
        "audio": "object",
        "frequency_penalty": "number",
        "function_call": "string object",
        "functions": "array",
        "logit_bias": "object",
        "logprobs": "boolean",
        "max_completion_tokens": "integer",
        "max_tokens": "integer",
        "messages": "array",
        "metadata": "object",
        "modalities": "array",
        "model": "string",
        "moderation": "object",
        "n": "integer",
        "parallel_tool_calls": "boolean",
        "prediction": "object",
        "presence_penalty": "number",
        "prompt_cache_key": "string",
        "prompt_cache_options": "object",
        "prompt_cache_retention": "string",
        "reasoning_effort": "string",
        "response_format": "object",
        "safety_identifier": "string",
        "seed": "integer",
        "service_tier": "string",
        "stop": "string array",
        "store": "boolean",
        "stream": "boolean",
        "stream_options": "object",
        "stream_options.include_obfuscation": "boolean",
        "stream_options.include_usage": "boolean",
        "temperature": "number",
        "tool_choice": "string object",
        "tools": "array",
        "top_logprobs": "integer",
        "top_p": "number",
        "user": "string",
        "verbosity": "string",
        "web_search_options": "object",
    },
    OPENAI_COMPLETION: {
        "best_of": "integer",
        "echo": "boolean",
        "frequency_penalty": "number",
        "logit_bias": "object",
        "logprobs": "integer",
        "max_tokens": "integer",
        "model": "string",
        "n": "integer",
        "presence_penalty": "number",
        "prompt": "string array",
        "seed": "integer",
        "stop": "string array",
        "stream": "boolean",
        "stream_options": "object",
        "stream_options.include_obfuscation": "boolean",
        "stream_options.include_usage": "boolean",
        "suffix": "string",
        "temperature": "number",
        "top_p": "number",
        "user": "string",
    },
    ANTHROPIC_MESSAGES: ANTHROPIC_BOTH
    | {
        "container": "string object",
        "diagnostics": "object",
        "fallback_credit_token": "string object",
        "fallbacks": "string array",
        "inference_geo": "string",
        "max_tokens": "integer",
        "metadata": "object",
        "service_tier": "string",
        "stop_sequences": "array",
        "stream": "boolean",
        "temperature": "number",
        "thread": "object",
        "top_k": "integer",
        "top_p": "number",
    },
    ANTHROPIC_COUNT: ANTHROPIC_BOTH,
    OPENAI_RESPONSES: {
        "background": "boolean",
        "context_management": "array",
        "frequency_penalty": "number",
        "conversation": "string object",
        "include": "array",
        "input": "string array",
        "instructions": "string",
        "max_output_tokens": "integer",
        "max_tool_calls": "integer",
        "metadata": "object",
        "model": "string",
        "moderation": "object",
        "parallel_tool_calls": "boolean",
        "presence_penalty": "number",
        "previous_response_id": "string",
        "prompt": "object",
        "prompt_cache_key": "string",
        "prompt_cache_options": "object",
        "prompt_cache_retention": "string",
        "reasoning": "object",
        "safety_identifier": "string",
        "service_tier": "string",
        "store": "boolean",
        "stream": "boolean",
        "stream_options": "object",
        "stream_options.include_obfuscation": "boolean",
        "temperature": "number",
        "text": "object",
        "tool_choice": "string object",
        "tools": "array",
        "top_logprobs": "integer",
        "top_p": "number",
        "truncation": "string",
        "user": "string",
    },
    OLLAMA_CHAT: OLLAMA_BOTH | {"messages": "array", "tools": "array"},
    OLLAMA_GENERATE: OLLAMA_BOTH
    | {
        "context": "array",
        "images": "array",
        "prompt": "string",
        "raw": "boolean",
        "suffix": "string",
        "system": "string",
        "template": "string",
    },
    OLLAMA_SHOW: {
        "model": "string",
        "name": "string",
        "options": "object",
        **{f"options.{name}": types for name, types in OPTIONS.items()},
        "system": "string",
        "template": "string",
        "verbose": "boolean",
    },
}
# None of these is in a document of its API.
OURS: Final = {"session_id": "string"}
ASKS_NOTHING: Final = (ANTHROPIC_COUNT, OLLAMA_SHOW)
WITH_MESSAGES: Final = (OPENAI_CHAT, ANTHROPIC_MESSAGES, ANTHROPIC_COUNT)
"""Where there must be some, though the list may be empty."""
UNDOCUMENTED: Final = ("top_n", "cache_prompt", "options.mirostat", "stream_options.more", "chat_template_kwargs")

SAMPLES: Final[list[tuple[str, object]]] = [
    ("integer number", 1),
    ("integer number", 1.0),
    ("integer number", -1),
    ("number", 0.5),
    ("boolean", True),
    ("boolean", False),
    ("string", "auto"),
    ("object", {}),
    ("array", []),
]
WRONG_INSIDE: Final = [
    (OPENAI_CHAT, "messages", [{"role": "user", "content": 1}], "messages[0].content"),
    (OPENAI_CHAT, "messages", [{"role": "user", "content": ["x"]}], "messages[0].content[0]"),
    (
        OPENAI_CHAT,
        "messages",
        [{"role": "user", "content": [{"type": "text", "text": 1}]}],
        "messages[0].content[0].text",
    ),
    (OPENAI_CHAT, "messages", [{"role": "user", "content": {"type": 1}}], "messages[0].content.type"),
    (OPENAI_CHAT, "messages", [{"role": "robot", "content": "x"}], "messages[0].role"),
    (OPENAI_CHAT, "messages", [{"content": "x"}], "messages[0].role"),
    (OPENAI_CHAT, "messages", [{"role": "assistant", "tool_calls": {}}], "messages[0].tool_calls"),
    (OPENAI_CHAT, "messages", [{"role": "tool", "content": "x", "tool_call_id": 1}], "messages[0].tool_call_id"),
    (OPENAI_CHAT, "messages", [None], "messages[0]"),
    (OPENAI_CHAT, "stop", ["a", 1], "stop[1]"),
    (OPENAI_CHAT, "stop", [None], "stop[0]"),
    (OPENAI_CHAT, "tools", [{"type": "function", "function": "f"}], "tools[0].function"),
    (OPENAI_CHAT, "tools", ["f"], "tools[0]"),
    (OPENAI_CHAT, "tool_choice", "any", "tool_choice"),
    (OPENAI_CHAT, "tool_choice", {"type": "function", "function": "f"}, "tool_choice.function"),
    (OPENAI_CHAT, "functions", [{"name": 1}], "functions[0].name"),
    (OPENAI_CHAT, "response_format", {"type": 1}, "response_format.type"),
    (OPENAI_CHAT, "response_format", {"type": "json_schema", "json_schema": "x"}, "response_format.json_schema"),
    (OPENAI_CHAT, "logit_bias", {"50256": "-100"}, "logit_bias[...]"),
    (OPENAI_CHAT, "metadata", {"a": 1}, "metadata[...]"),
    (OPENAI_CHAT, "modalities", [1], "modalities[0]"),
    (OPENAI_CHAT, "audio", {"voice": 1}, "audio.voice"),
    (OPENAI_CHAT, "prediction", {"type": "content", "content": 1}, "prediction.content"),
    (OPENAI_CHAT, "web_search_options", {"user_location": "Bilbao"}, "web_search_options.user_location"),
    (OPENAI_COMPLETION, "prompt", [True], "prompt[0]"),
    (OPENAI_COMPLETION, "prompt", [["x"]], "prompt[0][0]"),
    (OPENAI_COMPLETION, "prompt", [1.5], "prompt[0]"),
    (ANTHROPIC_MESSAGES, "messages", [{"role": "user", "content": 1}], "messages[0].content"),
    (ANTHROPIC_MESSAGES, "messages", [{"role": "tool", "content": "x"}], "messages[0].role"),
    (ANTHROPIC_MESSAGES, "messages", [{"content": "x"}], "messages[0].role"),
    (
        ANTHROPIC_MESSAGES,
        "messages",
        [{"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text", "text": 1}]}]}],
        "messages[0].content[0].content[0].text",
    ),
    (ANTHROPIC_MESSAGES, "system", [{"type": "text", "text": 1}], "system[0].text"),
    (ANTHROPIC_MESSAGES, "stop_sequences", [None], "stop_sequences[0]"),
    (ANTHROPIC_MESSAGES, "tools", [{"name": "f", "input_schema": "x"}], "tools[0].input_schema"),
    (ANTHROPIC_MESSAGES, "tool_choice", "any", "tool_choice"),
    (ANTHROPIC_MESSAGES, "tool_choice", {"type": "tool", "name": 1}, "tool_choice.name"),
    (ANTHROPIC_MESSAGES, "thinking", {"type": "enabled", "budget_tokens": "1024"}, "thinking.budget_tokens"),
    (ANTHROPIC_MESSAGES, "metadata", {"user_id": 1}, "metadata.user_id"),
    (ANTHROPIC_MESSAGES, "output_config", {"format": "json"}, "output_config.format"),
    (ANTHROPIC_MESSAGES, "cache_control", {"ttl": 300}, "cache_control.ttl"),
    (ANTHROPIC_MESSAGES, "context_management", {"edits": {}}, "context_management.edits"),
    (ANTHROPIC_MESSAGES, "thread", {"previous_message_id": 1}, "thread.previous_message_id"),
    (ANTHROPIC_MESSAGES, "fallbacks", [1], "fallbacks[0]"),
    (ANTHROPIC_COUNT, "messages", [{"role": "user", "content": ["x"]}], "messages[0].content[0]"),
    (ANTHROPIC_COUNT, "tools", ["f"], "tools[0]"),
    (OPENAI_RESPONSES, "input", ["x"], "input[0]"),
    (OPENAI_RESPONSES, "input", [None], "input[0]"),
    (OPENAI_RESPONSES, "input", [{"type": 1}], "input[0].type"),
    (OPENAI_RESPONSES, "input", [{"role": "robot", "content": "x"}], "input[0].role"),
    (OPENAI_RESPONSES, "input", [{"role": "user", "content": ["x"]}], "input[0].content[0]"),
    (
        OPENAI_RESPONSES,
        "input",
        [{"role": "user", "content": [{"type": "input_text", "text": 1}]}],
        "input[0].content[0].text",
    ),
    (OPENAI_RESPONSES, "input", [{"type": "item_reference", "id": 1}], "input[0].id"),
    (OPENAI_RESPONSES, "include", [1], "include[0]"),
    (OPENAI_RESPONSES, "metadata", {"a": 1}, "metadata[...]"),
    (OPENAI_RESPONSES, "prompt", {"id": 1}, "prompt.id"),
    (OPENAI_RESPONSES, "reasoning", {"effort": 1}, "reasoning.effort"),
    (OPENAI_RESPONSES, "text", {"format": "json_object"}, "text.format"),
    (OPENAI_RESPONSES, "text", {"format": {"strict": "yes"}}, "text.format.strict"),
    (OPENAI_RESPONSES, "truncation", "gibberish", "truncation"),
    (OPENAI_RESPONSES, "tools", [{"type": "function", "parameters": "{}"}], "tools[0].parameters"),
    (OPENAI_RESPONSES, "tool_choice", "any", "tool_choice"),
    (OPENAI_RESPONSES, "tool_choice", {"type": "function", "name": 1}, "tool_choice.name"),
    (OPENAI_RESPONSES, "context_management", [{"compact_threshold": "x"}], "context_management[0].compact_threshold"),
    (OLLAMA_CHAT, "messages", [{"role": "user", "images": "x"}], "messages[0].images"),
    (
        OLLAMA_CHAT,
        "messages",
        [{"role": "assistant", "tool_calls": [{"function": "f"}]}],
        "messages[0].tool_calls[0].function",
    ),
    (OLLAMA_CHAT, "tools", [{"type": 1}], "tools[0].type"),
    (OLLAMA_CHAT, "options", {"stop": [1]}, "options.stop[0]"),
    (OLLAMA_GENERATE, "context", ["1"], "context[0]"),
    (OLLAMA_GENERATE, "images", [1], "images[0]"),
]
ACCEPTED: Final = [
    (OPENAI_CHAT, {"messages": [{"role": "user", "content": "x"}]}),
    (OPENAI_CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}),
    (OPENAI_CHAT, {"messages": [{"role": "user", "content": {"type": "text", "text": "x"}}]}),
    (OPENAI_CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}),
    (OPENAI_CHAT, {"messages": [{"role": "assistant", "content": None, "tool_calls": None, "annotations": []}]}),
    (OPENAI_CHAT, {"messages": [{"role": "developer"}, {"role": "function", "name": "f", "content": "x"}]}),
    (OPENAI_CHAT, {"logprobs": None, "seed": None, "tools": [], "stop": [], "stream_options": {}}),
    (OPENAI_CHAT, {"max_tokens": 256.0, "seed": -9223372036854775808, "temperature": 1}),
    (OPENAI_CHAT, {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"a": "x" * 25000}}}]}),
    (OPENAI_CHAT, {"tools": [{"name": "f", "input_schema": {}}]}),
    (OPENAI_CHAT, {"service_tier": "a tier to come", "reasoning_effort": "utmost"}),
    (OPENAI_COMPLETION, {"prompt": ["x", "y"]}),
    (OPENAI_COMPLETION, {"prompt": [1, 2]}),
    (OPENAI_COMPLETION, {"prompt": [[1, 2], [3]]}),
    (ANTHROPIC_MESSAGES, {"messages": [{"role": "user", "content": {"type": "text", "text": "x"}}]}),
    (ANTHROPIC_MESSAGES, {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "input": {}}]}]}),
    (ANTHROPIC_MESSAGES, {"messages": [{"role": "user", "content": [{"type": "a block to come", "data": 1}]}]}),
    (ANTHROPIC_MESSAGES, {"tools": [{"type": "a tool to come", "max_uses": 1}], "tool_choice": {"type": "auto"}}),
    (ANTHROPIC_MESSAGES, {"max_tokens": 256.0, "thinking": {"type": "adaptive"}, "service_tier": "a tier to come"}),
    (ANTHROPIC_COUNT, {"max_tokens": 256, "stream": True, "metadata": {"user_id": "u"}}),
    (OPENAI_RESPONSES, {"input": "x"}),
    (OPENAI_RESPONSES, {"input": [{"role": "user", "content": "x"}, {"id": "msg_1"}]}),
    (OPENAI_RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "x"}]}]}),
    (
        OPENAI_RESPONSES,
        {
            "input": [
                {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "x"}]},
                {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "x"}], "encrypted_content": None},
                {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "1", "output": [{"type": "input_text", "text": "x"}]},
                {"type": "computer_call_output", "call_id": "1", "output": {"type": "computer_screenshot"}},
                {"type": "local_shell_call", "action": {"type": "exec", "command": ["ls"]}, "status": "completed"},
                {"type": "web_search_call", "action": {"type": "search", "query": "x"}},
                {"type": "mcp_list_tools", "server_label": "x", "tools": []},
                {"type": "custom_tool_call", "input": "x"},
                {"type": "compaction", "encrypted_content": "x"},
                {"type": "of a year to come", "output": 1},
            ]
        },
    ),
    (OPENAI_RESPONSES, {"tools": [{"type": "namespace", "name": "n", "tools": []}, {"type": "web_search"}]}),
    (OPENAI_RESPONSES, {"tools": [{"type": "function", "name": "f", "parameters": None, "strict": False}]}),
    (OPENAI_RESPONSES, {"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function"}]}}),
    (OPENAI_RESPONSES, {"reasoning": {"effort": "utmost", "summary": "auto"}, "include": ["of a year to come"]}),
    (OPENAI_RESPONSES, {"text": {"format": {"type": "json_schema", "schema": {}}, "verbosity": "low"}}),
    (OLLAMA_CHAT, {"messages": []}),
    (OLLAMA_CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}),
    (OLLAMA_CHAT, {"format": "", "think": False, "options": {}, "tools": []}),
    (OLLAMA_CHAT, {"format": {"type": "object"}, "think": "low", "options": {"num_ctx": 4096.0, "stop": "x"}}),
    *((OLLAMA_GENERATE, {"keep_alive": value}) for value in (300, 0.0, -1.0, "5m", "", None)),
]


def body_of(endpoint: str, **parameters: object) -> bytes:
    """Write a request that has what the endpoint requires."""
    required: dict[str, object] = {"model": "brunix"} | ({"messages": []} if endpoint in WITH_MESSAGES else {})
    return json.dumps(required | parameters).encode()


def nested(name: str, value: object) -> dict[str, object]:
    """Turn ``options.seed`` into an object in an object."""
    outer, _, inner = name.partition(".")
    return {outer: {inner: value}} if inner else {name: value}


@pytest.mark.parametrize(
    ("endpoint", "name", "types"),
    [(endpoint, *item) for endpoint, documented in DOCUMENTED.items() for item in (documented | OURS).items()
     if not (endpoint in ASKS_NOTHING and item[0] in OURS)],
)  # fmt: skip
def test_every_documented_parameter_has_its_type(endpoint: str, name: str, types: str) -> None:
    """A mistyped setting is passed over in silence, or a right one is refused."""
    for sample_types, sample in SAMPLES:
        body = body_of(endpoint, **nested(name, sample))
        if set(sample_types.split()) & set(types.split()):
            decode(ENDPOINTS[endpoint], body)
        else:
            with pytest.raises(GatewayError) as caught:
                decode(ENDPOINTS[endpoint], body)
            assert (caught.value.kind.status, caught.value.param) == (400, name)


@pytest.mark.parametrize("endpoint", DOCUMENTED)
def test_no_parameter_is_forgotten_or_made_up(endpoint: str) -> None:
    """A parameter that the API documents is unknown to the gateway, or the page lists one that nobody knows."""
    names = {name.partition(".")[0] for name in DOCUMENTED[endpoint]}
    fields = set(ENDPOINTS[endpoint].__struct_fields__)
    assert fields - set(OURS) == names


@pytest.mark.parametrize("endpoint", DOCUMENTED)
def test_null_means_absent(endpoint: str) -> None:
    """A client that writes out every setting it knows, most of them null, is refused."""
    nothing: Parameters = decode(ENDPOINTS[endpoint], body_of(endpoint))
    for name in DOCUMENTED[endpoint]:
        if name not in {"model", "messages"}:
            outer = name.partition(".")[0]
            assert getattr(decode(ENDPOINTS[endpoint], body_of(endpoint, **{outer: None})), outer) is None
            decode(ENDPOINTS[endpoint], body_of(endpoint, **nested(name, None)))
    assert ignored(nothing, body_of(endpoint)) == ()


@pytest.mark.parametrize("endpoint", DOCUMENTED)
@pytest.mark.parametrize("name", UNDOCUMENTED)
@pytest.mark.parametrize("value", [sample for _, sample in SAMPLES])
def test_undocumented_parameters_are_ignored(endpoint: str, name: str, value: object) -> None:
    """A client with a setting of its own making is refused."""
    assert decode(ENDPOINTS[endpoint], body_of(endpoint, **nested(name, value))) is not None


@pytest.mark.parametrize(("endpoint", "name", "value", "param"), WRONG_INSIDE)
def test_a_fault_inside_a_parameter_is_named(endpoint: str, name: str, value: object, param: str) -> None:
    """A caller is not told which of a hundred messages is at fault."""
    with pytest.raises(GatewayError) as caught:
        decode(ENDPOINTS[endpoint], body_of(endpoint, **{name: value}))
    assert (caught.value.kind.status, caught.value.param) == (400, param)


@pytest.mark.parametrize(("endpoint", "parameters"), ACCEPTED)
def test_shapes_seen_on_the_wire_are_accepted(endpoint: str, parameters: dict[str, object]) -> None:
    """A client that works with the other servers is refused by this one."""
    assert decode(ENDPOINTS[endpoint], body_of(endpoint, **parameters)) is not None


@pytest.mark.parametrize(
    ("endpoint", "required"), [(endpoint, "model") for endpoint in DOCUMENTED if endpoint != OLLAMA_SHOW]
)
def test_a_request_names_its_model(endpoint: str, required: str) -> None:
    """A request without a model fails without a word about the model."""
    for body in (b'{"messages": []}', b'{"model": null, "messages": []}'):
        with pytest.raises(GatewayError) as caught:
            decode(ENDPOINTS[endpoint], body)
        assert caught.value.param == required


@pytest.mark.parametrize(
    ("endpoint", "parameters", "names"),
    [
        (OPENAI_CHAT, {"stop": "x", "max_tokens": 1, "n": 1, "user": "u", "session_id": "s"}, ()),
        (
            OPENAI_CHAT,
            {"temperature": 0.0, "seed": None, "store": False, "tools": []},
            ("store", "temperature", "tools"),
        ),
        (OPENAI_CHAT, {"stream_options": {"include_usage": True}}, ()),
        (OPENAI_CHAT, {"stream_options": {"include_obfuscation": False}}, ("stream_options.include_obfuscation",)),
        (OPENAI_CHAT, {"tool_choice": {"type": "function"}, "top_n": 1}, ("top_n",)),
        # Of those that nobody knows, what may stand in a header: no other client's, no line break, and not without end.
        (
            OPENAI_CHAT,
            {"b": [{}], "a.b-c_1": "\n", "none": None, "A": 0, "": 1, "a b": 1, "é": 1, "x\r\ny": 1, "1": 1},
            ("b", "a.b-c_1", "A"),
        ),
        (OPENAI_CHAT, {"seed": 1, "x" * 64: 1, "x" * 65: 1}, ("seed", "x" * 64)),
        (OPENAI_CHAT, {f"x{number}": 1 for number in range(20)}, tuple(f"x{number}" for number in range(16))),
        (OPENAI_COMPLETION, {"prompt": "x", "best_of": 1, "suffix": ""}, ("best_of",)),
        (
            OPENAI_RESPONSES,
            {"input": "x", "store": False, "previous_response_id": "resp_1", "metadata": {}, "tool_choice": "none"},
            (),
        ),
        (
            OPENAI_RESPONSES,
            {"instructions": "x", "tools": [], "include": [], "text": {}, "max_tokens": 1},
            ("include", "text", "tools", "max_tokens"),
        ),
        (
            OPENAI_RESPONSES,
            {"stream_options": {"include_obfuscation": True}},
            ("stream_options.include_obfuscation",),
        ),
        (ANTHROPIC_MESSAGES, {"stop_sequences": ["x"], "max_tokens": 1, "stream": True, "session_id": "s"}, ()),
        (ANTHROPIC_MESSAGES, {"tool_choice": {"type": "auto"}, "thread": {"type": "create"}, "thinking": None}, ()),
        (ANTHROPIC_MESSAGES, {"system": "x", "metadata": {}, "betas": []}, ("metadata", "betas")),
        (OLLAMA_CHAT, {"options": {"seed": 1, "num_predict": 1, "mirostat": 2}}, ("options.seed",)),
        (OLLAMA_CHAT, {"options": {}, "keep_alive": 0, "think": False}, ("think",)),
        (OLLAMA_SHOW, {"options": {"seed": 1}, "verbose": True}, ("options", "verbose")),
    ],
)
def test_ignored_parameters_are_named(endpoint: str, parameters: dict[str, object], names: tuple[str, ...]) -> None:
    """A caller is not told, or is told wrongly, which of the settings had no effect."""
    body = body_of(endpoint, **parameters)
    request: Parameters = decode(ENDPOINTS[endpoint], body)
    assert ignored(request, body) == names


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({}, None),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, None),
        ({"tool_choice": "none", "function_call": "none"}, None),
        ({"tool_choice": "auto", "function_call": "auto"}, None),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}}, None),
        ({"tool_choice": {"type": "auto"}}, None),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "required"}}, "tool_choice"),
        ({"tool_choice": {"type": "a choice to come"}}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "a mode to come"}}}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"tool_choice": {"function": {"name": "f"}}}, "tool_choice"),
        ({"tool_choice": {"type": "custom", "custom": {"name": "f"}}}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required"}}}, "tool_choice"),
        ({"function_call": {"name": "f"}}, "function_call"),
    ],
)
def test_demands_for_a_tool_are_recognised(parameters: dict[str, object], param: str | None) -> None:
    """A client that insists on a tool call gets a text and fails on it, or one that does not insist is refused."""
    request = decode(openai_requests.ChatRequest, body_of(OPENAI_CHAT, **parameters))
    assert openai_requests.required_tool(request) == param


@pytest.fixture
def sent() -> list[tuple[str, bytes]]:
    return []


@pytest.fixture
def server_url(sent: list[tuple[str, bytes]]) -> Iterator[str]:
    """Run a server that notes each request in ``sent`` and refuses it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            sent.append((f"POST {self.path}", body))
            self.send_response(400)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server, Threads() as threads:
        threads.start(server.serve_forever, 0.02)
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def everything_is_known(sent: list[tuple[str, bytes]]) -> None:
    assert sent
    for endpoint, body in sent:
        decode(ENDPOINTS[endpoint], body)
        assert json.loads(body).keys() <= set(ENDPOINTS[endpoint].__struct_fields__)


def test_what_openais_sdk_sends_is_accepted(server_url: str, sent: list[tuple[str, bytes]]) -> None:
    """The OpenAI SDK's users are refused for a request that their SDK has made."""
    # Here, and not once in each process that collects the tests: they take half a second.
    import openai  # noqa: PLC0415 - as said
    from openai.types.chat import ChatCompletionMessage  # noqa: PLC0415 - likewise
    from openai.types.responses import ResponseOutputMessage, ResponseOutputText  # noqa: PLC0415 - likewise

    called = ChatCompletionMessage.model_validate(
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        }
    )
    chat: dict[str, Any] = {
        "model": "brunix",
        "messages": [
            {"role": "developer", "content": "Be brief"},
            {"role": "user", "content": "x"},
            ChatCompletionMessage(role="assistant", content="Hi").model_dump(),
            called,
            {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "r"}]},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "q"},
                    {"type": "image_url", "image_url": {"url": "data:,", "detail": "low"}},
                    {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
                ],
            },
        ],
        "audio": {"voice": "alloy", "format": "wav"},
        "frequency_penalty": 0.5,
        "function_call": "auto",
        "functions": [{"name": "f", "parameters": {"type": "object"}}],
        "logit_bias": {"1": -100},
        "logprobs": True,
        "max_completion_tokens": 5,
        "metadata": {"a": "b"},
        "modalities": ["text"],
        "n": 1,
        "parallel_tool_calls": True,
        "prediction": {"type": "content", "content": [{"type": "text", "text": "x"}]},
        "presence_penalty": -0.5,
        "prompt_cache_key": "k",
        "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
        "safety_identifier": "x",
        "seed": 4,
        "service_tier": "auto",
        "stop": ["a"],
        "store": False,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.1,
        "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}],
        "top_logprobs": 3,
        "top_p": 0.5,
        "user": "u",
        "verbosity": "low",
        "web_search_options": {"search_context_size": "low"},
        "extra_body": {"session_id": "s"},
    }
    completion: dict[str, Any] = {
        "model": "brunix",
        "best_of": 1,
        "echo": True,
        "logprobs": 2,
        "suffix": "s",
        "seed": 1,
    }
    prompts: list[Any] = ["x", ["x", "y"], [1, 2], [[1], [2]]]
    response: dict[str, Any] = {
        "model": "brunix",
        "background": False,
        "context_management": [{"type": "compaction", "compact_threshold": 1000}],
        "conversation": {"id": "conv_1"},
        "include": ["reasoning.encrypted_content"],
        "instructions": "Be brief",
        "max_output_tokens": 16,
        "max_tool_calls": 1,
        "metadata": {"a": "b"},
        "moderation": {"model": "x"},
        "parallel_tool_calls": True,
        "previous_response_id": "resp_1",
        "prompt": {"id": "pmpt_1", "variables": {"a": "b"}, "version": "1"},
        "prompt_cache_key": "k",
        "prompt_cache_options": {"mode": "explicit", "ttl": "30m"},
        "prompt_cache_retention": "24h",
        "reasoning": {"effort": "low", "summary": "auto"},
        "safety_identifier": "x",
        "service_tier": "auto",
        "store": False,
        "stream": True,
        "stream_options": {"include_obfuscation": False},
        "temperature": 0.1,
        "text": {"format": {"type": "json_schema", "name": "x", "schema": {}}, "verbosity": "low"},
        "tool_choice": {"type": "function", "name": "f"},
        "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}],
        "top_logprobs": 3,
        "top_p": 0.5,
        "truncation": "auto",
        "user": "u",
        "extra_body": {"session_id": "s"},
    }
    part = ResponseOutputText(type="output_text", text="Hi", annotations=[], logprobs=[])
    answered = ResponseOutputMessage(id="msg_1", type="message", role="assistant", status="completed", content=[part])
    inputs: list[Any] = [
        "x",
        [
            {"role": "developer", "content": "Be brief"},
            {"role": "user", "content": [{"type": "input_text", "text": "x"}, {"type": "input_file", "file_id": "f"}]},
            answered,
            answered.model_dump(),
            {"type": "item_reference", "id": "msg_1"},
            {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "1", "output": "r"},
            {"role": "user", "content": "q"},
        ],
    ]
    with openai.OpenAI(api_key="none", base_url=f"{server_url}/v1") as client:
        with suppress(openai.BadRequestError):
            client.chat.completions.create(**chat)
        for prompt in prompts:
            with suppress(openai.BadRequestError):
                client.completions.create(prompt=prompt, **completion)
        for given in inputs:
            with suppress(openai.BadRequestError):
                client.responses.create(input=given, **response)
    everything_is_known(sent)


def test_what_ollamas_sdk_sends_is_accepted(server_url: str, sent: list[tuple[str, bytes]]) -> None:
    """The Ollama SDK's users are refused for a request that their SDK has made."""
    import ollama  # noqa: PLC0415 - see above

    def weather(city: str) -> str:
        """
        Tell the weather.

        Args:
            city: where

        """
        return city

    chat: dict[str, Any] = {
        "messages": [
            ollama.Message(role="user", content="x", images=[ollama.Image(value=b"abc")]),
            {"role": "assistant", "thinking": "h", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
            {"role": "tool", "tool_name": "f", "content": "1"},
        ],
        "tools": [weather],
        "options": ollama.Options(num_predict=3, stop=["a"], numa=True, seed=1, low_vram=True, temperature=1),
        "format": {"type": "object"},
        "keep_alive": "5m",
        "think": True,
    }
    generate: dict[str, Any] = {
        "prompt": "x",
        "suffix": "s",
        "system": "s",
        "template": "t",
        "context": [1, 2],
        "raw": True,
        "images": [b"abc"],
        "format": "json",
        "keep_alive": 1.5,
        "options": {"stop": "x"},
    }
    with ollama.Client(host=server_url) as client:
        for request in (
            partial(client.chat, "brunix", **chat),
            partial(client.chat, "brunix", keep_alive=0),
            partial(client.chat, "brunix", think="high", logprobs=True, top_logprobs=2, options={}),
            partial(client.generate, "brunix", **generate),
            partial(client.generate, "brunix", keep_alive=0),
            partial(client.show, "brunix"),
        ):
            with suppress(ollama.ResponseError):
                request()
    everything_is_known(sent)


def test_the_page_says_what_the_code_says() -> None:
    """The reference page of the parameters tells a user something that is not so."""
    page = PAGE.read_text("utf-8")
    assert page == rewritten(page), "rewrite the page: .venv/bin/python tests/support/parameter_tables.py"
