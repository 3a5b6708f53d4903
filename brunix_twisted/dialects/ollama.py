"""Ollama's API: chat, generate, and what it tells of its models."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import attrs

from brunix_twisted import errors
from brunix_twisted.dialects import Encoder
from brunix_twisted.dialects.decode import decode
from brunix_twisted.dialects.framing import NDJSON, encode_json, ndjson
from brunix_twisted.dialects.json_body import JsonBodyEncoder
from brunix_twisted.dialects.messages import all_text, question, with_gap
from brunix_twisted.dialects.ollama_requests import ChatRequest, GenerateRequest, Options, ShowRequest
from brunix_twisted.dialects.openai import no_schema
from brunix_twisted.dialects.parameters import ignored
from brunix_twisted.dialects.stops import stop_sequences
from brunix_twisted.errors import GatewayError, Kind
from brunix_twisted.model import CompletionEnd, CompletionRequest, Limits, Model, ResponseMeta

# The Ollama release whose API this is: the first that has /v1/responses and /v1/messages too. Digits and dots only; not
# newer than needed, for a newer one would promise endpoints that are not here.
API_VERSION: Final = "0.14.0"

# A duration as Go reads it, such as 5m, 1h30m or -1s; or a number of seconds as text, which Ollama itself refuses, but
# whose meaning is plain.
_DURATION = re.compile(r"[-+]?((\d+(\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h))+|[-+]?\d+(\.\d*)?", re.ASCII)
_NOT_ZERO = re.compile(r"[1-9]")


def error_body(error: GatewayError, request_id: str | None = None) -> bytes:  # noqa: ARG001 - Anthropic's has it
    """Render a failure. The form has no place for the parameter at fault, so the message names it."""
    return encode_json({"error": error.message_with_param})


def error_status(kind: Kind) -> int:
    """Give a failure's HTTP status."""
    return kind.status


@attrs.frozen
class Chat:
    """``POST /api/chat``."""

    model: Model

    def parse(self, body_bytes: bytes) -> CompletionRequest:
        """See :class:`brunix_twisted.dialects.Dialect`."""
        request = decode(ChatRequest, body_bytes)
        require_model(self.model, request.model)
        _require_honourable(request)
        if not request.messages:
            return _nothing_asked(request, body_bytes)
        query, history = question(request.messages)
        return CompletionRequest(
            model=request.model,
            queries=(query,),
            stream=request.stream is not False,
            history=history,
            prompt=all_text(request.messages),
            session_id=request.session_id or None,
            limits=_limits(request.options),
            ignored=ignored(request, body_bytes),
        )

    def encoder(self, requested: CompletionRequest, meta: ResponseMeta) -> Encoder:
        """See :class:`brunix_twisted.dialects.Dialect`."""
        return _encoder(requested, meta, ('"message":{"role":"assistant","content":', "}"), _message)


@attrs.frozen
class Generate:
    """``POST /api/generate``."""

    model: Model

    def parse(self, body_bytes: bytes) -> CompletionRequest:
        """See :class:`brunix_twisted.dialects.Dialect`."""
        request = decode(GenerateRequest, body_bytes)
        require_model(self.model, request.model)
        _require_honourable(request)
        if not request.prompt:
            return _nothing_asked(request, body_bytes)
        if not request.prompt.strip():
            raise GatewayError(errors.INVALID_REQUEST, "'prompt' has no text", param="prompt")
        return CompletionRequest(
            model=request.model,
            queries=(with_gap(request.prompt, request.suffix),),
            stream=request.stream is not False,
            prompt=with_gap(request.prompt, request.suffix),
            session_id=request.session_id or None,
            limits=_limits(request.options),
            ignored=ignored(request, body_bytes),
        )

    def encoder(self, requested: CompletionRequest, meta: ResponseMeta) -> Encoder:
        """See :class:`brunix_twisted.dialects.Dialect`."""
        return _encoder(requested, meta, ('"response":', ""), _response)


def _message(text: str) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text}}


def _response(text: str) -> dict[str, Any]:
    return {"response": text}


def _encoder(requested: CompletionRequest, meta: ResponseMeta, piece: tuple[str, str], content: Any) -> Encoder:  # noqa: ANN401 - text to keys
    if requested.stream:
        return _Stream(requested, meta, piece, content)

    def body(texts: Sequence[str], end: CompletionEnd) -> bytes:
        return encode_json(_final(requested, content("".join(texts)), end))

    return JsonBodyEncoder(len(requested.queries), body, error_body)


class _Stream:
    """A streamed answer, one JSON object a line; the last has ``done: true`` and the account of the answer."""

    content_type = NDJSON

    def __init__(self, requested: CompletionRequest, meta: ResponseMeta, piece: tuple[str, str], content: Any) -> None:  # noqa: ANN401 - text to keys
        """
        Prepare the bytes that all lines share.

        :param piece: what stands before and after the JSON string of a piece of text.
        :param content: a text to the keys that hold it.
        """
        self._ask = requested
        self._content = content
        before, after = piece
        common = encode_json({"model": requested.model, "created_at": timestamp(meta.created_s)})[:-1]
        self._before = common + b"," + before.encode()
        self._after = after.encode() + b',"done":false}'

    def begin(self) -> bytes:
        return b""

    def delta(self, index: int, text: str) -> bytes:  # noqa: ARG002 - this API has one choice
        return ndjson(self._before + encode_json(text) + self._after)

    def heartbeat(self) -> bytes:
        # An empty piece: this framing has no comments, and an empty line breaks its readers.
        return ndjson(self._before + b'""' + self._after)

    def finish(self, end: CompletionEnd) -> bytes:
        return ndjson(encode_json(_final(self._ask, self._content(""), end)))

    def fail(self, error: GatewayError) -> bytes:
        # No line with done: true follows: a client must not take what came so far for the whole answer.
        return ndjson(error_body(error))


def _final(requested: CompletionRequest, content: dict[str, Any], end: CompletionEnd) -> dict[str, Any]:
    reason = end.choices[0].finish_reason if end.choices else requested.empty_finish_reason
    final = {
        "model": requested.model,
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


def _nothing_asked(request: ChatRequest | GenerateRequest, body_bytes: bytes) -> CompletionRequest:
    """Load the model, or with ``keep_alive: 0`` unload it: one object, even for a caller who streams."""
    return CompletionRequest(
        model=request.model,
        queries=(),
        stream=False,
        prompt="",
        session_id=request.session_id or None,
        empty_finish_reason="unload" if _is_no_time(request.keep_alive) else "load",
        ignored=ignored(request, body_bytes),
    )


def _is_no_time(keep_alive: str | float | None) -> bool:
    if isinstance(keep_alive, str):
        return bool(keep_alive) and _NOT_ZERO.search(keep_alive) is None
    return keep_alive == 0


def _require_honourable(request: ChatRequest | GenerateRequest) -> None:
    """Refuse what means nothing, and what cannot be done where doing without would give another kind of answer."""
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
    most = options.num_predict
    return Limits(
        stop=stop_sequences(options.stop, "options.stop"),
        # -1 means no limit and -2 the whole context, which is no limit either.
        max_tokens=None if most is None or most < 0 else int(most),
    )


def require_model(model: Model, name: str) -> None:
    """Raise GatewayError (UNKNOWN_MODEL) when the model has no such name."""
    if not model.accepts(name):
        raise GatewayError(errors.UNKNOWN_MODEL, f"model '{name}' not found", param="model")


def timestamp(time_s: float) -> str:
    """RFC 3339 in UTC, from seconds since the epoch."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def version_body() -> bytes:
    """``GET /api/version``."""
    return encode_json({"version": API_VERSION})


def tags_body(model: Model, modified_s: float) -> bytes:
    """``GET /api/tags``."""
    return encode_json({"models": [_described(model) | {"modified_at": timestamp(modified_s)}]})


def ps_body(model: Model, expires_s: float) -> bytes:
    """``GET /api/ps``: the model is always loaded."""
    running = {"expires_at": timestamp(expires_s), "size_vram": 0, "context_length": model.context_length}
    return encode_json({"models": [_described(model) | running]})


def show_body(model: Model, body_bytes: bytes, modified_s: float) -> bytes:
    """
    ``POST /api/show``.

    :raises GatewayError: INVALID_REQUEST without a model's name, UNKNOWN_MODEL for one that is not known.
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
    """Every key is there: some clients refuse the whole list when one is missing."""
    return {
        "parent_model": "",
        "format": "grpc",
        "family": model.family,
        "families": [model.family],
        "parameter_size": "",
        "quantization_level": "",
    }


ROOT_BODY: Final = b"Ollama is running"


def _described(model: Model) -> dict[str, Any]:
    return {
        "name": model.tagged,
        "model": model.tagged,
        # Nothing lies on a disk here; the digest only has to be stable and the model's own.
        "size": 0,
        "digest": hashlib.sha256(model.tagged.encode()).hexdigest(),
        "details": _details(model),
    }
