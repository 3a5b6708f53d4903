"""The judges themselves: what they let pass and what they catch."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any, Final

import pytest

from wire import (
    check,
    message_events,
    named_comments,
    named_events,
    names,
    ndjson_lines,
    response_events,
    sse_comments,
    sse_events,
)

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

TEXT_PART: Final[dict[str, Any]] = {"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []}
ITEM: Final[dict[str, Any]] = {
    "id": "msg_1",
    "type": "message",
    "status": "completed",
    "role": "assistant",
    "content": [TEXT_PART],
}
ITEM_BEGUN: Final[dict[str, Any]] = ITEM | {"status": "in_progress", "content": []}
RESPONSE_USAGE: Final[dict[str, Any]] = {
    "input_tokens": 1,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 1,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 2,
}
RESPONSE: Final[dict[str, Any]] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "background": False,
    "completed_at": 2,
    "error": None,
    "frequency_penalty": 0,
    "incomplete_details": None,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "model": "brunix",
    "output": [ITEM],
    "parallel_tool_calls": True,
    "presence_penalty": 0,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1,
    "truncation": "disabled",
    "usage": RESPONSE_USAGE,
}
RESPONSE_BEGUN: Final[dict[str, Any]] = RESPONSE | {
    "status": "in_progress",
    "completed_at": None,
    "output": [],
    "usage": None,
}
RESPONSE_CUT: Final[dict[str, Any]] = RESPONSE | {
    "status": "incomplete",
    "completed_at": None,
    "incomplete_details": {"reason": "max_output_tokens"},
    "output": [ITEM | {"status": "incomplete"}],
}
RESPONSE_FAILED: Final[dict[str, Any]] = RESPONSE_BEGUN | {
    "status": "failed",
    "error": {"code": "server_error", "message": "No"},
}
PART_PLACE: Final[dict[str, Any]] = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
ERROR: Final[dict[str, Any]] = {"code": "engine_error", "message": "No", "param": None}
# The events of an answer, in order, and of one that failed.
RESPONSE_STREAM: Final[list[dict[str, Any]]] = [
    {"type": "response.created", "response": RESPONSE_BEGUN},
    {"type": "response.in_progress", "response": RESPONSE_BEGUN},
    {"type": "response.output_item.added", "output_index": 0, "item": ITEM_BEGUN},
    {"type": "response.content_part.added", **PART_PLACE, "part": TEXT_PART | {"text": ""}},
    {"type": "response.output_text.delta", **PART_PLACE, "delta": "Hi", "logprobs": []},
    {"type": "response.output_text.done", **PART_PLACE, "text": "Hi", "logprobs": []},
    {"type": "response.content_part.done", **PART_PLACE, "part": TEXT_PART},
    {"type": "response.output_item.done", "output_index": 0, "item": ITEM},
    {"type": "response.completed", "response": RESPONSE},
]
RESPONSE_STREAM_FAILED: Final = [
    *RESPONSE_STREAM[:5],
    {"type": "error", **ERROR, "error": ERROR | {"type": "server_error"}},
    {"type": "response.failed", "response": RESPONSE_FAILED},
]

TOKENS: Final[dict[str, Any]] = {
    "input_tokens": 1,
    "output_tokens": 2,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "output_tokens_details": None,
    "server_tool_use": None,
}
ANTHROPIC_USAGE: Final[dict[str, Any]] = TOKENS | {
    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
    "inference_geo": None,
    "service_tier": None,
}
ANTHROPIC_END: Final[dict[str, Any]] = {
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "stop_details": None,
    "container": None,
}
ANTHROPIC_MESSAGE: Final[dict[str, Any]] = ANTHROPIC_END | {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "brunix",
    "content": [{"type": "text", "text": "Hi", "citations": []}],
    "usage": ANTHROPIC_USAGE,
}
ANTHROPIC_ERROR: Final[dict[str, Any]] = {
    "type": "error",
    "error": {"type": "api_error", "message": "No"},
    "request_id": None,
}
PING: Final[dict[str, Any]] = {"type": "ping"}
NO: Final = {"supported": False}
ANTHROPIC_MODEL: Final[dict[str, Any]] = {
    "type": "model",
    "id": "brunix",
    "display_name": "brunix",
    "created_at": "2026-11-22T12:00:00Z",
    "lifecycle": "active",
    "deprecated_at": None,
    "retires_at": None,
    "line": None,
    "max_input_tokens": 4096,
    "max_tokens": None,
    "capabilities": {
        "batch": NO,
        "citations": NO,
        "code_execution": NO,
        "context_management": NO
        | {"clear_thinking_20251015": NO, "clear_tool_uses_20250919": NO, "compact_20260112": NO},
        "effort": NO | {"low": NO, "medium": NO, "high": NO, "xhigh": NO, "max": NO},
        "image_input": NO,
        "pdf_input": NO,
        "server_tools": NO | {"code_execution": NO, "web_search": NO},
        "structured_outputs": NO,
        "thinking": NO | {"types": {"adaptive": NO, "between_tools": NO, "disabled": NO, "enabled": NO}},
    },
}
MESSAGE_STREAM: Final[list[dict[str, Any]]] = [
    {"type": "message_start", "message": ANTHROPIC_MESSAGE | {"content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "", "citations": []}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": ANTHROPIC_END, "usage": TOKENS},
    {"type": "message_stop"},
]

URL_CITATION: Final = {"start_index": 3, "end_index": 9, "url": "guide.md#loops", "title": "Guide"}
CITATION: Final = {
    "type": "web_search_result_location",
    "cited_text": "",
    "encrypted_index": "",
    "title": "Guide",
    "url": "guide.md#loops",
}
GOOD: Final[dict[str, list[Any]]] = {
    "openai_usage": [USAGE],
    "openai_url_citation": [URL_CITATION],
    "openai_chat_annotations": [[{"type": "url_citation", "url_citation": URL_CITATION}], []],
    "openai_response_annotation": [{"type": "url_citation"} | URL_CITATION],
    "anthropic_citation": [CITATION],
    "openai_chat_completion": [
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "brunix",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "Hi", "refusal": None, "annotations": []},
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
    "openai_response": [RESPONSE, RESPONSE_BEGUN, RESPONSE_CUT, RESPONSE_FAILED],
    "openai_response_deleted": [{"id": "resp_1", "object": "response", "deleted": True}],
    "openai_response_event": [
        event | {"sequence_number": 0}
        for event in (
            *RESPONSE_STREAM,
            *RESPONSE_STREAM_FAILED,
            {"type": "response.incomplete", "response": RESPONSE_CUT},
        )
    ],
    "openai_response_item": [ITEM, ITEM_BEGUN],
    "openai_response_text": [TEXT_PART],
    "openai_response_usage": [RESPONSE_USAGE],
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
    "anthropic_error": [
        ANTHROPIC_ERROR,
        ANTHROPIC_ERROR | {"error": {"type": "overloaded_error", "message": "No"}, "request_id": "1"},
    ],
    "anthropic_event": [*MESSAGE_STREAM, PING, ANTHROPIC_ERROR],
    "anthropic_message": [
        ANTHROPIC_MESSAGE,
        ANTHROPIC_MESSAGE | {"stop_reason": "stop_sequence", "stop_sequence": "x"},
        ANTHROPIC_MESSAGE | {"stop_reason": "max_tokens", "content": [{"type": "text", "text": "", "citations": []}]},
    ],
    "anthropic_model": [ANTHROPIC_MODEL],
    "anthropic_tokens_count": [{"input_tokens": 0}],
    "anthropic_usage": [ANTHROPIC_USAGE, ANTHROPIC_USAGE | {"service_tier": "standard", "inference_geo": "eu"}],
    "openai_chat_logprobs": [],
    "openai_completion_logprobs": [],
    "mcp_tool_result": [
        {
            "jsonrpc": "2.0",
            "id": 0,
            "result": {
                "content": [{"type": "text", "text": "Hi", "annotations": {"audience": ["assistant"]}}],
                "structuredContent": {},
                "isError": False,
                "resultType": "complete",
            },
        },
        {"jsonrpc": "2.0", "id": "a", "result": {"content": [{"type": "text", "text": ""}], "isError": True}},
    ],
    "mcp_tools": [
        {
            "tools": [{"name": "ask", "inputSchema": {"type": "object"}, "outputSchema": {"type": "object"}}],
            "resultType": "complete",
            "cacheScope": "public",
            "ttlMs": 0,
        },
        {"tools": []},
    ],
    "mcp_discovery": [
        {
            "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}},
            "cacheScope": "public",
            "ttlMs": 0,
            "resultType": "complete",
            "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "brunix", "version": "1"}},
        }
    ],
    "mcp_initialization": [
        {
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {"listChanged": False}},
            "serverInfo": {"name": "brunix", "version": "1"},
        }
    ],
    "mcp_progress": [
        {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": "t", "progress": 1.5}}
    ],
    "mcp_error": [
        {"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "No"}},
        {
            "jsonrpc": "2.0",
            "id": 1,
            "error": {"code": -32022, "message": "No", "data": {"requested": "1", "supported": []}},
        },
    ],
}


@pytest.mark.parametrize("name", names())
def test_good_bodies_pass(name: str) -> None:
    """Every other test of an answer would fail without a fault: the judge refuses what the documents allow."""
    for body in GOOD[name]:
        check(name, body)


GONE: Final = object()

# A schema, the place in its first good body, and what to put there.
BAD: Final[list[tuple[str, str, object]]] = [
    ("openai_url_citation", "url", GONE),
    ("openai_chat_annotations", "0.type", "file_citation"),
    ("openai_response_annotation", "url_citation", {}),
    ("anthropic_citation", "title", GONE),
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
    ("openai_chat_completion", "choices.0.message.annotations", GONE),
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
    ("mcp_tool_result", "id", None),
    ("mcp_tool_result", "result.content", []),
    ("mcp_tool_result", "result.content.0.text", GONE),
    ("mcp_tool_result", "result.content.0.annotations.audience", ["model"]),
    ("mcp_tool_result", "result.structuredContent", []),
    ("mcp_tool_result", "result.isError", "no"),
    ("mcp_tool_result", "error", {}),
    ("mcp_tools", "tools.0.name", "a b"),
    ("mcp_tools", "tools.0.inputSchema", {}),
    ("mcp_tools", "tools.0.inputSchema.type", "array"),
    ("mcp_tools", "tools.0.outputSchema.required", "all"),
    ("mcp_tools", "ttlMs", GONE),
    ("mcp_tools", "ttlMs", 1.0),
    ("mcp_discovery", "supportedVersions", []),
    ("mcp_discovery", "resultType", GONE),
    ("mcp_discovery", "serverInfo", {}),
    ("mcp_initialization", "serverInfo.version", GONE),
    ("mcp_initialization", "capabilities.tools", GONE),
    ("mcp_initialization", "resultType", "complete"),
    ("mcp_progress", "params.progressToken", GONE),
    ("mcp_progress", "params.progress", "1"),
    ("mcp_progress", "id", 1),
    ("mcp_error", "jsonrpc", GONE),
    ("mcp_error", "error.code", "no"),
    ("mcp_error", "error.code", -32022),
    ("mcp_error", "error.message", ""),
    ("openai_error", "error.param", GONE),
    ("openai_error", "error.code", GONE),
    ("openai_error", "error.code", 400),
    ("openai_error", "error.type", None),
    ("openai_error", "error.message", ""),
    ("openai_error", "choices", []),
    *(("openai_response", key, GONE) for key in RESPONSE),
    ("openai_response", "id", "1"),
    ("openai_response", "object", "chat.completion"),
    ("openai_response", "created_at", 1.5),
    ("openai_response", "completed_at", None),  # of one that is completed
    ("openai_response", "status", "in_progress"),  # with output and usage
    ("openai_response", "status", "incomplete"),  # without a reason
    ("openai_response", "status", "failed"),  # without an error
    ("openai_response", "status", "cancelled"),
    ("openai_response", "error", {"code": "server_error", "message": "No"}),  # of one that is completed
    ("openai_response", "incomplete_details", {"reason": "max_output_tokens"}),
    ("openai_response", "output", []),
    ("openai_response", "output", [ITEM, ITEM]),
    ("openai_response", "output", [ITEM | {"status": "incomplete"}]),
    ("openai_response", "output.0.content", []),
    ("openai_response", "usage", None),
    ("openai_response", "usage", USAGE),
    ("openai_response", "tools", [{"type": "function"}]),
    ("openai_response", "metadata", None),
    ("openai_response", "metadata", {"a": 1}),
    ("openai_response", "max_output_tokens", 5.0),
    ("openai_response", "previous_response_id", "1"),
    ("openai_response", "user", None),
    ("openai_response", "output_text", "Hi"),
    ("openai_response_deleted", "deleted", False),
    ("openai_response_deleted", "id", "1"),
    ("openai_response_event", "type", "response.queued"),
    ("openai_response_event", "type", "response.completed"),  # of one that is in progress
    ("openai_response_event", "sequence_number", GONE),
    ("openai_response_event", "response", GONE),
    ("openai_response_event", "response.id", GONE),
    ("openai_response_event", "error", None),
    ("openai_response_item", "id", "1"),
    ("openai_response_item", "status", "in_progress"),  # with text
    ("openai_response_item", "content", "Hi"),
    ("openai_response_item", "role", "user"),
    ("openai_response_item", "phase", "final_answer"),
    ("openai_response_text", "logprobs", GONE),
    ("openai_response_text", "annotations", None),
    ("openai_response_text", "type", "text"),
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
    *(("anthropic_message", key, GONE) for key in ANTHROPIC_MESSAGE),
    ("anthropic_message", "id", "1"),
    ("anthropic_message", "type", "completion"),
    ("anthropic_message", "role", "user"),
    ("anthropic_message", "content", []),
    ("anthropic_message", "content", "Hi"),
    ("anthropic_message", "content.0.citations", None),
    ("anthropic_message", "content.0.citations", GONE),
    ("anthropic_message", "content.0.type", "tool_use"),
    ("anthropic_message", "stop_reason", None),
    ("anthropic_message", "stop_reason", "tool_use"),
    ("anthropic_message", "stop_reason", "stop"),
    ("anthropic_message", "stop_reason", "stop_sequence"),  # without one
    ("anthropic_message", "stop_sequence", "x"),  # of one that ended by itself
    ("anthropic_message", "usage.input_tokens", GONE),
    ("anthropic_message", "usage.output_tokens", None),
    ("anthropic_message", "created", 1),
    *(("anthropic_usage", key, GONE) for key in ANTHROPIC_USAGE),
    ("anthropic_usage", "input_tokens", 1.0),
    ("anthropic_usage", "cache_creation", None),
    ("anthropic_usage", "total_tokens", 3),
    ("anthropic_event", "type", GONE),
    ("anthropic_event", "type", "message_stop"),  # with a message
    ("anthropic_event", "type", "completion"),
    ("anthropic_event", "message", GONE),
    ("anthropic_event", "message.usage", GONE),
    ("anthropic_event", "message.content", [{"type": "text", "text": ""}]),
    ("anthropic_event", "message.stop_reason", "end_turn"),
    ("anthropic_event", "index", 0),
    ("anthropic_error", "type", GONE),
    ("anthropic_error", "request_id", GONE),
    ("anthropic_error", "error", "No"),
    ("anthropic_error", "error.type", "server_error"),
    ("anthropic_error", "error.message", ""),
    ("anthropic_error", "error.param", None),
    *(("anthropic_model", key, GONE) for key in ANTHROPIC_MODEL),
    ("anthropic_model", "created_at", "yesterday"),
    ("anthropic_model", "capabilities.batch", GONE),
    ("anthropic_model", "capabilities.thinking", {"supported": False}),
    ("anthropic_model", "max_input_tokens", 4096.0),
    ("anthropic_tokens_count", "input_tokens", GONE),
    ("anthropic_tokens_count", "input_tokens", 0.5),
    ("anthropic_tokens_count", "output_tokens", 0),
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


def named_stream(*events: dict[str, Any]) -> bytes:
    """Number the events, and write them."""
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (event["type"].encode(), json.dumps({"sequence_number": number} | event).encode())
        for number, event in enumerate(events)
    )


def test_named_events_are_read() -> None:
    """Tests of a stream see other events than a client does."""
    body = b': keep-alive\n\nevent: a\ndata: {"type": "a"}\n\n: still\n\nevent: b.c\ndata: {"type": "b.c", "x": 1}\n\n'
    assert named_events(body) == [{"type": "a"}, {"type": "b.c", "x": 1}]
    assert named_comments(body) == ["keep-alive", "still"]
    assert response_events(named_stream(*RESPONSE_STREAM))[-1]["response"] == RESPONSE
    assert response_events(named_stream(*RESPONSE_STREAM_FAILED))[-1]["response"] == RESPONSE_FAILED


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'event: a\ndata: {"type": "a"}',  # no blank line after it
        b'event: a\ndata: {"type": "a"}\n',
        b'data: {"type": "a"}\n\n',
        b"event: a\n\n",
        b"event: a\ndata: \n\n",
        b'event: b\ndata: {"type": "a"}\n\n',
        b'event: a\ndata: {"a": 1}\n\n',
        b"event: a\ndata: [DONE]\n\n",
        b'event: a\ndata: {"type": "a"}\n\ndata: [DONE]\n\n',
        b'data: {"type": "a"}\nevent: a\n\n',
        b'event: a\nid: 1\ndata: {"type": "a"}\n\n',
        b'event: a\n: keep-alive\ndata: {"type": "a"}\n\n',
        b'event: a\ndata: {"type":\ndata: "a"}\n\n',
        b'event: a\ndata: {"type": "a"}\n\n\n',
        b'event: a\r\ndata: {"type": "a"}\r\n\r\n',
        b'event:a\ndata:{"type": "a"}\n\n',
        'event: a\ndata: {"type": "a", "b": "\u2028"}\n\n'.encode(),
        b"retry: 5\n\n",
    ],
)
def test_named_events_that_clients_stumble_over_are_caught(body: bytes) -> None:
    """A stream that kills a client goes out unseen."""
    with pytest.raises(AssertionError):
        named_events(body)


DONE: Final = RESPONSE_STREAM[-1]


@pytest.mark.parametrize(
    "events",
    [
        RESPONSE_STREAM[:-1],  # no end
        RESPONSE_STREAM[:4],
        RESPONSE_STREAM_FAILED[:-1],
        RESPONSE_STREAM[1:],
        [*RESPONSE_STREAM[:5], *RESPONSE_STREAM[6:]],
        [*RESPONSE_STREAM, DONE],  # two ends
        [*RESPONSE_STREAM, RESPONSE_STREAM_FAILED[-1]],
        [*RESPONSE_STREAM[:-1], *RESPONSE_STREAM_FAILED[-2:]],
        [*RESPONSE_STREAM[:5], RESPONSE_STREAM_FAILED[-1]],
        [*RESPONSE_STREAM, RESPONSE_STREAM[4]],  # text after the end
        [RESPONSE_STREAM[0], RESPONSE_STREAM[0], *RESPONSE_STREAM[2:]],
        [*RESPONSE_STREAM[:4], RESPONSE_STREAM[4], RESPONSE_STREAM[4], *RESPONSE_STREAM[5:]],  # "HiHi", told as "Hi"
        [*RESPONSE_STREAM[:4], *RESPONSE_STREAM[5:]],  # "", told as "Hi"
        [*RESPONSE_STREAM[:4], RESPONSE_STREAM[4] | {"item_id": "msg_2"}, *RESPONSE_STREAM[5:]],
        [*RESPONSE_STREAM[:-1], DONE | {"response": RESPONSE | {"id": "resp_2"}}],
        [*RESPONSE_STREAM[:-1], DONE | {"response": RESPONSE | {"output": [ITEM | {"id": "msg_2"}]}}],
        [*RESPONSE_STREAM[:-1], DONE | {"sequence_number": 9}],
        [*RESPONSE_STREAM[:4], RESPONSE_STREAM[4] | {"logprobs": None}, *RESPONSE_STREAM[5:]],
    ],
)
def test_responses_that_clients_stumble_over_are_caught(events: list[dict[str, Any]]) -> None:
    """A client waits for an end that does not come, or takes half an answer for all of it."""
    with pytest.raises(AssertionError):
        response_events(named_stream(*events))


def test_nothing_follows_a_response() -> None:
    """A client that has closed the connection after the last event breaks it for the next request."""
    with pytest.raises(AssertionError, match="something follows"):
        response_events(named_stream(*RESPONSE_STREAM) + b": keep-alive\n\n")


def message_stream(*events: dict[str, Any]) -> bytes:
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (event["type"].encode(), json.dumps(event).encode()) for event in events
    )


@pytest.mark.parametrize(
    "events",
    [
        MESSAGE_STREAM,
        [*MESSAGE_STREAM[:2], *MESSAGE_STREAM[3:]],
        [*MESSAGE_STREAM[:1], PING, MESSAGE_STREAM[1], PING, *MESSAGE_STREAM[2:3], PING, *MESSAGE_STREAM[2:]],
        [*MESSAGE_STREAM[:2], ANTHROPIC_ERROR],
        [*MESSAGE_STREAM[:3], PING, ANTHROPIC_ERROR],
    ],
)
def test_messages_are_read(events: list[dict[str, Any]]) -> None:
    """Tests of a stream see other events than a client does."""
    assert message_events(message_stream(*events)) == events


@pytest.mark.parametrize(
    "events",
    [
        MESSAGE_STREAM[:-1],  # no end
        MESSAGE_STREAM[:3],
        [*MESSAGE_STREAM[:-2], MESSAGE_STREAM[-1]],
        [*MESSAGE_STREAM[:3], *MESSAGE_STREAM[4:]],
        MESSAGE_STREAM[1:],  # no beginning
        [MESSAGE_STREAM[0], *MESSAGE_STREAM[2:]],
        [ANTHROPIC_ERROR],
        [PING, *MESSAGE_STREAM],
        [MESSAGE_STREAM[0], *MESSAGE_STREAM],
        [*MESSAGE_STREAM, MESSAGE_STREAM[-1]],  # something after the end
        [*MESSAGE_STREAM, PING],
        [*MESSAGE_STREAM, ANTHROPIC_ERROR],
        [*MESSAGE_STREAM[:2], ANTHROPIC_ERROR, MESSAGE_STREAM[-1]],
        [*MESSAGE_STREAM[:2], ANTHROPIC_ERROR, PING],
        [*MESSAGE_STREAM[:4], MESSAGE_STREAM[2], *MESSAGE_STREAM[4:]],  # text after the block
        [*MESSAGE_STREAM[:5], ANTHROPIC_ERROR],  # a failure of an answer that has ended
        [*MESSAGE_STREAM[:2], MESSAGE_STREAM[2] | {"index": 1}, *MESSAGE_STREAM[3:]],
        [*MESSAGE_STREAM[:2], MESSAGE_STREAM[2] | {"delta": {"type": "text", "text": "Hi"}}, *MESSAGE_STREAM[3:]],
        [*MESSAGE_STREAM[:3], MESSAGE_STREAM[3] | {"index": GONE}, *MESSAGE_STREAM[4:]],
        [*MESSAGE_STREAM[:4], MESSAGE_STREAM[4] | {"usage": TOKENS | {"input_tokens": 2}}, MESSAGE_STREAM[5]],
        [*MESSAGE_STREAM[:4], MESSAGE_STREAM[4] | {"delta": ANTHROPIC_END | {"stop_reason": None}}, MESSAGE_STREAM[5]],
    ],
)
def test_messages_that_clients_stumble_over_are_caught(events: list[dict[str, Any]]) -> None:
    """A client waits for an end that does not come, or takes half an answer for all of it."""
    told = [{key: value for key, value in event.items() if value is not GONE} for event in events]
    with pytest.raises(AssertionError):
        message_events(message_stream(*told))


def test_a_message_has_no_comments() -> None:
    """A client gets another sign of life than the one that this API has for it."""
    with pytest.raises(AssertionError, match="a comment"):
        message_events(message_stream(*MESSAGE_STREAM[:1]) + b": keep-alive\n\n" + message_stream(*MESSAGE_STREAM[1:]))


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
