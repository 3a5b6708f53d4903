"""
The OpenAPI description of the gateway's own endpoints.

The requests' schemas are made from the types that the requests are read by, so that the two cannot differ.
"""

from __future__ import annotations

from typing import Any, Final

import attrs
import msgspec

from brunix_twisted import __version__
from brunix_twisted.dialects import ollama_requests, openai_requests
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
OLLAMA_ERROR: Final[Json] = {
    "type": "object",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {"error": {"type": "string"}},
}


@attrs.frozen
class _Endpoint:
    """One path and its one method, GET or POST."""

    path: str
    summary: str
    request: type | None = None
    answers: tuple[str, ...] = ("application/json",)
    """The media types of a good answer."""
    statuses: tuple[str, ...] = ("200",)


_SSE = ("application/json", "text/event-stream")
_NDJSON = ("application/json", "application/x-ndjson")
_ENDPOINTS: Final = (
    _Endpoint("/v1/chat/completions", "Answer a conversation's last question", openai_requests.ChatRequest, _SSE),
    _Endpoint("/v1/completions", "Answer a prompt", openai_requests.CompletionRequest, _SSE),
    _Endpoint("/v1/models", "List the model"),
    _Endpoint("/v1/models/{name}", "Describe the model"),
    _Endpoint("/api/chat", "Answer a conversation's last question", ollama_requests.ChatRequest, _NDJSON),
    _Endpoint("/api/generate", "Answer a prompt", ollama_requests.GenerateRequest, _NDJSON),
    _Endpoint("/api/show", "Describe the model", ollama_requests.ShowRequest),
    _Endpoint("/api/tags", "List the model"),
    _Endpoint("/api/ps", "List the model as running"),
    _Endpoint("/api/version", "Say which release of Ollama this stands in for"),
    _Endpoint("/", "Say that this is there", answers=("text/plain",)),
    _Endpoint("/health", "Say whether a question would be answered", statuses=("200", "503")),
    _Endpoint("/health/live", "Say that this process serves"),
    _Endpoint("/openapi.json", "This description"),
)


def openapi_body() -> bytes:
    """``GET /openapi.json``."""
    types = [endpoint.request for endpoint in _ENDPOINTS if endpoint.request is not None]
    references, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(types, references, strict=True))
    paths = {
        endpoint.path: {
            "get" if endpoint.request is None else "post": _operation(
                endpoint, None if endpoint.request is None else schema_of[endpoint.request]
            )
        }
        for endpoint in _ENDPOINTS
    }
    return encode_json(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "brunix_twisted",
                "version": __version__,
                "summary": "OpenAI's and Ollama's HTTP APIs for the Brunix Assistance Engine",
            },
            "paths": paths,
            "components": {"schemas": schemas},
        }
    )


def _operation(endpoint: _Endpoint, request: Json | None) -> Json:
    error = _content(OLLAMA_ERROR if endpoint.path.startswith("/api") else OPENAI_ERROR, ("application/json",))
    good = _content({} if "application/json" not in endpoint.answers else {"type": "object"}, endpoint.answers)
    operation: Json = {
        "summary": endpoint.summary,
        "responses": {
            **{status: {"description": endpoint.summary} | good for status in endpoint.statuses},
            "default": {"description": "It cannot be answered"} | error,
        },
    }
    if "{name}" in endpoint.path:
        operation["parameters"] = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]
    if request is not None:
        operation["requestBody"] = {"required": True} | _content(request, ("application/json",))
    return operation


def _content(schema: Json, media_types: tuple[str, ...]) -> Json:
    # Of what comes in pieces each piece is an object; the schema is that of a whole body.
    return {"content": {kind: {"schema": schema if kind == "application/json" else {}} for kind in media_types}}
