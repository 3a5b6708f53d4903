"""Anthropic's API: the lists of models."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from brunix_twisted.dialects.framing import encode_json
from brunix_twisted.dialects.openai import require_model
from brunix_twisted.model import Model

_UNSUPPORTED: Final = {"supported": False}

_CAPABILITIES: Final = {
    "batch": _UNSUPPORTED,
    "citations": _UNSUPPORTED,
    "code_execution": _UNSUPPORTED,
    "context_management": _UNSUPPORTED
    | dict.fromkeys(("clear_thinking_20251015", "clear_tool_uses_20250919", "compact_20260112"), _UNSUPPORTED),
    "effort": _UNSUPPORTED | dict.fromkeys(("low", "medium", "high", "xhigh", "max"), _UNSUPPORTED),
    "image_input": _UNSUPPORTED,
    "pdf_input": _UNSUPPORTED,
    "server_tools": _UNSUPPORTED | dict.fromkeys(("code_execution", "web_search"), _UNSUPPORTED),
    "structured_outputs": _UNSUPPORTED,
    "thinking": _UNSUPPORTED
    | {"types": dict.fromkeys(("adaptive", "between_tools", "disabled", "enabled"), _UNSUPPORTED)},
}
"""The capabilities that the anthropic package 2.12.0 lists for a model: everything except text input and output."""


def models_body(model: Model, created_s: float) -> bytes:
    """Render the list of models."""
    data = [_described(name, created_s, model.context_length) for name in model.listed]
    return encode_json({"data": data, "has_more": False, "first_id": model.id, "last_id": model.listed[-1]})


def model_body(model: Model, name: str, created_s: float) -> bytes:
    """
    Render the model, under the name in the request.

    :raises GatewayError: UNKNOWN_MODEL.
    """
    require_model(model, name)
    return encode_json(_described(name, created_s, model.context_length))


def _described(name: str, created_s: float, context_length: int) -> dict[str, Any]:
    created = datetime.fromtimestamp(int(created_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": created,
        "lifecycle": "active",
        "deprecated_at": None,
        "retires_at": None,
        "line": None,
        "capabilities": _CAPABILITIES,
        "max_input_tokens": context_length,
        # The engine has no maximum.
        "max_tokens": None,
    }
