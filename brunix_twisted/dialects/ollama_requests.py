"""
The request bodies of Ollama's API, with the types of its OpenAPI document and its ``api/types.go``.

See :mod:`brunix_twisted.dialects.openai_requests` for what is checked.
"""

from __future__ import annotations

from typing import Annotated, Any

from brunix_twisted.dialects.decode import Element, Integer

# Contents and roles are the same as in OpenAI's API: the same clients send the same messages to both.
from brunix_twisted.dialects.openai_requests import Content, Role
from brunix_twisted.dialects.parameters import Honoured, Ignored, Parameters

Format = str | dict[str, Any] | None
"""``json``, a JSON schema, or an empty string, which some clients send for neither."""

Think = bool | str | None
"""Whether to think, or the effort."""

KeepAlive = str | float | None
"""Seconds as a number, or a duration such as ``5m``."""


class ToolCall(Element, frozen=True):
    """A tool call of the model."""

    id: str | None = None
    function: dict[str, Any] | None = None


class Message(Element, frozen=True):
    """Schema ``ChatMessage``, and the additional fields of struct ``Message``."""

    role: Role
    content: Content = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class Tool(Element, frozen=True, kw_only=True):
    """Schema ``ToolDefinition``."""

    type: str | None = None
    function: dict[str, Any] | None = None


class IgnoredOptions(Parameters, frozen=True, kw_only=True):
    """Options without effect, from schema ``ModelOptions``, struct ``Options`` and the example in ``docs/api.md``."""

    draft_num_predict: Integer | None = None
    frequency_penalty: float | None = None
    main_gpu: Integer | None = None
    min_p: float | None = None
    num_batch: Integer | None = None
    num_ctx: Integer | None = None
    num_gpu: Integer | None = None
    num_keep: Integer | None = None
    num_thread: Integer | None = None
    numa: bool | None = None
    penalize_newline: bool | None = None
    presence_penalty: float | None = None
    repeat_last_n: Integer | None = None
    repeat_penalty: float | None = None
    seed: Integer | None = None
    temperature: float | None = None
    top_k: Integer | None = None
    top_p: float | None = None
    typical_p: float | None = None
    use_mmap: bool | None = None


class Options(IgnoredOptions, frozen=True, kw_only=True):
    """The ``options`` of both endpoints."""

    num_predict: Annotated[
        Integer | None, Honoured("Maximum number of tokens in the answer; a negative number is no limit.")
    ] = None
    stop: Annotated[str | list[str] | None, Honoured("The answer ends before the first of these texts.")] = None


class IgnoredByAll(Parameters, frozen=True, kw_only=True):
    """Ignored parameters of both endpoints, from the schemas and structs ``ChatRequest`` and ``GenerateRequest``."""

    _debug_render_only: bool | None = None
    format: Annotated[Format, Ignored("Answers are plain text. A JSON schema is refused.")] = None
    logprobs: bool | None = None
    shift: bool | None = None
    think: Annotated[Think, Ignored("The engine returns no reasoning.")] = None
    top_logprobs: Integer | None = None
    truncate: bool | None = None


class IgnoredByChat(IgnoredByAll, frozen=True, kw_only=True):
    """Ignored parameters of ``/api/chat``."""

    tools: Annotated[list[Tool] | None, Ignored("Tools are never called.")] = None


class ChatRequest(IgnoredByChat, frozen=True, kw_only=True):
    """``POST /api/chat``."""

    model: Annotated[str, Honoured("Required. A name of the model; the answer repeats it.")]
    messages: Annotated[
        list[Message] | None,
        Honoured(
            "The last user message is the question. The turns before it identify the session. None: load the model."
        ),
    ] = None
    stream: Annotated[bool | None, Honoured("Stream the answer as lines of JSON. Default: true.")] = None
    options: Annotated[Options | None, Honoured()] = None
    keep_alive: Annotated[KeepAlive, Honoured("With 0 and no question, the model is unloaded.")] = None
    session_id: Annotated[str | None, Honoured("Not Ollama's: the engine session.")] = None


class IgnoredByGenerate(IgnoredByAll, frozen=True, kw_only=True):
    """Ignored parameters of ``/api/generate``."""

    context: list[Integer] | None = None
    images: Annotated[list[str] | None, Ignored("Only text is supported.")] = None
    system: Annotated[str | None, Honoured("The system prompt, as `PROXY_SYSTEM_PROMPT` says; ignored by default.")] = (
        None
    )
    template: Annotated[str | None, Ignored("Templates are never applied.")] = None


class GenerateRequest(IgnoredByGenerate, frozen=True, kw_only=True):
    """``POST /api/generate``."""

    model: Annotated[str, Honoured("Required. A name of the model; the answer repeats it.")]
    prompt: Annotated[str | None, Honoured("The question. None: load the model.")] = None
    suffix: Annotated[str | None, Honoured("The text after the gap that the answer fills.")] = None
    raw: Annotated[bool | None, Honoured("The prompt is always sent unchanged.")] = None
    stream: Annotated[bool | None, Honoured("Stream the answer as lines of JSON. Default: true.")] = None
    options: Annotated[Options | None, Honoured()] = None
    keep_alive: Annotated[KeepAlive, Honoured("With 0 and no question, the model is unloaded.")] = None
    session_id: Annotated[str | None, Honoured("Not Ollama's: the engine session.")] = None


class IgnoredByShow(Parameters, frozen=True, kw_only=True):
    """Ignored parameters, from the schema and the struct ``ShowRequest``."""

    options: Options | None = None
    system: str | None = None
    template: str | None = None
    verbose: Annotated[bool | None, Ignored("The answer is the same.")] = None


class ShowRequest(IgnoredByShow, frozen=True, kw_only=True):
    """``POST /api/show``."""

    model: Annotated[str | None, Honoured("Required, unless `name` is sent. A name of the model.")] = None
    name: Annotated[str | None, Honoured("The older name of `model`.")] = None
