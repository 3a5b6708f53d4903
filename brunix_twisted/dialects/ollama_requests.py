"""
The request bodies of Ollama's API, by the types that its OpenAPI document and its ``api/types.go`` give them.

See :mod:`brunix_twisted.dialects.openai_requests` for what is checked and what is not.
"""

from __future__ import annotations

from typing import Annotated, Any

import attrs

from brunix_twisted.dialects.decode import Element, Integer

# Content and roles are OpenAI's here too: the same clients speak both APIs and send the same messages to either.
from brunix_twisted.dialects.openai_requests import Content, Role
from brunix_twisted.dialects.parameters import Honoured, Ignored, Parameters

Format = str | dict[str, Any] | None
"""``json``, a JSON schema, or (from some clients) an empty string for neither."""

Think = bool | str | None
"""Whether to think, or how hard."""

KeepAlive = str | float | None
"""Seconds as a number, or a duration such as ``5m``."""


class ToolCall(Element, frozen=True):
    """A call of a tool, as the model asked for it."""

    id: str | None = None
    function: dict[str, Any] | None = None


class Message(Element, frozen=True):
    """Schema ``ChatMessage``, and struct ``Message``, which has more."""

    role: Role
    content: Content = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


@attrs.frozen(kw_only=True)
class Tool:
    """Schema ``ToolDefinition``."""

    type: str | None = None
    function: dict[str, Any] | None = None


@attrs.frozen(kw_only=True)
class IgnoredOptions(Parameters):
    """What schema ``ModelOptions``, struct ``Options`` and the example of ``docs/api.md`` list, and has no effect."""

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


@attrs.frozen(kw_only=True)
class Options(IgnoredOptions):
    """The ``options`` of a chat or a prompt."""

    num_predict: Annotated[
        Integer | None, Honoured("The answer ends after this many tokens; a negative number is no limit.")
    ] = None
    stop: Annotated[str | list[str] | None, Honoured("The answer ends before the first of these texts.")] = None


@attrs.frozen(kw_only=True)
class IgnoredByAll(Parameters):
    """What the schemas ``ChatRequest`` and ``GenerateRequest``, and the structs of these names, have in common."""

    _debug_render_only: bool | None = None
    format: Annotated[Format, Ignored("Answers are text in the engine's own form. A JSON schema is refused.")] = None
    logprobs: bool | None = None
    shift: bool | None = None
    think: Annotated[Think, Ignored("The engine's thoughts are its own.")] = None
    top_logprobs: Integer | None = None
    truncate: bool | None = None


@attrs.frozen(kw_only=True)
class IgnoredByChat(IgnoredByAll):
    """What only a chat has."""

    tools: Annotated[list[Tool] | None, Ignored("No tool is ever called.")] = None


@attrs.frozen(kw_only=True)
class ChatRequest(IgnoredByChat):
    """``POST /api/chat``."""

    model: Annotated[str, Honoured("Required. A name of the model; the answer repeats it.")]
    messages: Annotated[
        list[Message] | None,
        Honoured("The last user message is the question; the turns before it find its session. Without any: load."),
    ] = None
    stream: Annotated[bool | None, Honoured("The answer comes in lines, as it is written. Default: true.")] = None
    options: Annotated[Options | None, Honoured()] = None
    keep_alive: Annotated[KeepAlive, Honoured("0, where nothing is asked, unloads the model.")] = None
    session_id: Annotated[str | None, Honoured("Not Ollama's: the engine session to ask in.")] = None


@attrs.frozen(kw_only=True)
class IgnoredByGenerate(IgnoredByAll):
    """What only a prompt has."""

    context: list[Integer] | None = None
    images: Annotated[list[str] | None, Ignored("Only text can be asked.")] = None
    system: Annotated[str | None, Ignored("The engine has its own instructions.")] = None
    template: Annotated[str | None, Ignored("No template is ever applied.")] = None


@attrs.frozen(kw_only=True)
class GenerateRequest(IgnoredByGenerate):
    """``POST /api/generate``."""

    model: Annotated[str, Honoured("Required. A name of the model; the answer repeats it.")]
    prompt: Annotated[str | None, Honoured("The question. Without any: load.")] = None
    suffix: Annotated[str | None, Honoured("The text after the gap that the answer is to fill.")] = None
    raw: Annotated[bool | None, Honoured("The prompt goes to the engine as it is, with this and without.")] = None
    stream: Annotated[bool | None, Honoured("The answer comes in lines, as it is written. Default: true.")] = None
    options: Annotated[Options | None, Honoured()] = None
    keep_alive: Annotated[KeepAlive, Honoured("0, where nothing is asked, unloads the model.")] = None
    session_id: Annotated[str | None, Honoured("Not Ollama's: the engine session to ask in.")] = None


@attrs.frozen(kw_only=True)
class IgnoredByShow(Parameters):
    """What schema ``ShowRequest`` and the struct of this name list, and has no effect."""

    options: Options | None = None
    system: str | None = None
    template: str | None = None
    verbose: Annotated[bool | None, Ignored("There is nothing more to tell.")] = None


@attrs.frozen(kw_only=True)
class ShowRequest(IgnoredByShow):
    """``POST /api/show``."""

    model: Annotated[str | None, Honoured("Required, unless there is a `name`: a name of the model.")] = None
    name: Annotated[str | None, Honoured("The same, by its older name.")] = None
