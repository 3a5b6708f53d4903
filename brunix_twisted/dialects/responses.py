"""
OpenAI's Responses API: questions, and stored answers retrieved by their id.

Errors have the format of :mod:`brunix_twisted.dialects.openai`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import attrs

from brunix_twisted import errors
from brunix_twisted.dialects import Encoder
from brunix_twisted.dialects.decode import decode
from brunix_twisted.dialects.editor import ignored_user, read_editor
from brunix_twisted.dialects.framing import SSE, SSE_COMMENT, encode_json, encode_text, sse_event
from brunix_twisted.dialects.json_body import JsonBodyEncoder
from brunix_twisted.dialects.messages import all_text, instructions, question
from brunix_twisted.dialects.openai import HeartbeatForm, error_body, no_schema, require_model, url_citation
from brunix_twisted.dialects.parameters import ignored
from brunix_twisted.dialects.responses_requests import Item, ResponsesRequest, ResponseToolChoice, requires_tool
from brunix_twisted.errors import GatewayError
from brunix_twisted.model import CompletionEnd, CompletionRequest, Limits, Model, ResponseMeta, Source, Turn

_ANSWER = "resp_"
_MESSAGE = "msg_"

# OpenAI's limits for metadata, which is kept with each stored answer.
_MAX_METADATA, _MAX_NAME_LENGTH, _MAX_VALUE_LENGTH = 16, 64, 512

# The parameters that an answer repeats, and their defaults. OpenAI's document requires most of these keys, Open
# Responses also the penalties, and some clients read all of them without a check.
_DEFAULTS: Final[dict[str, Any]] = {
    "frequency_penalty": 0,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "presence_penalty": 0,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "store": True,
    "temperature": 1,
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": 1,
    "truncation": "disabled",
}
_INTEGERS: Final = {"max_output_tokens", "max_tool_calls", "top_logprobs"}
# Keys with a constant value. Agents send tools and instructions of a hundred kilobytes, which a stream would repeat
# three times. They have no effect, and no client reads them in the answer.
_ALWAYS: Final[dict[str, Any]] = {
    "background": False,
    "instructions": None,
    "reasoning": {"effort": None, "summary": None},
    "service_tier": "default",
    "text": {"format": {"type": "text"}},
    "tools": [],
}

# OpenAI's document has a fixed list of codes for a failed response. The error event before it has the gateway's code.
_FAILED_CODES: Final = {"rate_limit_error": "rate_limit_exceeded", "invalid_request_error": "invalid_prompt"}


@attrs.frozen
class Responses:
    """``POST /v1/responses``."""

    model: Model
    heartbeat: HeartbeatForm = "comment"

    def parse(self, body_bytes: bytes) -> CompletionRequest:
        """See :class:`brunix_twisted.dialects.Dialect`; also raises PREVIOUS_NOT_FOUND and NOT_FOUND."""
        request = decode(ResponsesRequest, body_bytes)
        require_model(self.model, request.model)
        _require_supported(request)
        query, history, text, system = _read_input(request)
        previous_response_id = _previous_answer(request)
        return CompletionRequest(
            model=request.model,
            queries=(query,),
            stream=bool(request.stream),
            prompt=f"{request.instructions}\n{text}" if request.instructions else text,
            session_id=request.session_id or None,
            # A request that continues from an answer does not contain the turns before it.
            history=None if previous_response_id else history,
            instructions=(request.instructions, *system) if request.instructions else system,
            previous_response_id=previous_response_id,
            stored=request.store is not False,
            limits=_limits(request.max_output_tokens),
            editor=read_editor(request.user),
            ignored=ignored(request, body_bytes) + ignored_user(request.user),
            echoed_params=_echoed_params(request),
        )

    def encoder(self, request: CompletionRequest, meta: ResponseMeta) -> Encoder:
        """See :class:`brunix_twisted.dialects.Dialect`."""
        if request.stream:
            return _Stream(request, meta, self.heartbeat)

        def body(_: Sequence[str], end: CompletionEnd) -> bytes:
            return response_body(request, meta, end)

        return JsonBodyEncoder(len(request.queries), body, error_body)


def response_body(request: CompletionRequest, meta: ResponseMeta, end: CompletionEnd) -> bytes:
    """Render a complete answer, also when it is retrieved later."""
    return encode_json(_finished(request, meta, end))


def deleted_body(name: str) -> bytes:
    """Render the confirmation that an answer was deleted; ``name`` is the id in the request."""
    return encode_json({"id": name, "object": "response", "deleted": True})


def answer_id(name: str) -> str:
    """
    Return an answer's id without its prefix.

    :raises GatewayError: NOT_FOUND if no answer can have this name.
    """
    if not name.startswith(_ANSWER) or name == _ANSWER:
        raise GatewayError(errors.NOT_FOUND, f"Response with id '{name}' not found")
    return name.removeprefix(_ANSWER)


class _Stream:
    """
    A streamed answer as Server-Sent Events with names and numbers.

    Clients rely on this order: the response, its item, the item's part, the deltas; then the complete text, part, item
    and response. An empty answer has all of them except the deltas. No ``[DONE]`` follows: the last event's name marks
    the end.
    """

    content_type = SSE

    def __init__(self, request: CompletionRequest, meta: ResponseMeta, heartbeat: HeartbeatForm) -> None:
        """Prepare the bytes that all deltas share."""
        self._request = request
        self._meta = meta
        self._heartbeat = heartbeat
        self._sequence_number = 0
        self._part = {"item_id": _MESSAGE + meta.id, "output_index": 0, "content_index": 0}
        # Encode only the text of each delta, between prepared bytes, because this runs for each token.
        self._before, self._between, self._after = _around_delta(self._part)

    def _number(self) -> int:
        number = self._sequence_number
        self._sequence_number += 1
        return number

    def _event(self, kind: str, content: dict[str, Any]) -> bytes:
        return sse_event(kind, encode_json({"type": kind, **content, "sequence_number": self._number()}))

    def begin(self) -> bytes:
        begun = {"response": _response(self._request, self._meta, "in_progress")}
        item = _item(self._meta, "in_progress", [])
        return b"".join(
            [
                self._event("response.created", begun),
                self._event("response.in_progress", begun),
                self._event("response.output_item.added", {"output_index": 0, "item": item}),
                self._event("response.content_part.added", {**self._part, "part": _text("")}),
            ]
        )

    def delta(self, index: int, text: str) -> bytes:  # noqa: ARG002 - this API has one choice
        return b"%b%b%b%d%b" % (self._before, encode_text(text), self._between, self._number(), self._after)

    def heartbeat(self) -> bytes:
        return SSE_COMMENT if self._heartbeat == "comment" else self.delta(0, "")

    def finish(self, end: CompletionEnd) -> bytes:
        response = _finished(self._request, self._meta, end)
        (item,) = response["output"]
        (part,) = item["content"]
        annotations = [
            self._event(
                "response.output_text.annotation.added",
                {**self._part, "annotation_index": index, "annotation": annotation},
            )
            for index, annotation in enumerate(part["annotations"])
        ]
        return b"".join(
            [
                *annotations,
                self._event("response.output_text.done", {**self._part, "text": part["text"], "logprobs": []}),
                self._event("response.content_part.done", {**self._part, "part": part}),
                self._event("response.output_item.done", {"output_index": 0, "item": item}),
                self._event(f"response.{response['status']}", {"response": response}),
            ]
        )

    def fail(self, error: GatewayError) -> bytes:
        # An error event first, as in OpenAI's streams: OpenAI's packages raise an exception for an error event, but not
        # for a failed response, and only if the event has an "error" object. Its document has the keys in the event
        # itself, where other clients read them.
        fields = {"code": error.kind.code, "message": error.message, "param": error.param}
        failed = _response(self._request, self._meta, "failed") | {
            "error": {"code": _FAILED_CODES.get(error.kind.type, "server_error"), "message": error.message}
        }
        return b"".join(
            [
                self._event("error", {**fields, "error": {"type": error.kind.type, **fields}}),
                self._event("response.failed", {"response": failed}),
            ]
        )


def _around_delta(part: dict[str, Any]) -> tuple[bytes, bytes, bytes]:
    """Return the bytes of a delta event before its text, between text and sequence number, and after that."""
    kind = "response.output_text.delta"
    framed = sse_event(
        kind, encode_json({"type": kind, **part, "delta": None, "logprobs": [], "sequence_number": None})
    )
    before, between, after = framed.rsplit(b"null", 2)
    return before, between, after


def _response(request: CompletionRequest, meta: ResponseMeta, status: str) -> dict[str, Any]:
    return {
        "id": _ANSWER + meta.id,
        "object": "response",
        "created_at": int(meta.created_s),
        "status": status,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "model": request.model,
        "output": [],
        "usage": None,
        **_ALWAYS,
        **_DEFAULTS,
        **request.echoed_params,
    }


def _finished(request: CompletionRequest, meta: ResponseMeta, end: CompletionEnd) -> dict[str, Any]:
    (choice,) = end.choices
    truncated = choice.finish_reason == "length"
    status = "incomplete" if truncated else "completed"
    return _response(request, meta, status) | {
        "completed_at": None if truncated else int(end.finished_s),
        "incomplete_details": {"reason": "max_output_tokens"} if truncated else None,
        "output": [_item(meta, status, [_text(choice.text, choice.sources)])],
        "usage": {
            "input_tokens": end.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": end.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": end.prompt_tokens + end.completion_tokens,
        },
    }


def _item(meta: ResponseMeta, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": _MESSAGE + meta.id, "type": "message", "status": status, "role": "assistant", "content": content}


def _text(text: str, sources: Sequence[Source] = ()) -> dict[str, Any]:
    annotations = [{"type": "url_citation", **url_citation(source)} for source in sources]
    return {"type": "output_text", "text": text, "annotations": annotations, "logprobs": []}


def _require_supported(request: ResponsesRequest) -> None:
    """Reject parameters that are not supported and would change the answer."""
    if request.conversation is not None:
        raise GatewayError(
            errors.INVALID_REQUEST,
            "'conversation' is not supported. Use 'previous_response_id' or 'session_id' to continue one.",
            param="conversation",
        )
    if requires_tool(request):
        raise GatewayError(
            errors.INVALID_REQUEST, "'tool_choice' requires a tool call, which is not supported", param="tool_choice"
        )
    if request.text is not None and request.text.format is not None and request.text.format.strict:
        raise no_schema("text.format")
    metadata = request.metadata or {}
    if len(metadata) > _MAX_METADATA or any(
        len(name) > _MAX_NAME_LENGTH or len(value) > _MAX_VALUE_LENGTH for name, value in metadata.items()
    ):
        raise GatewayError(
            errors.INVALID_REQUEST,
            f"'metadata' is too large: at most {_MAX_METADATA} entries are allowed, "
            f"with names of {_MAX_NAME_LENGTH} and texts of {_MAX_VALUE_LENGTH} characters",
            param="metadata",
        )


def _read_input(request: ResponsesRequest) -> tuple[str, tuple[Turn, ...] | None, str, tuple[str, ...]]:
    """Return the question and the turns before it, like :func:`question`, the input's text, and its instructions."""
    value = request.input
    if value is None:
        raise _no_input(request)
    if isinstance(value, str):
        if not value.strip():
            raise GatewayError(errors.INVALID_REQUEST, "'input' has no text", param="input")
        return value, (), value, ()
    messages = [_as_message(position, item) for position, item in enumerate(value)]
    query, history = question(messages, "input")
    return query, history, all_text(messages), instructions(messages)


def _no_input(request: ResponsesRequest) -> GatewayError:
    if request.prompt is not None:
        return GatewayError(
            errors.INVALID_REQUEST,
            "'prompt' names a template, but templates are not stored. Send 'input' instead.",
            param="prompt",
        )
    return GatewayError(errors.INVALID_REQUEST, "Missing required parameter: 'input'", param="input")


@attrs.frozen
class _Message:
    """An item in the form that :mod:`brunix_twisted.dialects.messages` reads."""

    role: str
    content: Any = None


def _as_message(position: int, item: Item) -> _Message:
    """
    Convert an item to a message. Items that are not messages get no text, and a role that no conversation has.

    :raises GatewayError: INVALID_REQUEST for a message without a role, or a reference without an id.
    """
    if item.is_message and item.role is not None:
        return _Message(item.role, item.content)
    if item.is_message or (item.is_reference and item.id is None):
        param = f"input[{position}].{'role' if item.is_message else 'id'}"
        raise GatewayError(errors.INVALID_REQUEST, f"Missing required parameter: '{param}'", param=param)
    return _Message("item")  # not its type, which could be the name of a role


def _previous_answer(request: ResponsesRequest) -> str | None:
    """
    Return the id of the earlier answer that the question continues, or None.

    Some clients, such as the Vercel AI SDK, send a reference to the answer's message instead of its text. Without a
    session id, the last reference before the question identifies the conversation.

    :raises GatewayError: PREVIOUS_NOT_FOUND, or NOT_FOUND for a reference that cannot be a message of an answer.
    """
    if previous := request.previous_response_id:
        try:
            return answer_id(previous)
        except GatewayError:
            raise GatewayError(
                errors.PREVIOUS_NOT_FOUND,
                f"Previous response with id '{previous}' not found",
                param="previous_response_id",
            ) from None
    if request.session_id or not isinstance(request.input, list):
        return None
    for item in reversed(request.input):
        if item.is_reference:
            name = item.id or ""
            if not name.startswith(_MESSAGE) or name == _MESSAGE:
                raise GatewayError(errors.NOT_FOUND, f"Item with id '{name}' not found", param="input")
            return name.removeprefix(_MESSAGE)
        if not item.is_message or item.role not in {"user", "system", "developer"}:
            break
    return None


def _limits(max_output_tokens: float | None) -> Limits:
    if max_output_tokens is None:
        return Limits()
    if max_output_tokens < 0:
        raise GatewayError(
            errors.INVALID_REQUEST,
            f"'max_output_tokens' is {max_output_tokens:g}; it must not be negative",
            param="max_output_tokens",
        )
    return Limits(max_tokens=int(max_output_tokens))


def _echoed_params(request: ResponsesRequest) -> dict[str, Any]:
    echoed_params: dict[str, Any] = {}
    for name in _DEFAULTS:
        value = getattr(request, name)
        # Not an empty id; and not a choice of tools, because the list of tools in the answer is empty.
        if value is None or value == "" or isinstance(value, ResponseToolChoice):
            continue
        echoed_params[name] = int(value) if name in _INTEGERS else value
    return echoed_params
