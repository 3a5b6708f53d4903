"""
OpenAI's Responses: questions, and finished answers asked for again by their id.

Errors have the form that :mod:`brunix_twisted.dialects.openai` gives them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import attrs

from brunix_twisted import errors
from brunix_twisted.dialects import Encoder
from brunix_twisted.dialects.decode import decode
from brunix_twisted.dialects.editor import ignored_user, read_editor
from brunix_twisted.dialects.framing import SSE, SSE_COMMENT, encode_json, sse_event
from brunix_twisted.dialects.json_body import JsonBodyEncoder
from brunix_twisted.dialects.messages import all_text, question
from brunix_twisted.dialects.openai import HeartbeatForm, error_body, no_schema, require_model
from brunix_twisted.dialects.parameters import ignored
from brunix_twisted.dialects.responses_requests import Item, ResponsesRequest, ResponseToolChoice, demands_tool
from brunix_twisted.errors import GatewayError
from brunix_twisted.model import CompletionEnd, CompletionRequest, Limits, Model, ResponseMeta, Turn

_ANSWER = "resp_"
_MESSAGE = "msg_"

# The limits that OpenAI's document sets for metadata: here it is kept with each stored answer.
_MOST_METADATA, _MAX_NAME_LENGTH, _LONGEST_VALUE = 16, 64, 512

# What an answer says of its request, unless the request says otherwise. The document requires most of these keys, Open
# Responses the penalties too, and some clients read all of them unguarded.
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
# What it says whatever was asked. Agents send tools and instructions of a hundred kilobytes, and a stream would send
# them back three times; none of them had an effect, and no client reads them there.
_ALWAYS: Final[dict[str, Any]] = {
    "background": False,
    "instructions": None,
    "reasoning": {"effort": None, "summary": None},
    "service_tier": "default",
    "text": {"format": {"type": "text"}},
    "tools": [],
}

# The document has a closed list of codes for a response that failed; the event before it has the gateway's own.
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
        _require_honourable(request)
        query, history, text = _read_input(request)
        previous_response_id = _continued(request)
        return CompletionRequest(
            model=request.model,
            queries=(query,),
            stream=bool(request.stream),
            prompt=f"{request.instructions}\n{text}" if request.instructions else text,
            session_id=request.session_id or None,
            # What goes on from an earlier answer does not say what was before.
            history=None if previous_response_id else history,
            previous_response_id=previous_response_id,
            stored=request.store is not False,
            limits=_limits(request.max_output_tokens),
            editor=read_editor(request.user),
            ignored=ignored(request, body_bytes) + ignored_user(request.user),
            echoed_params=_repeated(request),
        )

    def encoder(self, requested: CompletionRequest, meta: ResponseMeta) -> Encoder:
        """See :class:`brunix_twisted.dialects.Dialect`."""
        if requested.stream:
            return _Stream(requested, meta, self.heartbeat)

        def body(_: Sequence[str], end: CompletionEnd) -> bytes:
            return response_body(requested, meta, end)

        return JsonBodyEncoder(len(requested.queries), body, error_body)


def response_body(requested: CompletionRequest, meta: ResponseMeta, end: CompletionEnd) -> bytes:
    """Render a finished answer, for whoever asked and for whoever asks for it again."""
    return encode_json(_finished(requested, meta, end))


def deleted_body(name: str) -> bytes:
    """Say that an answer was forgotten; ``name`` is the id as it was given."""
    return encode_json({"id": name, "object": "response", "deleted": True})


def answer_id(name: str) -> str:
    """
    Take an answer's own id out of the name that clients know it by.

    :raises GatewayError: NOT_FOUND when no answer can have this name.
    """
    if not name.startswith(_ANSWER) or name == _ANSWER:
        raise GatewayError(errors.NOT_FOUND, f"Response with id '{name}' not found")
    return name.removeprefix(_ANSWER)


class _Stream:
    """
    A streamed answer as Server-Sent Events that have names and are numbered.

    The order that clients rely on: the response, its one item, the item's one part, the part's text piece by piece, and
    then the same backwards, each as a whole. All of these come for an empty answer, too. No ``[DONE]`` follows: the
    last event's name says that it is the last.
    """

    content_type = SSE

    def __init__(self, requested: CompletionRequest, meta: ResponseMeta, heartbeat: HeartbeatForm) -> None:
        """Prepare the bytes that all pieces of text share."""
        self._ask = requested
        self._meta = meta
        self._heartbeat = heartbeat
        self._sequence_number = 0
        self._part = {"item_id": _MESSAGE + meta.id, "output_index": 0, "content_index": 0}
        # A piece of text is encoded alone, between bytes made once: this runs once a token.
        self._before, self._between, self._after = _pieces(self._part)

    def _number(self) -> int:
        number = self._sequence_number
        self._sequence_number += 1
        return number

    def _event(self, kind: str, content: dict[str, Any]) -> bytes:
        return sse_event(kind, encode_json({"type": kind, **content, "sequence_number": self._number()}))

    def begin(self) -> bytes:
        begun = {"response": _response(self._ask, self._meta, "in_progress")}
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
        return b"%b%b%b%d%b" % (self._before, encode_json(text), self._between, self._number(), self._after)

    def heartbeat(self) -> bytes:
        return SSE_COMMENT if self._heartbeat == "comment" else self.delta(0, "")

    def finish(self, end: CompletionEnd) -> bytes:
        response = _finished(self._ask, self._meta, end)
        (item,) = response["output"]
        (part,) = item["content"]
        return b"".join(
            [
                self._event("response.output_text.done", {**self._part, "text": part["text"], "logprobs": []}),
                self._event("response.content_part.done", {**self._part, "part": part}),
                self._event("response.output_item.done", {"output_index": 0, "item": item}),
                self._event(f"response.{response['status']}", {"response": response}),
            ]
        )

    def fail(self, error: GatewayError) -> bytes:
        # An error event goes first, as in OpenAI's own streams: of a failed response its packages make an event like
        # any other, and of an error an exception, but only where it is an object of that name. The document has the
        # error's keys in the event itself, where other clients read them.
        told = {"code": error.kind.code, "message": error.message, "param": error.param}
        failed = _response(self._ask, self._meta, "failed") | {
            "error": {"code": _FAILED_CODES.get(error.kind.type, "server_error"), "message": error.message}
        }
        return b"".join(
            [
                self._event("error", {**told, "error": {"type": error.kind.type, **told}}),
                self._event("response.failed", {"response": failed}),
            ]
        )


def _pieces(place: dict[str, Any]) -> tuple[bytes, bytes, bytes]:
    """Give what stands before the JSON string of a piece of text, between it and the event's number, and after that."""
    kind = "response.output_text.delta"
    framed = sse_event(
        kind, encode_json({"type": kind, **place, "delta": None, "logprobs": [], "sequence_number": None})
    )
    before, between, after = framed.rsplit(b"null", 2)
    return before, between, after


def _response(requested: CompletionRequest, meta: ResponseMeta, status: str) -> dict[str, Any]:
    return {
        "id": _ANSWER + meta.id,
        "object": "response",
        "created_at": int(meta.created_s),
        "status": status,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "model": requested.model,
        "output": [],
        "usage": None,
        **_ALWAYS,
        **_DEFAULTS,
        **requested.echoed_params,
    }


def _finished(requested: CompletionRequest, meta: ResponseMeta, end: CompletionEnd) -> dict[str, Any]:
    (choice,) = end.choices
    cut = choice.finish_reason == "length"
    status = "incomplete" if cut else "completed"
    return _response(requested, meta, status) | {
        "completed_at": None if cut else int(end.finished_s),
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "output": [_item(meta, status, [_text(choice.text)])],
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


def _text(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _require_honourable(request: ResponsesRequest) -> None:
    """Refuse what cannot be done, where doing without would give another answer than was asked for."""
    if request.conversation is not None:
        raise GatewayError(
            errors.INVALID_REQUEST,
            "'conversation' is not offered; go on with one by 'previous_response_id' or 'session_id'",
            param="conversation",
        )
    if demands_tool(request):
        raise GatewayError(
            errors.INVALID_REQUEST, "'tool_choice' demands the call of a tool; none is ever called", param="tool_choice"
        )
    if request.text is not None and request.text.format is not None and request.text.format.strict:
        raise no_schema("text.format")
    metadata = request.metadata or {}
    if len(metadata) > _MOST_METADATA or any(
        len(name) > _MAX_NAME_LENGTH or len(value) > _LONGEST_VALUE for name, value in metadata.items()
    ):
        raise GatewayError(
            errors.INVALID_REQUEST,
            f"'metadata' may hold {_MOST_METADATA} texts of {_LONGEST_VALUE} characters each, "
            f"under names of {_MAX_NAME_LENGTH}",
            param="metadata",
        )


def _read_input(request: ResponsesRequest) -> tuple[str, tuple[Turn, ...] | None, str]:
    """Find the question, the turns before it as :func:`question` does, and all the text that was sent."""
    given = request.input
    if given is None:
        raise _no_input(request)
    if isinstance(given, str):
        if not given.strip():
            raise GatewayError(errors.INVALID_REQUEST, "'input' has no text", param="input")
        return given, (), given
    messages = [_as_message(position, item) for position, item in enumerate(given)]
    query, history = question(messages, "input")
    return query, history, all_text(messages)


def _no_input(request: ResponsesRequest) -> GatewayError:
    if request.prompt is not None:
        return GatewayError(
            errors.INVALID_REQUEST,
            "'prompt' names a template, and none is stored here; send an 'input'",
            param="prompt",
        )
    return GatewayError(errors.INVALID_REQUEST, "Missing required parameter: 'input'", param="input")


@attrs.frozen
class _Message:
    """An item, as :mod:`brunix_twisted.dialects.messages` reads it."""

    role: str
    content: Any = None


def _as_message(position: int, item: Item) -> _Message:
    """
    Take an item for a message. One that is none has no text, and a role of no plain conversation.

    :raises GatewayError: INVALID_REQUEST for one that does not say what it is.
    """
    if item.is_message and item.role is not None:
        return _Message(item.role, item.content)
    if item.is_message or (item.is_reference and item.id is None):
        param = f"input[{position}].{'role' if item.is_message else 'id'}"
        raise GatewayError(errors.INVALID_REQUEST, f"Missing required parameter: '{param}'", param=param)
    return _Message("item")  # never its type, which a caller may have named as a role is


def _continued(request: ResponsesRequest) -> str | None:
    """
    Name the earlier answer that the question goes on from.

    Some clients send a reference to the answer's message in place of its text, the Vercel AI SDK whenever it may. The
    last one before the question then stands for the whole conversation, unless a session is named that holds it.

    :raises GatewayError: PREVIOUS_NOT_FOUND, or NOT_FOUND for a reference to what never was a message of an answer.
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


def _repeated(request: ResponsesRequest) -> dict[str, Any]:
    echoed_params: dict[str, Any] = {}
    for name in _DEFAULTS:
        value = getattr(request, name)
        # An empty id names nothing; and a selection of tools would be one from the empty list that the answer has.
        if value is None or value == "" or isinstance(value, ResponseToolChoice):
            continue
        echoed_params[name] = int(value) if name in _INTEGERS else value
    return echoed_params
