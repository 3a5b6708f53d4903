"""Anthropic's API: messages, the count of their tokens, errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import attrs

from brunix_twisted import errors
from brunix_twisted.dialects import Encoder
from brunix_twisted.dialects.anthropic_requests import (
    Block,
    Content,
    CountTokensRequest,
    Message,
    MessagesRequest,
    demands_tool,
)
from brunix_twisted.dialects.decode import decode
from brunix_twisted.dialects.framing import SSE, encode_json, sse_event
from brunix_twisted.dialects.json_body import JsonBodyEncoder
from brunix_twisted.dialects.messages import question, text_of
from brunix_twisted.dialects.openai import HeartbeatForm, no_schema, require_model
from brunix_twisted.dialects.parameters import ignored
from brunix_twisted.dialects.stops import stop_sequences
from brunix_twisted.errors import GatewayError, Kind
from brunix_twisted.model import Choice, CompletionEnd, CompletionRequest, Limits, Model, ResponseMeta, Turn

# "The API is temporarily overloaded", which this API says with a status of its own. It has no 503.
_OVERLOADED: Final = 529

# The type that a status has. Any other fault is an invalid_request_error where it is the caller's, else an api_error.
_TYPES: Final = {
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    _OVERLOADED: "overloaded_error",
}

_STOP_REASONS: Final = {"stop": "end_turn", "length": "max_tokens"}

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
"""What the anthropic package 2.12.0 lists for a model: everything beyond text in and text out."""

CountTokens = Callable[[str], int]
"""The estimate of a text's tokens: :func:`brunix_twisted.limits.count_tokens`."""


def error_status(kind: Kind) -> int:
    """Choose a failure's HTTP status, which for an overload is not the one that the other APIs have."""
    return _OVERLOADED if kind is errors.OVERLOADED else kind.status


def error_body(error: GatewayError, request_id: str | None = None) -> bytes:
    """
    Render a failure.

    The form has no place for the parameter at fault, so a message that does not name it gets it put before.
    """
    fallback = "api_error" if error.kind.type == "server_error" else "invalid_request_error"
    return encode_json(
        {
            "type": "error",
            "error": {
                "type": _TYPES.get(error_status(error.kind), fallback),
                "message": error.message_with_param,
            },
            "request_id": request_id,
        }
    )


@attrs.frozen
class Messages:
    """``POST /v1/messages``."""

    model: Model
    count_tokens: CountTokens
    """A stream tells the tokens of its question at its beginning, long before there is an :class:`CompletionEnd`."""
    heartbeat: HeartbeatForm = "comment"
    request_id: str | None = None
    """Stands in the error of an answer that fails."""

    def parse(self, body_bytes: bytes) -> CompletionRequest:
        """See :class:`brunix_twisted.dialects.Dialect`."""
        request = decode(MessagesRequest, body_bytes)
        require_model(self.model, request.model)
        _require_honourable(request)
        query, history = _question(request.messages)
        return CompletionRequest(
            model=request.model,
            queries=(query,),
            history=history,
            prompt=_all_text(request),
            session_id=request.session_id or None,
            limits=_limits(request),
            ignored=ignored(request, body_bytes),
            stream=bool(request.stream),
        )

    def encoder(self, requested: CompletionRequest, meta: ResponseMeta) -> Encoder:
        """See :class:`brunix_twisted.dialects.Dialect`."""
        if requested.stream:
            return _Stream(requested, meta, self.count_tokens(requested.prompt), self.heartbeat, self.request_id)

        def body(texts: Sequence[str], end: CompletionEnd) -> bytes:
            (choice,) = end.choices
            # One block for an empty answer too, as its stream has one: clients read content[0] unguarded.
            content = [_text("".join(texts))]
            usage = _usage(end.prompt_tokens, choice.completion_tokens)
            return encode_json(_message(requested, meta, content, usage) | _stop(choice))

        return JsonBodyEncoder(len(requested.queries), body, partial(error_body, request_id=self.request_id))


def count_tokens_body(model: Model, body_bytes: bytes, count_tokens: CountTokens) -> bytes:
    """
    ``POST /v1/messages/count_tokens``: what the answer to the same messages will have as its ``input_tokens``.

    :raises GatewayError: INVALID_REQUEST or UNKNOWN_MODEL.
    """
    request = decode(CountTokensRequest, body_bytes)
    require_model(model, request.model)
    return encode_json({"input_tokens": count_tokens(_all_text(request))})


def models_body(model: Model, created_s: float) -> bytes:
    """Render the list of models."""
    data = [_described(model.id, created_s, model.context_length)]
    return encode_json({"data": data, "has_more": False, "first_id": model.id, "last_id": model.id})


def model_body(model: Model, name: str, created_s: float) -> bytes:
    """
    Render the model under the name that was asked for.

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
        # An answer ends where the engine ends it.
        "max_tokens": None,
    }


def _event(data: dict[str, Any]) -> bytes:
    """Clients tell events apart by the event's name or by the type in its data; both are there."""
    return sse_event(data["type"], encode_json(data))


_PING: Final = _event({"type": "ping"})
# A piece of text is encoded alone, between bytes made once: this runs once a token.
_BEFORE_TEXT: Final = b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":'
_AFTER_TEXT: Final = b"}}"


class _Stream:
    """
    A streamed answer as Server-Sent Events that have names.

    The order that clients rely on: the message, its one block, the block's text piece by piece, the block's end, how
    the message ended, the message's end. All of these come for an empty answer, too.
    """

    content_type = SSE

    def __init__(
        self,
        requested: CompletionRequest,
        meta: ResponseMeta,
        input_tokens: int,
        heartbeat: HeartbeatForm,
        request_id: str | None,
    ) -> None:
        """Prepare an answer to a question of so many tokens."""
        self._request_id = request_id
        self._message = _message(requested, meta, [], _usage(input_tokens, 0)) | {
            "stop_reason": None,
            "stop_sequence": None,
        }
        self._heartbeat = heartbeat

    def begin(self) -> bytes:
        return b"".join(
            [
                _event({"type": "message_start", "message": self._message}),
                _event({"type": "content_block_start", "index": 0, "content_block": _text("")}),
                # Anthropic sends one here, and it tells the first word's waiters that there will be one.
                _PING,
            ]
        )

    def delta(self, index: int, text: str) -> bytes:  # noqa: ARG002 - this API has one choice
        return sse_event("content_block_delta", _BEFORE_TEXT + encode_json(text) + _AFTER_TEXT)

    def heartbeat(self) -> bytes:
        # The official packages keep pings to themselves, so a timer above them sees nothing but pieces of text.
        return _PING if self._heartbeat == "comment" else self.delta(0, "")

    def finish(self, end: CompletionEnd) -> bytes:
        (choice,) = end.choices
        return b"".join(
            [
                _event({"type": "content_block_stop", "index": 0}),
                _event(
                    {
                        "type": "message_delta",
                        "delta": {**_stop(choice), "stop_details": None, "container": None},
                        "usage": _tokens(end.prompt_tokens, choice.completion_tokens),
                    }
                ),
                _event({"type": "message_stop"}),
            ]
        )

    def fail(self, error: GatewayError) -> bytes:
        # No message_delta: a client must not take what came so far for the whole answer.
        return sse_event("error", error_body(error, self._request_id))


def _text(text: str) -> dict[str, Any]:
    # The published types have "citations" as a list or null. The Vercel AI SDK rejects a null.
    return {"type": "text", "text": text, "citations": []}


def _message(
    requested: CompletionRequest, meta: ResponseMeta, content: list[dict[str, Any]], usage: dict[str, Any]
) -> dict[str, Any]:
    # Null where the published types want a key that means nothing here.
    return {
        "id": f"msg_{meta.id}",
        "type": "message",
        "role": "assistant",
        "model": requested.model,
        "content": content,
        "container": None,
        "stop_details": None,
        "usage": usage,
    }


def _stop(choice: Choice) -> dict[str, Any]:
    reason = "stop_sequence" if choice.stop is not None else _STOP_REASONS[choice.finish_reason]
    return {"stop_reason": reason, "stop_sequence": choice.stop}


def _tokens(input_tokens: int, output_tokens: int) -> dict[str, Any]:
    return {
        "input_tokens": input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": output_tokens,
        "output_tokens_details": None,
        "server_tool_use": None,
    }


def _usage(input_tokens: int, output_tokens: int) -> dict[str, Any]:
    return _tokens(input_tokens, output_tokens) | {
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "inference_geo": None,
        "service_tier": None,
    }


def _require_honourable(request: MessagesRequest) -> None:
    """Refuse what cannot be done, where doing without would give another answer than was asked for."""
    if demands_tool(request):
        raise GatewayError(
            errors.INVALID_REQUEST, "'tool_choice' demands the call of a tool; none is ever called", param="tool_choice"
        )
    if request.output_config is not None and request.output_config.format is not None:
        raise no_schema("output_config.format")
    if request.output_format is not None:
        raise no_schema("output_format")
    thread = request.thread
    if thread is not None and (thread.type == "continue" or thread.previous_message_id is not None):
        raise GatewayError(
            errors.INVALID_REQUEST,
            "'thread' continues a conversation that is not kept here; send all of it, or go on by 'session_id'",
            param="thread",
        )
    if request.compaction is not None:
        raise GatewayError(
            errors.INVALID_REQUEST, "'compaction' asks for a summary; none is ever made", param="compaction"
        )


def _limits(request: MessagesRequest) -> Limits:
    most = request.max_tokens
    if most is not None and most < 0:
        raise GatewayError(
            errors.INVALID_REQUEST, f"'max_tokens' is {most:g}; it must not be negative", param="max_tokens"
        )
    return Limits(
        # Anthropic's API sets no number of them.
        stop=stop_sequences(request.stop_sequences, "stop_sequences"),
        max_tokens=None if most is None else int(most),
    )


# Messages. Tools have no role of their own in this API: their calls and results are blocks.


@attrs.frozen
class _Message:
    """A message, as :mod:`brunix_twisted.dialects.messages` reads it."""

    role: str
    content: Content


def _question(messages: Sequence[Message]) -> tuple[str, tuple[Turn, ...] | None]:
    """
    Find the question and the turns before it as :func:`question` does.

    Claude Code puts reminders for its model between the user's words. They are not asked, and are no part of the
    conversation.
    """
    query, history = question([_Message(_role(message), _without_reminders(message)) for message in messages])
    with_tools = any(_is_tools(block) for message in messages for block in _blocks(message.content))
    return query, None if with_tools else history


def _role(message: Message) -> str:
    """
    Tell whose message this is.

    A user message that only brings a tool's result asks nothing: the question is in one before it. One that holds
    nothing but reminders is the client's own.
    """
    if message.role != "user":
        return message.role
    blocks = _blocks(message.content)
    if blocks and all(map(_is_reminder, blocks)):
        return "system"
    only_tools = any(map(_is_tools, blocks)) and not text_of(_without_reminders(message)).strip()
    return "tool" if only_tools else "user"


def _without_reminders(message: Message) -> Content:
    if message.role != "user" or not isinstance(message.content, list):
        return message.content
    return [block for block in message.content if not _is_reminder(block)]


def _is_reminder(block: Block) -> bool:
    """Whether an agent says this to its model, in a block of its own beside what the user says."""
    text = (block.text or "").strip()
    return text.startswith("<system-reminder>") and text.endswith("</system-reminder>")


def _blocks(content: Content) -> list[Block]:
    if isinstance(content, list):
        return content
    return [content] if isinstance(content, Block) else []


def _is_tools(block: Block) -> bool:
    """Whether a tool has to do with this: tool_use, mcp_tool_use, tool_result, web_search_tool_result …"""
    return block.type is not None and "tool_" in block.type


def _all_text(request: MessagesRequest | CountTokensRequest) -> str:
    """Join everything that was said, whoever said it, and what tools have said."""
    contents = [request.system, *(message.content for message in request.messages)]
    return "\n".join(text for content in contents if content is not None for text in _texts(content))


def _texts(content: Content) -> Iterator[str]:
    yield text_of(content)
    for block in _blocks(content):
        if _is_tools(block) and block.content is not None:
            yield text_of(block.content)
