"""Ollama's own package."""

from __future__ import annotations

from typing import Any

import ollama
from questions import BUSY, FAILS, SCRIPTED_URL, URL

from providers import Answer, Cut, Provider, Refusal, common_refusals

PICTURE = [{"role": "user", "content": "", "images": [b"PNG"]}]


class Chat(Provider):
    """Chats."""

    documented = ("ollama-python", 1)
    error = ollama.ResponseError
    cuts = (
        Cut({"options": {"stop": ["three"]}}, "one two ", "stop"),
        Cut({"options": {"num_predict": 1}}, "one ", "length"),
    )
    refusals = (
        *common_refusals(error, error, error=...),
        Refusal("only a picture", URL, {"messages": PICTURE}, error, {"status_code": 400, "error": ...}),
        Refusal("engine busy", SCRIPTED_URL, {"messages": BUSY}, error, {"status_code": 429, "error": ...}),
        Refusal("engine fails", SCRIPTED_URL, {"messages": FAILS}, error, {"status_code": 502, "error": ...}),
    )

    def client(self, url: str) -> Any:  # noqa: ANN401 - both kinds have the same methods
        """Create a client, which is closed after the test."""
        return self.kept((ollama.AsyncClient if self.asynchronous else ollama.Client)(host=url))

    def ask(self, url: str, messages: list[Any], *, stream: bool = False, **parameters: Any) -> Any:  # noqa: ANN401
        return self.client(url).chat(**{"model": "brunix", "messages": messages, "stream": stream} | parameters)

    def whole(self, answer: Any) -> Answer:  # noqa: ANN401 - the package's
        return self.streamed([answer])

    def streamed(self, pieces: list[Any]) -> Answer:
        assert not any(piece.done for piece in pieces[:-1])
        last = pieces[-1]
        assert last.done == bool(last.done_reason)
        return Answer("".join(piece.message.content or "" for piece in pieces), last.done_reason, last.eval_count)
