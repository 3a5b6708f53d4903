"""The list of models as Codex reads it: in the key ``models``, next to OpenAI's ``data``."""

from __future__ import annotations

from typing import Any


def described(name: str, priority: int, context_length: int) -> dict[str, Any]:
    """
    Describe the model under one of its names, as Codex 0.169.0 requires it (``struct ModelInfo``).

    Codex reads it from its provider's ``model_catalog_url`` if it has a token. Without a description it warns that it
    does not know the model.

    :param priority: its position in the list; the lowest is the default.
    """
    return {
        "slug": name,
        "display_name": name,
        "description": "The Brunix Assistance Engine",
        "visibility": "list",
        "supported_in_api": True,
        "priority": priority,
        "upgrade": None,
        "availability_nux": None,
        # No instructions: the engine has its own.
        "base_instructions": "",
        "context_window": context_length,
        "max_context_window": context_length,
        "input_modalities": ["text"],
        "supported_reasoning_levels": [],
        "default_reasoning_level": None,
        "supports_reasoning_summaries": False,
        "support_verbosity": False,
        "default_verbosity": None,
        # The engine calls no tools.
        "shell_type": "disabled",
        "apply_patch_tool_type": None,
        "experimental_supported_tools": [],
        "supports_parallel_tool_calls": False,
        "truncation_policy": {"mode": "bytes", "limit": 10_000},
        "prefer_websockets": False,
    }
