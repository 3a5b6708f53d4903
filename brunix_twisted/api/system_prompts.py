"""What the engine receives of a request's system prompt. Pure."""

from __future__ import annotations

import base64
from typing import Literal

import attrs

from brunix_twisted.model import CompletionRequest, EditorContext

SystemPrompt = Literal["ignore", "prepend", "extra_context"]
"""The values of ``PROXY_SYSTEM_PROMPT``."""


def is_ignored(mode: SystemPrompt, requested: CompletionRequest) -> bool:
    """Whether a request has a system prompt that the engine does not receive."""
    return mode == "ignore" and bool(_text_of(requested))


def query_with_context(mode: SystemPrompt, requested: CompletionRequest, query: str) -> tuple[str, EditorContext]:
    """
    Return the query and the context to send to the engine for one of a request's queries.

    The request's query itself does not change, so neither does the session that its conversation continues.
    """
    text, editor = _text_of(requested), requested.editor
    if mode == "ignore" or not text:
        return query, editor
    if mode == "prepend":
        return f"{text}\n\n{query}", editor
    if editor.extra_context:
        text = f"{text}\n\n{base64.b64decode(editor.extra_context).decode()}"
    return query, attrs.evolve(editor, extra_context=base64.b64encode(text.encode()).decode("ascii"))


def _text_of(requested: CompletionRequest) -> str:
    return "\n\n".join(text for text in requested.instructions if text.strip())
