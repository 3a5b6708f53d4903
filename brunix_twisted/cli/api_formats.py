"""
The chat APIs of the gateway as data: path, request body, and where the text is in a response. Pure.

A new API is one more entry of :data:`API_FORMATS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Literal

import attrs

from brunix_twisted.cli.http_client import Chunk

Framing = Literal["sse", "ndjson"]
Messages = list[dict[str, str]]


@attrs.frozen
class Event:
    """One event of a stream."""

    data: Any
    """Its JSON value; None for a heartbeat."""
    at_s: float
    """When its last byte arrived, by the monotonic clock."""


@attrs.frozen(kw_only=True)
class ApiFormat:
    """How one API sends a question and streams the answer."""

    id: str
    name: str
    path: str
    framing: Framing
    body: Callable[[Messages, int | None], dict[str, Any]]
    """Build the request without ``model`` and ``stream``, from the messages and the maximum number of tokens."""
    text: Callable[[Any], object]
    """Return the text of an event. Raises LookupError or TypeError if it has no text."""
    ends: Callable[[Any], bool]
    """Whether an event completes the answer. Raises LookupError or TypeError for other events."""
    headers: tuple[tuple[str, str], ...] = ()

    def request(self, model: str, messages: Messages, max_tokens: int | None = None) -> dict[str, Any]:
        """Build the body of a streamed request."""
        return {"model": model, "stream": True, **self.body(messages, max_tokens)}

    def text_of(self, event: Any) -> str:  # noqa: ANN401 - any JSON value
        """Return the text of an event, or an empty string."""
        try:
            text = self.text(event)
        except (LookupError, TypeError):
            return ""
        return text if isinstance(text, str) else ""

    def is_end(self, event: Any) -> bool:  # noqa: ANN401 - any JSON value
        """Whether this event completes the answer."""
        try:
            return bool(self.ends(event))
        except (LookupError, TypeError):
            return False

    def events(self, chunks: Iterable[Chunk]) -> Iterator[Event]:
        """Parse a stream."""
        return _sse(chunks) if self.framing == "sse" else _ndjson(chunks)


def _lines(chunks: Iterable[Chunk]) -> Iterator[tuple[bytes, float]]:
    # Joined once a line, because a whole answer can be one line of many chunks.
    parts: list[bytes] = []
    at_s = 0.0
    for chunk in chunks:
        at_s = chunk.at_s
        *lines, rest = chunk.data.split(b"\n")
        for line in lines:
            yield b"".join((*parts, line)).rstrip(b"\r"), at_s
            parts.clear()
        parts.append(rest)
    if last := b"".join(parts):
        yield last, at_s


def _sse(chunks: Iterable[Chunk]) -> Iterator[Event]:
    # The APIs here write the data of an event in one line.
    for line, at_s in _lines(chunks):
        if line.startswith(b":"):
            yield Event(None, at_s)
        elif line.startswith(b"data:"):
            data = line[5:].strip()
            yield Event("[DONE]" if data == b"[DONE]" else _json(data), at_s)


def _ndjson(chunks: Iterable[Chunk]) -> Iterator[Event]:
    for line, at_s in _lines(chunks):
        if line:
            yield Event(_json(line), at_s)


def _json(data: bytes) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return {}


def _options(max_tokens: int | None) -> dict[str, Any]:
    return {} if max_tokens is None else {"options": {"num_predict": max_tokens}}


def _limited(name: str, max_tokens: int | None) -> dict[str, Any]:
    return {} if max_tokens is None else {name: max_tokens}


def _last(messages: Messages) -> str:
    return messages[-1]["content"]


CHAT: Final = ApiFormat(
    id="chat",
    name="OpenAI's chat completions",
    path="/v1/chat/completions",
    framing="sse",
    body=lambda messages, max_tokens: {
        "messages": messages,
        "stream_options": {"include_usage": True},
        **_limited("max_tokens", max_tokens),
    },
    text=lambda event: event["choices"][0]["delta"]["content"],
    ends=lambda event: event["choices"][0]["finish_reason"],
)
GENERATE: Final = ApiFormat(
    id="ollama-generate",
    name="Ollama's generate",
    path="/api/generate",
    framing="ndjson",
    body=lambda messages, max_tokens: {"prompt": _last(messages), **_options(max_tokens)},
    text=lambda event: event["response"],
    ends=lambda event: event["done"],
)
API_FORMATS: Final = (
    CHAT,
    GENERATE,
    ApiFormat(
        id="completions",
        name="OpenAI's completions",
        path="/v1/completions",
        framing="sse",
        body=lambda messages, max_tokens: {"prompt": _last(messages), **_limited("max_tokens", max_tokens)},
        text=lambda event: event["choices"][0]["text"],
        ends=lambda event: event["choices"][0]["finish_reason"],
    ),
    ApiFormat(
        id="ollama-chat",
        name="Ollama's chat",
        path="/api/chat",
        framing="ndjson",
        body=lambda messages, max_tokens: {"messages": messages, **_options(max_tokens)},
        text=lambda event: event["message"]["content"],
        ends=lambda event: event["done"],
    ),
    ApiFormat(
        id="responses",
        name="OpenAI's responses",
        path="/v1/responses",
        framing="sse",
        body=lambda messages, max_tokens: {"input": _last(messages), **_limited("max_output_tokens", max_tokens)},
        text=lambda event: event["delta"] if event["type"] == "response.output_text.delta" else "",
        ends=lambda event: event["type"] in {"response.completed", "response.incomplete"},
    ),
    ApiFormat(
        id="messages",
        name="Anthropic's messages",
        path="/v1/messages",
        framing="sse",
        # The only API that requires max_tokens.
        body=lambda messages, max_tokens: {"messages": messages, "max_tokens": max_tokens or 4096},
        text=lambda event: event["delta"]["text"] if event["type"] == "content_block_delta" else "",
        ends=lambda event: event["type"] == "message_stop",
        headers=(("anthropic-version", "2023-06-01"),),
    ),
)
