"""How each endpoint that asks the engine is asked, and how its answers are read: one table for all the tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import attrs

from wire import check, message_events, ndjson_lines, response_events, sse_events

CHAT, COMPLETIONS, RESPONSES, MESSAGES, OLLAMA_CHAT, GENERATE = PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
    "/api/chat",
    "/api/generate",
)

FRAMINGS: Final = {
    (CHAT, True),  # server-sent events
    (MESSAGES, True),  # server-sent events with names
    (OLLAMA_CHAT, True),  # lines of JSON
    (CHAT, False),  # one JSON document
}
"""Paths, streamed or not, that stand for all that are sent in the same way."""

Json = dict[str, Any]


@attrs.frozen(kw_only=True)
class Endpoint:
    """What differs from one to the next."""

    question: str
    """The parameter that has the question."""
    converses: bool
    """Whether that is a list of messages, or a text."""
    events: Callable[[bytes], list[Json]]
    """Reads a stream, as the strictest of its clients do."""
    text: Callable[[Json], str]
    """The text in an event; empty where there is none."""
    ends: Callable[[Json], bool]
    """Whether an event says that the answer is complete."""
    failed: Callable[[Json], Json | None]
    """The error in an event, in the form of an error's own body."""
    whole: Callable[[Json], str]
    """The text of a whole answer."""
    is_complete: Callable[[Json], bool]
    """Whether it ended by itself."""
    schemas: tuple[str, str, str]
    """Of an event, of a whole answer, and of an error."""
    limits: tuple[str | None, str]
    """The parameters for stop texts and for a length; ``options.stop`` is one inside another."""


def _in_choices(event: Json) -> str:
    return "".join(choice["delta"].get("content") or "" for choice in event.get("choices", []))


def _in_text_choices(event: Json) -> str:
    return "".join(choice["text"] for choice in event.get("choices", []))


def _choice_ends(event: Json) -> bool:
    return any(choice["finish_reason"] is not None for choice in event.get("choices", []))


def _error_itself(event: Json) -> Json | None:
    return event if "error" in event else None


def _choice(told: Json) -> Json:
    (choice,) = told["choices"]
    found: Json = choice
    return found


def _choice_stopped(told: Json) -> bool:
    return bool(_choice(told)["finish_reason"] == "stop")


def _said_in_response(told: Json) -> str:
    (item,) = told["output"]
    (part,) = item["content"]
    return str(part["text"])


def _response_events(body_bytes: bytes) -> list[Json]:
    """Leave out the last event of a response that failed: the error comes before it, in an event of its own."""
    events = response_events(body_bytes)
    if events[-1]["type"] != "response.failed":
        return events
    *events, error, failed = events
    check("openai_response_event", failed)
    assert failed["response"]["error"]["message"] == error["message"]
    return [*events, error]


def _error_event(event: Json) -> Json | None:
    return {"error": event["error"]} if event["type"] == "error" else None


def _said_in_message(told: Json) -> str:
    return "".join(block["text"] for block in told["content"])


def _done(line: Json) -> bool:
    return bool(line.get("done")) and line["done_reason"] == "stop"


ENDPOINTS: Final = {
    CHAT: Endpoint(
        question="messages",
        converses=True,
        events=sse_events,
        text=_in_choices,
        ends=_choice_ends,
        failed=_error_itself,
        whole=lambda told: str(_choice(told)["message"]["content"]),
        is_complete=_choice_stopped,
        schemas=("openai_chat_chunk", "openai_chat_completion", "openai_error"),
        limits=("stop", "max_tokens"),
    ),
    COMPLETIONS: Endpoint(
        question="prompt",
        converses=False,
        events=sse_events,
        text=_in_text_choices,
        ends=_choice_ends,
        failed=_error_itself,
        whole=lambda told: str(_choice(told)["text"]),
        is_complete=_choice_stopped,
        schemas=("openai_completion_chunk", "openai_completion", "openai_error"),
        limits=("stop", "max_tokens"),
    ),
    RESPONSES: Endpoint(
        question="input",
        converses=True,
        events=_response_events,
        text=lambda event: str(event["delta"]) if event["type"] == "response.output_text.delta" else "",
        ends=lambda event: event["type"] == "response.completed",
        failed=_error_event,
        whole=_said_in_response,
        is_complete=lambda told: bool(told["status"] == "completed"),
        schemas=("openai_response_event", "openai_response", "openai_error"),
        limits=(None, "max_output_tokens"),
    ),
    MESSAGES: Endpoint(
        question="messages",
        converses=True,
        events=message_events,
        text=lambda event: str(event["delta"].get("text", "")) if event["type"] == "content_block_delta" else "",
        ends=lambda event: event["type"] == "message_stop",
        failed=_error_itself,
        whole=_said_in_message,
        is_complete=lambda told: told["stop_reason"] in {"end_turn", "stop_sequence"},
        schemas=("anthropic_event", "anthropic_message", "anthropic_error"),
        limits=("stop_sequences", "max_tokens"),
    ),
    OLLAMA_CHAT: Endpoint(
        question="messages",
        converses=True,
        events=ndjson_lines,
        text=lambda line: str(line["message"]["content"]) if "message" in line else "",
        ends=lambda line: bool(line.get("done")),
        failed=_error_itself,
        whole=lambda told: str(told["message"]["content"]),
        is_complete=_done,
        schemas=("ollama_chat", "ollama_chat", "ollama_error"),
        limits=("options.stop", "options.num_predict"),
    ),
    GENERATE: Endpoint(
        question="prompt",
        converses=False,
        events=ndjson_lines,
        text=lambda line: str(line.get("response", "")),
        ends=lambda line: bool(line.get("done")),
        failed=_error_itself,
        whole=lambda told: str(told["response"]),
        is_complete=_done,
        schemas=("ollama_generate", "ollama_generate", "ollama_error"),
        limits=("options.stop", "options.num_predict"),
    ),
}
CHATS: Final = tuple(path for path, endpoint in ENDPOINTS.items() if endpoint.converses)
"""Those that are sent a conversation."""


def asking(path: str, query: str, *, stream: bool = True, **more: object) -> dict[str, object]:
    """Write the body that asks this at this path."""
    return {**asking_by_default(path, query), "stream": stream, **more}


def asking_by_default(path: str, query: str) -> dict[str, object]:
    """Write the body that asks this and says nothing else, not even whether to stream."""
    endpoint = ENDPOINTS[path]
    question = [{"role": "user", "content": query}] if endpoint.converses else query
    return {"model": "brunix", endpoint.question: question}


def error_in(path: str, told: Json) -> str:
    """Read an error's message, in the dialect of its path and in nothing else."""
    if path == MESSAGES:
        assert set(told) == {"type", "error", "request_id"}
        assert set(told["error"]) == {"type", "message"}
        return str(told["error"]["message"])
    if path.startswith("/v1"):
        assert set(told) == {"error"}
        assert set(told["error"]) == {"message", "type", "param", "code"}
        return str(told["error"]["message"])
    assert set(told) == {"error"}
    assert isinstance(told["error"], str)
    return told["error"]


def busy_status(path: str) -> int:
    """Say how an overload is told."""
    return 529 if path == MESSAGES else 503


def error_schema(path: str) -> str:
    """Name the schema of an error at any path."""
    if path.startswith("/v1/messages"):
        return "anthropic_error"
    return "ollama_error" if path.startswith("/api") else "openai_error"


def whole_text(path: str, told: Json) -> str:
    """Read the text of a complete whole answer."""
    assert ENDPOINTS[path].is_complete(told)
    return ENDPOINTS[path].whole(told)


@attrs.frozen
class Streamed:
    """What a streamed answer came to."""

    text: str
    complete: bool
    error: str | None


def streamed(path: str, body_bytes: bytes) -> Streamed:
    """Read a streamed answer, complete or failed, of one choice."""
    endpoint = ENDPOINTS[path]
    text, complete, error = "", False, None
    for event in endpoint.events(body_bytes):
        assert error is None, "something follows the error"
        failed = endpoint.failed(event)
        if failed is not None:
            error = error_in(path, failed)
            continue
        complete = complete or endpoint.ends(event)
        text += endpoint.text(event)
    return Streamed(text, complete, error)


def limited(path: str, *, stop: list[str] | None = None, length: int | None = None) -> dict[str, object]:
    """Spell the caller's limits."""
    found: dict[str, Any] = {}
    for name, value in zip(ENDPOINTS[path].limits, (stop, length), strict=True):
        if value is not None:
            assert name is not None, f"{path} knows no such limit"
            outer, _, inner = name.partition(".")
            if inner:
                found.setdefault(outer, {})[inner] = value
            else:
                found[outer] = value
    return found
