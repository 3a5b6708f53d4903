"""
The OpenAPI description of the gateway's endpoints.

The schemas of requests are generated from the types that decode them, so the two cannot differ.
"""

from __future__ import annotations

from typing import Any, Final

import attrs
import msgspec

from brunix_twisted import __version__
from brunix_twisted.dialects import (
    anthropic_requests,
    mcp_requests,
    ollama_requests,
    openai_requests,
    responses_requests,
)
from brunix_twisted.dialects.framing import encode_json

Json = dict[str, Any]

OPENAI_ERROR: Final[Json] = {
    "type": "object",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "additionalProperties": False,
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
ANTHROPIC_ERROR: Final[Json] = {
    "type": "object",
    "required": ["type", "error", "request_id"],
    "additionalProperties": False,
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "additionalProperties": False,
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
        },
        "request_id": {"type": ["string", "null"]},
    },
}
OLLAMA_ERROR: Final[Json] = {
    "type": "object",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {"error": {"type": "string"}},
}

MCP_ERROR: Final[Json] = {
    "type": "object",
    "required": ["jsonrpc", "id", "error"],
    "additionalProperties": False,
    "properties": {
        "jsonrpc": {"const": "2.0"},
        "id": {"type": ["string", "integer", "null"]},
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "additionalProperties": False,
            "properties": {"code": {"type": "integer"}, "message": {"type": "string"}, "data": {"type": "object"}},
        },
    },
}


@attrs.frozen
class _Endpoint:
    """One method of a path."""

    path: str
    summary: str
    request: type | None = None
    answers: tuple[str, ...] = ("application/json",)
    """The media types of a successful response."""
    statuses: tuple[str, ...] = ("200",)
    is_delete: bool = False

    @property
    def method(self) -> str:
        """The HTTP method."""
        return "delete" if self.is_delete else "get" if self.request is None else "post"


_SSE = ("application/json", "text/event-stream")
_NDJSON = ("application/json", "application/x-ndjson")
_ENDPOINTS: Final = (
    _Endpoint("/v1/chat/completions", "Answer a conversation's last question", openai_requests.ChatRequest, _SSE),
    _Endpoint("/v1/completions", "Answer a prompt", openai_requests.CompletionsRequest, _SSE),
    _Endpoint(
        "/v1/responses",
        "Answer a question, or continue from a stored response",
        responses_requests.ResponsesRequest,
        _SSE,
    ),
    _Endpoint("/v1/responses/{name}", "Return a stored response"),
    _Endpoint("/v1/responses/{name}", "Delete a stored response", is_delete=True),
    _Endpoint("/v1/messages", "Answer a conversation's last question", anthropic_requests.MessagesRequest, _SSE),
    _Endpoint("/v1/messages/count_tokens", "Count the tokens of a conversation", anthropic_requests.CountTokensRequest),
    _Endpoint("/v1/models", "List the model"),
    _Endpoint("/v1/models/{name}", "Describe the model"),
    _Endpoint("/api/chat", "Answer a conversation's last question", ollama_requests.ChatRequest, _NDJSON),
    _Endpoint("/api/generate", "Answer a prompt", ollama_requests.GenerateRequest, _NDJSON),
    _Endpoint("/api/show", "Describe the model", ollama_requests.ShowRequest),
    _Endpoint("/api/tags", "List the model"),
    _Endpoint("/api/ps", "List the model as running"),
    _Endpoint("/api/version", "Return the compatible Ollama release"),
    _Endpoint(
        "/mcp",
        "Answer a message of the Model Context Protocol",
        mcp_requests.Message,
        _SSE,
        statuses=("200", "202"),
    ),
    _Endpoint(
        "/", "Return the page to a browser, and a status line to other clients", answers=("text/plain", "text/html")
    ),
    _Endpoint(
        "/page/{name}",
        "Return a file of the page",
        answers=("text/javascript", "text/css", "image/svg+xml", "application/json"),
    ),
    _Endpoint("/page/questions.json", "Return questions that the page offers"),
    _Endpoint("/health", "Return whether the gateway can answer questions", statuses=("200", "503")),
    _Endpoint("/health/live", "Return whether the process serves requests"),
    _Endpoint("/health/sessions", "Return why the caller's latest conversations did not continue in their sessions"),
    _Endpoint("/openapi.json", "Return this description"),
)


def openapi_body() -> bytes:
    """``GET /openapi.json``."""
    types = [endpoint.request for endpoint in _ENDPOINTS if endpoint.request is not None]
    references, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(types, references, strict=True))
    paths: dict[str, Json] = {}
    for endpoint in _ENDPOINTS:
        request = None if endpoint.request is None else schema_of[endpoint.request]
        paths.setdefault(endpoint.path, {})[endpoint.method] = _operation(endpoint, request)
    return encode_json(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "brunix_twisted",
                "version": __version__,
                "summary": "OpenAI's, Anthropic's and Ollama's HTTP APIs for the Brunix Assistance Engine",
            },
            "paths": paths,
            "components": {"schemas": schemas},
        }
    )


def _operation(endpoint: _Endpoint, request: Json | None) -> Json:
    error = _content(_error(endpoint.path), ("application/json",))
    good = _content({} if "application/json" not in endpoint.answers else {"type": "object"}, endpoint.answers)
    operation: Json = {
        "summary": endpoint.summary,
        "responses": {
            # 202 has no body: it accepts a notification.
            **{
                status: {"description": endpoint.summary} | ({} if status == "202" else good)
                for status in endpoint.statuses
            },
            "default": {"description": "Error"} | error,
        },
    }
    if "{name}" in endpoint.path:
        operation["parameters"] = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]
    if request is not None:
        operation["requestBody"] = {"required": True} | _content(request, ("application/json",))
    return operation


def _error(path: str) -> Json:
    if path.startswith("/api/"):
        return OLLAMA_ERROR
    if path == "/mcp":
        return MCP_ERROR
    if path.startswith("/v1/models"):
        return {"anyOf": [OPENAI_ERROR, ANTHROPIC_ERROR]}
    return ANTHROPIC_ERROR if path.startswith("/v1/messages") else OPENAI_ERROR


def _content(schema: Json, media_types: tuple[str, ...]) -> Json:
    # The schema describes a JSON body. The events and lines of a stream have other schemas.
    return {"content": {kind: {"schema": schema if kind == "application/json" else {}} for kind in media_types}}
