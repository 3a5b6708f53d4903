"""OpenAI's API: chat completions, completions, models, errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import attrs

from brunix_twisted import __version__, errors
from brunix_twisted.dialects import Encoder, codex_models
from brunix_twisted.dialects.decode import decode
from brunix_twisted.dialects.editor import ignored_user, read_editor
from brunix_twisted.dialects.framing import SSE, SSE_COMMENT, SSE_DONE, encode_json, encode_text, sse
from brunix_twisted.dialects.json_body import JsonBodyEncoder
from brunix_twisted.dialects.messages import all_text, instructions, question, with_gap
from brunix_twisted.dialects.openai_requests import (
    ChatRequest,
    CompletionsRequest,
    StreamOptions,
    required_tool,
)
from brunix_twisted.dialects.parameters import ignored
from brunix_twisted.dialects.stops import stop_sequences
from brunix_twisted.errors import GatewayError, Kind
from brunix_twisted.model import CompletionEnd, CompletionRequest, Limits, Model, ResponseMeta, Source

# "The backend configuration that the model runs with": the gateway's release.
_FINGERPRINT = f"fp_brunix_{__version__}"

_MAX_STOPS = 4
_MAX_PROMPTS = 20

HeartbeatForm = Literal["comment", "delta"]
"""
The form of a heartbeat. A comment is not an event, so clients ignore it. For clients whose timeouts count only events,
an empty delta is an event that adds nothing.
"""


def error_body(error: GatewayError, request_id: str | None = None) -> bytes:  # noqa: ARG001 - see ErrorFormat
    """Render an error. All four keys are always present, because some clients read them without a check."""
    return encode_json(
        {
            "error": {
                "message": error.message,
                "type": error.kind.type,
                "param": error.param,
                "code": error.kind.code,
            }
        }
    )


def error_status(kind: Kind) -> int:
    """Return the HTTP status of an error."""
    return kind.status


@attrs.frozen
class Chat:
    """``POST /v1/chat/completions``."""

    model: Model
    heartbeat: HeartbeatForm = "comment"

    def parse(self, body_bytes: bytes) -> CompletionRequest:
        """See :class:`brunix_twisted.dialects.Dialect`."""
        request = decode(ChatRequest, body_bytes)
        require_model(self.model, request.model)
        _require_one(request.n)
        _require_no_tool(request)
        _require_no_strict_schema(request)
        query, history = question(request.messages)
        max_tokens = request.max_completion_tokens
        return CompletionRequest(
            model=request.model,
            queries=(query,),
            history=history,
            instructions=instructions(request.messages),
            prompt=all_text(request.messages),
            session_id=request.session_id or None,
            limits=_limits(
                request.stop,
                request.max_tokens if max_tokens is None else max_tokens,
                "max_tokens" if max_tokens is None else "max_completion_tokens",
            ),
            editor=read_editor(request.user),
            ignored=ignored(request, body_bytes) + ignored_user(request.user),
            stream=bool(request.stream),
            include_usage=_include_usage(request.stream_options),
        )

    def encoder(self, request: CompletionRequest, meta: ResponseMeta) -> Encoder:
        """See :class:`brunix_twisted.dialects.Dialect`."""
        if request.stream:
            return _Stream(
                _fields(_CHAT.prefix, "chat.completion.chunk", request, meta), _CHAT, request, self.heartbeat
            )

        def choice(text: str, sources: Sequence[Source]) -> dict[str, Any]:
            message = {"role": "assistant", "content": text, "refusal": None, "annotations": _annotations(sources)}
            return {"message": message}

        return _json_body(_fields(_CHAT.prefix, "chat.completion", request, meta), choice, request)


@attrs.frozen
class Completions:
    """``POST /v1/completions``."""

    model: Model
    heartbeat: HeartbeatForm = "comment"

    def parse(self, body_bytes: bytes) -> CompletionRequest:
        """See :class:`brunix_twisted.dialects.Dialect`."""
        request = decode(CompletionsRequest, body_bytes)
        require_model(self.model, request.model)
        _require_one(request.n)
        queries = tuple(with_gap(prompt, request.suffix) for prompt in _prompts(request.prompt))
        return CompletionRequest(
            model=request.model,
            queries=queries,
            prompt="\n".join(queries),
            session_id=request.session_id or None,
            limits=_limits(request.stop, request.max_tokens, "max_tokens"),
            echo=bool(request.echo),
            ignored=ignored(request, body_bytes),
            stream=bool(request.stream),
            include_usage=_include_usage(request.stream_options),
        )

    def encoder(self, request: CompletionRequest, meta: ResponseMeta) -> Encoder:
        """See :class:`brunix_twisted.dialects.Dialect`."""
        fields = _fields(_TEXT.prefix, "text_completion", request, meta)
        if request.stream:
            return _Stream(fields, _TEXT, request, self.heartbeat)
        return _json_body(fields, lambda text, _: {"text": text}, request)


@attrs.frozen
class _Shape:
    """The differences between the streams of the two endpoints."""

    prefix: str
    """The prefix of the answer's id."""
    opening: dict[str, Any] | None
    """The first chunk of a choice, before any text; None for none."""
    around_text: tuple[str, str]
    """The JSON before and after the string of a delta."""
    closing: dict[str, Any]
    """The last chunk of a choice, after all text."""
    annotated: bool
    """Whether a choice may have annotations."""


_CHAT = _Shape(
    "chatcmpl",
    {"delta": {"role": "assistant", "content": ""}},
    ('"delta":{"content":', "}"),
    {"delta": {}},
    annotated=True,
)
_TEXT = _Shape("cmpl", None, ('"text":', ""), {"text": ""}, annotated=False)


class _Stream:
    """
    A streamed answer as Server-Sent Events.

    Clients rely on this order: chunks of text with ``finish_reason: null``, one chunk per choice with its
    finish_reason, the usage if request, ``[DONE]``.
    """

    content_type = SSE

    def __init__(
        self, fields: dict[str, Any], shape: _Shape, request: CompletionRequest, heartbeat: HeartbeatForm
    ) -> None:
        """Prepare the bytes that all chunks share; ``fields`` are the answer's fields in each chunk."""
        self._fields = fields
        # Only if requested: some clients do not show the text of a chunk that has the key.
        self._no_usage: dict[str, Any] = {"usage": None} if request.include_usage else {}
        self._include_usage = request.include_usage
        self._shape = shape
        self._choices = range(len(request.queries))
        self._heartbeat = heartbeat
        # Encode only the text of each chunk, between prepared bytes, because this runs for each token.
        before, after = shape.around_text
        common = encode_json(fields)[:-1]
        self._before = [common + b',"choices":[{"index":%d,%b' % (index, before.encode()) for index in self._choices]
        self._after = f'{after},"logprobs":null,"finish_reason":null}}]'.encode() + (
            b',"usage":null}' if request.include_usage else b"}"
        )

    def _chunk(self, index: int, content: dict[str, Any], finish_reason: str | None) -> bytes:
        choice = {"index": index, **content, "logprobs": None, "finish_reason": finish_reason}
        return sse(encode_json({**self._fields, "choices": [choice], **self._no_usage}))

    def begin(self) -> bytes:
        if self._shape.opening is None:
            return b""
        return b"".join(self._chunk(index, self._shape.opening, None) for index in self._choices)

    def delta(self, index: int, text: str) -> bytes:
        return sse(self._before[index] + encode_text(text) + self._after)

    def heartbeat(self) -> bytes:
        return SSE_COMMENT if self._heartbeat == "comment" else self.delta(0, "")

    def finish(self, end: CompletionEnd) -> bytes:
        chunks = []
        for index, choice in enumerate(end.choices):
            if self._shape.annotated and choice.sources:
                chunks.append(self._chunk(index, {"delta": {"annotations": _annotations(choice.sources)}}, None))
            chunks.append(self._chunk(index, self._shape.closing, choice.finish_reason))
        if self._include_usage:
            chunks.append(sse(encode_json({**self._fields, "choices": [], "usage": _usage(end)})))
        return b"".join(chunks) + SSE_DONE

    def fail(self, error: GatewayError) -> bytes:
        # No choices and no finish_reason, so that clients do not take the text so far for a complete answer.
        return sse(error_body(error)) + SSE_DONE


def _json_body(fields: dict[str, Any], choice: Any, request: CompletionRequest) -> JsonBodyEncoder:  # noqa: ANN401 - renders a choice's text
    def body(texts: Sequence[str], end: CompletionEnd) -> bytes:
        choices = [
            {"index": index, **choice(text, ended.sources), "logprobs": None, "finish_reason": ended.finish_reason}
            for index, (text, ended) in enumerate(zip(texts, end.choices, strict=True))
        ]
        return encode_json({**fields, "choices": choices, "usage": _usage(end)})

    return JsonBodyEncoder(len(request.queries), body, error_body)


def _fields(prefix: str, kind: str, request: CompletionRequest, meta: ResponseMeta) -> dict[str, Any]:
    return {
        "id": f"{prefix}-{meta.id}",
        "object": kind,
        "created": int(meta.created_s),
        "model": request.model,
        "system_fingerprint": _FINGERPRINT,
    }


def _annotations(sources: Sequence[Source]) -> list[dict[str, Any]]:
    return [{"type": "url_citation", "url_citation": url_citation(source)} for source in sources]


def url_citation(source: Source) -> dict[str, Any]:
    """Render a source as OpenAI's APIs do."""
    return {"start_index": source.start, "end_index": source.end, "url": source.url, "title": source.title}


def _usage(end: CompletionEnd) -> dict[str, int]:
    return {
        "prompt_tokens": end.prompt_tokens,
        "completion_tokens": end.completion_tokens,
        "total_tokens": end.prompt_tokens + end.completion_tokens,
    }


def require_model(model: Model, name: str) -> None:
    """Check the model's name.

    :raises GatewayError: UNKNOWN_MODEL.
    """
    if not model.accepts(name):
        raise GatewayError(errors.UNKNOWN_MODEL, f"The model '{name}' does not exist", param="model")


def _require_one(n: float | None) -> None:
    if n is not None and n != 1:
        raise GatewayError(
            errors.INVALID_REQUEST, f"'n' is {n:g}; it must be 1, because a question has one answer", param="n"
        )


def _require_no_tool(request: ChatRequest) -> None:
    if required := required_tool(request):
        raise GatewayError(
            errors.INVALID_REQUEST, f"'{required}' requires a tool call, which is not supported", param=required
        )


def _require_no_strict_schema(request: ChatRequest) -> None:
    response_format = request.response_format
    schema = None if response_format is None else response_format.json_schema
    if schema is not None and schema.strict:
        raise no_schema("response_format")


def no_schema(param: str) -> GatewayError:
    """Return the error for a request that requires an answer in a JSON schema: the engine answers in plain text."""
    return GatewayError(
        errors.INVALID_REQUEST,
        f"'{param}' requires an answer in a JSON schema, which is not supported. Answers are plain text.",
        param=param,
    )


def _include_usage(options: StreamOptions | None) -> bool:
    return bool(options is not None and options.include_usage)


def _limits(stop: str | list[str] | None, max_tokens: float | None, max_tokens_name: str) -> Limits:
    if max_tokens is not None and max_tokens < 0:
        raise GatewayError(
            errors.INVALID_REQUEST,
            f"'{max_tokens_name}' is {max_tokens:g}; it must not be negative",
            param=max_tokens_name,
        )
    return Limits(
        stop=stop_sequences(stop, "stop", max_count=_MAX_STOPS),
        max_tokens=None if max_tokens is None else int(max_tokens),
    )


def _prompts(prompt: str | Iterable[Any] | None) -> tuple[str, ...]:
    prompts = (prompt,) if isinstance(prompt, str) else tuple(prompt or ())
    for position, text in enumerate(prompts):
        where = "prompt" if isinstance(prompt, str) else f"prompt[{position}]"
        if not isinstance(text, str):
            raise GatewayError(
                errors.INVALID_REQUEST, f"'{where}' is a token id; only text is supported", param="prompt"
            )
        if not text.strip():
            raise GatewayError(errors.INVALID_REQUEST, f"'{where}' has no text", param=where)
    if len(prompts) > _MAX_PROMPTS:
        raise GatewayError(
            errors.INVALID_REQUEST,
            f"'prompt' has {len(prompts)} prompts; at most {_MAX_PROMPTS} are allowed",
            param="prompt",
        )
    if not prompts:
        raise GatewayError(errors.INVALID_REQUEST, "Missing required parameter: 'prompt'", param="prompt")
    return prompts


def models_body(model: Model, created_s: float) -> bytes:
    """Render the list of models, with the key ``models`` for Codex."""
    return encode_json(
        {
            "object": "list",
            "data": [_described(name, created_s, model.context_length) for name in model.listed],
            "models": [
                codex_models.described(name, priority, model.context_length)
                for priority, name in enumerate(model.listed)
            ],
        }
    )


def model_body(model: Model, name: str, created_s: float) -> bytes:
    """
    Render the model, under the name in the request.

    :raises GatewayError: UNKNOWN_MODEL.
    """
    require_model(model, name)
    return encode_json(_described(name, created_s, model.context_length))


def _described(name: str, created_s: float, context_length: int) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": int(created_s),
        "owned_by": "brunix",
        # Not OpenAI's. Clients read OpenRouter's key or vLLM's, and without them assume from 4,000 to 32,000 tokens.
        "context_length": context_length,
        "max_model_len": context_length,
    }
