"""Ollama's API: chat, generate, and the description of the model."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import attrs

from brunix_twisted import errors
from brunix_twisted.dialects import Encoder
from brunix_twisted.dialects.decode import decode
from brunix_twisted.dialects.framing import NDJSON, encode_json, encode_text, ndjson
from brunix_twisted.dialects.json_body import JsonBodyEncoder
from brunix_twisted.dialects.messages import all_text, instructions, question, with_gap
from brunix_twisted.dialects.ollama_requests import ChatRequest, GenerateRequest, Options, ShowRequest
from brunix_twisted.dialects.openai import no_schema
from brunix_twisted.dialects.parameters import ignored
from brunix_twisted.dialects.stops import stop_sequences
from brunix_twisted.errors import GatewayError, Kind
from brunix_twisted.model import CompletionEnd, CompletionRequest, Limits, Model, ResponseMeta, tagged

# The compatible Ollama release: the first that has /v1/responses and /v1/messages. Digits and dots only. A newer
# release would imply endpoints that the gateway does not have.
API_VERSION: Final = "0.14.0"

# A duration in Go's format, such as 5m, 1h30m or -1s. A number of seconds as text is accepted too; Ollama rejects it.
_DURATION = re.compile(r"[-+]?((\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h))+|[-+]?\d+(\.\d*)?", re.ASCII)
_NOT_ZERO = re.compile(r"[1-9]")

_Content = Callable[[str], dict[str, Any]]
"""Returns the keys that contain a text."""


def error_body(error: GatewayError, request_id: str | None = None) -> bytes:  # noqa: ARG001 - see ErrorFormat
    """Render an error. The format has no field for the parameter, so the message names it."""
    return encode_json({"error": error.message_with_param})


def error_status(kind: Kind) -> int:
    """Return the HTTP status of an error."""
    return kind.status


@attrs.frozen
class Chat:
    """``POST /api/chat``."""

    model: Model

    def parse(self, body_bytes: bytes) -> CompletionRequest:
        """See :class:`brunix_twisted.dialects.Dialect`."""
        request = decode(ChatRequest, body_bytes)
        require_model(self.model, request.model)
        _require_supported(request)
        if not request.messages:
            return _load_request(request, body_bytes)
        query, history = question(request.messages)
        return CompletionRequest(
            model=request.model,
            queries=(query,),
            stream=request.stream is not False,
            history=history,
            instructions=instructions(request.messages),
            prompt=all_text(request.messages),
            session_id=request.session_id or None,
            limits=_limits(request.options),
            ignored=ignored(request, body_bytes),
        )

    def encoder(self, request: CompletionRequest, meta: ResponseMeta) -> Encoder:
        """See :class:`brunix_twisted.dialects.Dialect`."""
        return _encoder(request, meta, ('"message":{"role":"assistant","content":', "}"), _message)


@attrs.frozen
class Generate:
    """``POST /api/generate``."""

    model: Model

    def parse(self, body_bytes: bytes) -> CompletionRequest:
        """See :class:`brunix_twisted.dialects.Dialect`."""
        request = decode(GenerateRequest, body_bytes)
        require_model(self.model, request.model)
        _require_supported(request)
        if not request.prompt:
            return _load_request(request, body_bytes)
        if not request.prompt.strip():
            raise GatewayError(errors.INVALID_REQUEST, "'prompt' has no text", param="prompt")
        return CompletionRequest(
            model=request.model,
            queries=(with_gap(request.prompt, request.suffix),),
            stream=request.stream is not False,
            instructions=(request.system,) if request.system else (),
            prompt=with_gap(request.prompt, request.suffix),
            session_id=request.session_id or None,
            limits=_limits(request.options),
            ignored=ignored(request, body_bytes),
        )

    def encoder(self, request: CompletionRequest, meta: ResponseMeta) -> Encoder:
        """See :class:`brunix_twisted.dialects.Dialect`."""
        return _encoder(request, meta, ('"response":', ""), _response)


def _message(text: str) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text}}


def _response(text: str) -> dict[str, Any]:
    return {"response": text}


def _encoder(
    request: CompletionRequest, meta: ResponseMeta, around_text: tuple[str, str], content: _Content
) -> Encoder:
    if request.stream:
        return _Stream(request, meta, around_text, content)

    def body(texts: Sequence[str], end: CompletionEnd) -> bytes:
        return encode_json(_final(request, content("".join(texts)), end))

    return JsonBodyEncoder(len(request.queries), body, error_body)


class _Stream:
    """A streamed answer, one JSON object per line. The last one has ``done: true``, token counts and durations."""

    content_type = NDJSON

    def __init__(
        self, request: CompletionRequest, meta: ResponseMeta, around_text: tuple[str, str], content: _Content
    ) -> None:
        """
        Prepare the bytes that all lines share.

        :param around_text: the JSON before and after the string of a delta.
        :param content: returns the keys that contain a text.
        """
        self._request = request
        self._content = content
        before, after = around_text
        common = encode_json({"model": request.model, "created_at": timestamp(meta.created_s)})[:-1]
        self._before = common + b"," + before.encode()
        self._after = after.encode() + b',"done":false}'

    def begin(self) -> bytes:
        return b""

    def delta(self, index: int, text: str) -> bytes:  # noqa: ARG002 - this API has one choice
        return ndjson(self._before + encode_text(text) + self._after)

    def heartbeat(self) -> bytes:
        # An empty delta: NDJSON has no comments, and clients fail at an empty line.
        return ndjson(self._before + b'""' + self._after)

    def finish(self, end: CompletionEnd) -> bytes:
        return ndjson(encode_json(_final(self._request, self._content(""), end)))

    def fail(self, error: GatewayError) -> bytes:
        # No line with done: true follows, so that clients do not take the text so far for a complete answer.
        return ndjson(error_body(error))


def _final(request: CompletionRequest, content: dict[str, Any], end: CompletionEnd) -> dict[str, Any]:
    reason = end.choices[0].finish_reason if end.choices else request.load_reason
    final = {
        "model": request.model,
        "created_at": timestamp(end.finished_s),
        **content,
        "done": True,
        "done_reason": reason,
    }
    if end.choices:
        final |= {
            "total_duration": end.total_duration_ns,
            "load_duration": end.load_duration_ns,
            "prompt_eval_count": end.prompt_tokens,
            "prompt_eval_duration": end.prompt_eval_duration_ns,
            "eval_count": end.completion_tokens,
            "eval_duration": end.eval_duration_ns,
        }
    return final


def _load_request(request: ChatRequest | GenerateRequest, body_bytes: bytes) -> CompletionRequest:
    """Return the request that loads the model, or with ``keep_alive: 0`` unloads it. It is never streamed."""
    return CompletionRequest(
        model=request.model,
        queries=(),
        stream=False,
        prompt="",
        session_id=request.session_id or None,
        load_reason="unload" if _is_zero(request.keep_alive) else "load",
        ignored=ignored(request, body_bytes),
    )


def _is_zero(keep_alive: str | float | None) -> bool:
    if isinstance(keep_alive, str):
        return bool(keep_alive) and _NOT_ZERO.search(keep_alive) is None
    return keep_alive == 0


def _require_supported(request: ChatRequest | GenerateRequest) -> None:
    """Reject invalid values, and parameters that would change the kind of answer."""
    keep_alive = request.keep_alive
    if isinstance(keep_alive, str) and keep_alive and not _DURATION.fullmatch(keep_alive):
        raise GatewayError(
            errors.INVALID_REQUEST,
            "'keep_alive' must be a number of seconds, or a duration such as '5m'",
            param="keep_alive",
        )
    if isinstance(request.format, dict) and request.format:
        raise no_schema("format")
    if isinstance(request.format, str) and request.format not in {"", "json"}:
        raise GatewayError(errors.INVALID_REQUEST, "'format' must be 'json' or a JSON schema", param="format")


def _limits(options: Options | None) -> Limits:
    if options is None:
        return Limits()
    max_tokens = options.num_predict
    return Limits(
        stop=stop_sequences(options.stop, "options.stop"),
        # -1 means no limit, and -2 the size of the context, which is no limit here.
        max_tokens=None if max_tokens is None or max_tokens < 0 else int(max_tokens),
    )


def require_model(model: Model, name: str) -> None:
    """Check the model's name.

    :raises GatewayError: UNKNOWN_MODEL.
    """
    if not model.accepts(name):
        raise GatewayError(errors.UNKNOWN_MODEL, f"model '{name}' not found", param="model")


def timestamp(time_s: float) -> str:
    """Format seconds since the epoch as RFC 3339 in UTC."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def version_body() -> bytes:
    """``GET /api/version``."""
    return encode_json({"version": API_VERSION})


def tags_body(model: Model, modified_s: float) -> bytes:
    """``GET /api/tags``."""
    modified = {"modified_at": timestamp(modified_s)}
    return encode_json({"models": [_described(model, name) | modified for name in model.listed]})


def ps_body(model: Model, expires_s: float) -> bytes:
    """``GET /api/ps``: the model is always loaded."""
    running = {"expires_at": timestamp(expires_s), "size_vram": 0, "context_length": model.context_length}
    return encode_json({"models": [_described(model, model.id) | running]})


def show_body(model: Model, body_bytes: bytes, modified_s: float) -> bytes:
    """
    ``POST /api/show``.

    :raises GatewayError: INVALID_REQUEST without a name, UNKNOWN_MODEL for an unknown one.
    """
    request = decode(ShowRequest, body_bytes)
    name = request.model or request.name
    if not name:
        raise GatewayError(errors.INVALID_REQUEST, "Missing required parameter: 'model'", param="model")
    require_model(model, name)
    return encode_json(
        {
            "license": "",
            "modelfile": f"FROM {model.tagged}\n",
            "parameters": "",
            "template": "{{ .Prompt }}",
            "details": _details(model),
            "model_info": {
                "general.architecture": model.family,
                "general.basename": model.id,
                f"{model.family}.context_length": model.context_length,
            },
            "capabilities": list(model.capabilities),
            "modified_at": timestamp(modified_s),
        }
    )


def _details(model: Model) -> dict[str, Any]:
    """Return the model's details. All keys are present, because some clients reject a list with a key missing."""
    return {
        "parent_model": "",
        "format": "grpc",
        "family": model.family,
        "families": [model.family],
        "parameter_size": "",
        "quantization_level": "",
    }


ROOT_BODY: Final = b"Ollama is running"


def _described(model: Model, name: str) -> dict[str, Any]:
    name = tagged(name)
    return {
        "name": name,
        "model": name,
        # There is no file of the model. The digest must only be stable and unique.
        "size": 0,
        "digest": hashlib.sha256(name.encode()).hexdigest(),
        "details": _details(model),
    }
