"""LlamaIndex: what only it offers."""

from __future__ import annotations

from providers.llamaindex import LlamaIndex
from questions import KEY_FACT, QUESTION, URL, resolve

CLIENTS = ["llamaindex-openai", "llamaindex-ollama"]


async def test_text(client: LlamaIndex) -> None:
    """A question can be a text instead of messages."""
    model = client.model(URL)
    assert KEY_FACT in (await resolve((model.acomplete if client.asynchronous else model.complete)(QUESTION))).text
