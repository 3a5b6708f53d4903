"""Anthropic's API: messages, token counts, errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
    requires_tool,
)
from brunix_twisted.dialects.decode import decode
from brunix_twisted.dialects.framing import SSE, encode_json, encode_text, sse_event
from brunix_twisted.dialects.json_body import JsonBodyEncoder
from brunix_twisted.dialects.messages import (
    instructions,
    is_reminder,
    question,
    text_of,
    texts_of,
    without_reminders,
)
from brunix_twisted.dialects.openai import HeartbeatForm, no_schema, require_model
from brunix_twisted.dialects.parameters import ignored
from brunix_twisted.dialects.stops import stop_sequences
from brunix_twisted.errors import GatewayError, Kind
from brunix_twisted.model import Choice, CompletionEnd, CompletionRequest, Limits, Model, ResponseMeta, Source, Turn

# "The API is temporarily overloaded". This API has no 503.
_OVERLOADED: Final = 529

# The error type of a status. For other statuses it is invalid_request_error, or api_error for a server error.
_TYPES: Final = {
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    _OVERLOADED: "overloaded_error",
}

_STOP_REASONS: Final = {"stop": "end_turn", "length": "max_tokens"}


CountTokens = Callable[[str], int]
"""Estimates the tokens of a text: :func:`brunix_twisted.limits.count_tokens`."""


def error_status(kind: Kind) -> int:
    """Return the HTTP status of an error. For an overload, it differs from the other APIs."""
    return _OVERLOADED if kind is errors.OVERLOADED else kind.status


def error_body(error: GatewayError, request_id: str | None = None) -> bytes:
    """
    Render an error.

    The format has no field for the parameter, so the message names it.
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
    """A stream begins with the tokens of its question, before there is a :class:`CompletionEnd`."""
    heartbeat: HeartbeatForm = "comment"
    request_id: str | None = None
    """For the error event of an answer that fails."""

    def parse(self, body_bytes: bytes) -> CompletionRequest:
        """See :class:`brunix_twisted.dialects.Dialect`."""
        request = decode(MessagesRequest, body_bytes)
        require_model(self.model, request.model)
        _require_supported(request)
        query, history = _question(request.messages)
        return CompletionRequest(
            model=request.model,
            queries=(query,),
            history=history,
            instructions=(*texts_of(request.system), *instructions(request.messages)),
            reminders=tuple(_reminders(request.messages)),
            prompt=_all_text(request),
            session_id=request.session_id or None,
            limits=_limits(request),
            ignored=ignored(request, body_bytes),
            stream=bool(request.stream),
            wants_sources=any((tool.type or "").startswith("web_search") for tool in request.tools or ()),
        )

    def encoder(self, request: CompletionRequest, meta: ResponseMeta) -> Encoder:
        """See :class:`brunix_twisted.dialects.Dialect`."""
        if request.stream:
            return _Stream(request, meta, self.count_tokens(request.prompt), self.heartbeat, self.request_id)

        def body(texts: Sequence[str], end: CompletionEnd) -> bytes:
            (choice,) = end.choices
            # One block, also for an empty answer, because clients read content[0] without a check.
            content = [_text("".join(texts), choice.sources)]
            usage = _usage(end.prompt_tokens, choice.completion_tokens)
            return encode_json(_message(request, meta, content, usage) | _stop(choice))

        return JsonBodyEncoder(len(request.queries), body, partial(error_body, request_id=self.request_id))


def count_tokens_body(model: Model, body_bytes: bytes, count_tokens: CountTokens) -> bytes:
    """
    ``POST /v1/messages/count_tokens``: the ``input_tokens`` of an answer to the same messages.

    :raises GatewayError: INVALID_REQUEST or UNKNOWN_MODEL.
    """
    request = decode(CountTokensRequest, body_bytes)
    require_model(model, request.model)
    return encode_json({"input_tokens": count_tokens(_all_text(request))})


def _event(data: dict[str, Any]) -> bytes:
    """Frame an event. It has both a name and a type in its data, because clients use one or the other."""
    return sse_event(data["type"], encode_json(data))


_PING: Final = _event({"type": "ping"})
# Encode only the text of each delta, between prepared bytes, because this runs for each token.
_BEFORE_TEXT: Final = b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":'
_AFTER_TEXT: Final = b"}}"


class _Stream:
    """
    A streamed answer as Server-Sent Events with names.

    Clients rely on this order: message_start, content_block_start, the deltas, content_block_stop, message_delta with
    the stop reason, message_stop. An empty answer has all of them except the deltas.
    """

    content_type = SSE

    def __init__(
        self,
        request: CompletionRequest,
        meta: ResponseMeta,
        input_tokens: int,
        heartbeat: HeartbeatForm,
        request_id: str | None,
    ) -> None:
        """Prepare an answer to a question of ``input_tokens`` tokens."""
        self._request_id = request_id
        # Clients that have not asked for them take every delta for a text.
        self._wants_sources = request.wants_sources
        self._message = _message(request, meta, [], _usage(input_tokens, 0)) | {
            "stop_reason": None,
            "stop_sequence": None,
        }
        self._heartbeat = heartbeat

    def begin(self) -> bytes:
        return b"".join(
            [
                _event({"type": "message_start", "message": self._message}),
                _event({"type": "content_block_start", "index": 0, "content_block": _text("")}),
                # Anthropic sends one here. It shows clients that the stream works while they wait for the first token.
                _PING,
            ]
        )

    def delta(self, index: int, text: str) -> bytes:  # noqa: ARG002 - this API has one choice
        return sse_event("content_block_delta", _BEFORE_TEXT + encode_text(text) + _AFTER_TEXT)

    def heartbeat(self) -> bytes:
        # Anthropic's packages do not pass pings on, so a client's timeout above them sees only text deltas.
        return _PING if self._heartbeat == "comment" else self.delta(0, "")

    def finish(self, end: CompletionEnd) -> bytes:
        (choice,) = end.choices
        citations = [
            _event(
                {
                    "type": "content_block_delta",
                    "index": 0,
                    "delta": {"type": "citations_delta", "citation": _citation(source)},
                }
            )
            for source in (choice.sources if self._wants_sources else ())
        ]
        return b"".join(
            [
                *citations,
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
        # No message_delta, so that clients do not take the text so far for a complete answer.
        return sse_event("error", error_body(error, self._request_id))


def _text(text: str, sources: Sequence[Source] = ()) -> dict[str, Any]:
    # The published types have "citations" as a list or null. The Vercel AI SDK rejects a null.
    return {"type": "text", "text": text, "citations": [_citation(source) for source in sources]}


def _citation(source: Source) -> dict[str, Any]:
    # Not the newer search_result_location: the Vercel AI SDK (anthropic 3.0.139) rejects a message that contains one.
    return {
        "type": "web_search_result_location",
        "cited_text": source.cited_text,
        "encrypted_index": "",
        "title": source.title,
        "url": source.url,
    }


def _message(
    request: CompletionRequest, meta: ResponseMeta, content: list[dict[str, Any]], usage: dict[str, Any]
) -> dict[str, Any]:
    # Null for keys that the published types require and that have no meaning here.
    return {
        "id": f"msg_{meta.id}",
        "type": "message",
        "role": "assistant",
        "model": request.model,
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


def _require_supported(request: MessagesRequest) -> None:
    """Reject parameters that are not supported and would change the answer."""
    if requires_tool(request):
        raise GatewayError(
            errors.INVALID_REQUEST, "'tool_choice' requires a tool call, which is not supported", param="tool_choice"
        )
    if request.output_config is not None and request.output_config.format is not None:
        raise no_schema("output_config.format")
    if request.output_format is not None:
        raise no_schema("output_format")
    thread = request.thread
    if thread is not None and (thread.type == "continue" or thread.previous_message_id is not None):
        raise GatewayError(
            errors.INVALID_REQUEST,
            "'thread' cannot continue a conversation. Send all of its messages, or use 'session_id'.",
            param="thread",
        )
    if request.compaction is not None:
        raise GatewayError(errors.INVALID_REQUEST, "'compaction' is not supported", param="compaction")


def _limits(request: MessagesRequest) -> Limits:
    max_tokens = request.max_tokens
    if max_tokens is not None and max_tokens < 0:
        raise GatewayError(
            errors.INVALID_REQUEST, f"'max_tokens' is {max_tokens:g}; it must not be negative", param="max_tokens"
        )
    return Limits(
        # Anthropic's API has no maximum number.
        stop=stop_sequences(request.stop_sequences, "stop_sequences"),
        max_tokens=None if max_tokens is None else int(max_tokens),
    )


# Messages. This API has no role for tools: their calls and results are blocks.


@attrs.frozen
class _Message:
    """A message in the form that :mod:`brunix_twisted.dialects.messages` reads."""

    role: str
    content: Content


def _question(messages: Sequence[Message]) -> tuple[str, tuple[Turn, ...] | None]:
    """Return the question and the turns before it, like :func:`question`."""
    return question([_Message(_role(message), message.content) for message in messages])


def _role(message: Message) -> str:
    """
    Return the role of a message's author.

    A user message with only a tool's result is the tool's: the question is in an earlier message.
    """
    if message.role != "user":
        return message.role
    only_tools = (
        any(map(_is_tool_block, _blocks(message.content))) and not text_of(without_reminders(message.content)).strip()
    )
    return "tool" if only_tools else "user"


def _reminders(messages: Sequence[Message]) -> Iterator[str]:
    """Yield the reminders of an agent in the last message, which are instructions for its model."""
    if messages and messages[-1].role == "user":
        yield from (block.text for block in _blocks(messages[-1].content) if block.text and is_reminder(block))


def _blocks(content: Content) -> list[Block]:
    if isinstance(content, list):
        return content
    return [content] if isinstance(content, Block) else []


def _is_tool_block(block: Block) -> bool:
    """Whether a block is a tool's call or result: tool_use, mcp_tool_use, tool_result, web_search_tool_result …"""
    return block.type is not None and "tool_" in block.type


def _all_text(request: MessagesRequest | CountTokensRequest) -> str:
    """Join the text of all messages, the system prompt and the tools' results."""
    contents = [request.system, *(message.content for message in request.messages)]
    return "\n".join(text for content in contents if content is not None for text in _texts(content))


def _texts(content: Content) -> Iterator[str]:
    yield text_of(content)
    for block in _blocks(content):
        if _is_tool_block(block) and block.content is not None:
            yield text_of(block.content)
