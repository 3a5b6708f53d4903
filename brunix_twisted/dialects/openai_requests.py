"""
The request bodies of OpenAI's API, by the types that its OpenAPI document gives them.

Every parameter that the document lists for an endpoint is a field here, so that a value of the wrong type is refused
whether or not the parameter has an effect. Where the document goes into depth (tools, schemas) the types follow it one
level down. Ranges and lists of words (``temperature`` up to 2, the service tiers) are not held for a parameter without
effect: they change with each model, and nothing here depends on them.

How a parameter is treated stands in its type, from where the reference page takes it; one that says nothing is ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import attrs

from brunix_twisted.dialects.decode import Element, Integer
from brunix_twisted.dialects.parameters import Honoured, Ignored, Parameters, Refused

# Messages. This API and Ollama's differ in what surrounds the text, not in the text.

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]


class Part(Element, frozen=True):
    """A piece of a message's content. What is no text (an image, a file, a sound) is known by its ``type`` only."""

    type: str | None = None
    text: str | None = None


Content = str | list[Part] | Part | None
"""Text, alone or in parts. A part without a list around it is none of the document's forms, but clients send it."""


class Message(Element, frozen=True):
    """
    One message of a chat.

    The document has a schema for each role. This is all of them in one: clients send an assistant's answer back with
    every key it had, null or not, and a tool's result under either of two roles.
    """

    role: Role
    content: Content = None
    name: str | None = None
    refusal: str | None = None
    audio: dict[str, Any] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    function_call: dict[str, Any] | None = None


# Objects inside a request.


@attrs.frozen(kw_only=True)
class Tool:
    """A tool, of either kind."""

    type: str | None = None
    function: dict[str, Any] | None = None
    custom: dict[str, Any] | None = None


@attrs.frozen(kw_only=True)
class AllowedTools:
    """A selection of the tools."""

    mode: str | None = None
    tools: list[dict[str, Any]] | None = None


@attrs.frozen(kw_only=True)
class ToolChoice:
    """One tool by its name, or a selection of tools."""

    type: str | None = None
    function: dict[str, Any] | None = None
    custom: dict[str, Any] | None = None
    allowed_tools: AllowedTools | None = None


@attrs.frozen(kw_only=True)
class Function:
    """A function, in the way before there were tools; or the choice of one by its name."""

    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None


@attrs.frozen(kw_only=True)
class Audio:
    """How to speak the answer."""

    voice: str | dict[str, Any] | None = None
    format: str | None = None


@attrs.frozen(kw_only=True)
class Moderation:
    """By which model and policy to judge the request."""

    model: str | None = None
    policy: dict[str, Any] | None = None


@attrs.frozen(kw_only=True)
class Prediction:
    """What the answer is expected to say."""

    type: str | None = None
    content: str | list[Part] | None = None


@attrs.frozen(kw_only=True)
class PromptCache:
    """How long a prompt is kept."""

    ttl: str | None = None
    mode: str | None = None


@attrs.frozen(kw_only=True)
class JsonSchema:
    """Which JSON, and whether the answer has to be of it."""

    name: str | None = None
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


@attrs.frozen(kw_only=True)
class ResponseFormat:
    """Text or JSON, and which JSON."""

    type: str | None = None
    json_schema: JsonSchema | None = None


@attrs.frozen(kw_only=True)
class WebSearch:
    """Where and how much to search."""

    user_location: dict[str, Any] | None = None
    search_context_size: str | None = None


@attrs.frozen(kw_only=True)
class StreamOptions(Parameters):
    """Schema ``ChatCompletionStreamOptions``."""

    include_usage: Annotated[bool | None, Honoured("The stream's last chunk carries `usage`, and no choice.")] = None

    include_obfuscation: bool | None = None


# The bodies.


@attrs.frozen(kw_only=True)
class IgnoredByChat(Parameters):
    """What schema ``CreateChatCompletionRequest`` lists and the engine has no counterpart for."""

    audio: Annotated[Audio | None, Ignored("Answers are text.")] = None
    frequency_penalty: float | None = None
    functions: Annotated[list[Function] | None, Ignored("No function is ever called.")] = None
    logit_bias: dict[str, Integer] | None = None
    logprobs: Annotated[bool | None, Ignored("`logprobs` in the answer is null.")] = None
    metadata: dict[str, str] | None = None
    modalities: Annotated[list[str] | None, Ignored("Answers are text.")] = None
    moderation: Moderation | None = None
    parallel_tool_calls: bool | None = None
    prediction: Prediction | None = None
    presence_penalty: float | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: PromptCache | None = None
    prompt_cache_retention: str | None = None
    reasoning_effort: str | None = None
    response_format: Annotated[
        ResponseFormat | None,
        Ignored("Answers are text in the engine's own form. A schema with `strict: true` is refused."),
    ] = None
    safety_identifier: str | None = None
    seed: Integer | None = None
    service_tier: str | None = None
    store: bool | None = None
    temperature: float | None = None
    tools: Annotated[list[Tool] | None, Ignored("No tool is ever called.")] = None
    top_logprobs: Integer | None = None
    top_p: float | None = None
    verbosity: str | None = None
    web_search_options: WebSearch | None = None


@attrs.frozen(kw_only=True)
class ChatRequest(IgnoredByChat):
    """``POST /v1/chat/completions``."""

    model: Annotated[str, Honoured("Required. A name of the model; the answer repeats it.")]
    messages: Annotated[
        list[Message],
        Honoured("Required. The last user message is the question; the turns before it find its session."),
    ]
    stream: Annotated[bool | None, Honoured("The answer comes in events, as it is written. Default: false.")] = None
    stream_options: Annotated[StreamOptions | None, Honoured()] = None
    stop: Annotated[
        str | list[str] | None, Honoured("The answer ends before the first of these texts; up to four.")
    ] = None
    max_completion_tokens: Annotated[Integer | None, Honoured("The answer ends after this many tokens.")] = None
    max_tokens: Annotated[
        Integer | None, Honoured("The same, by its older name; `max_completion_tokens` goes before it.")
    ] = None
    n: Annotated[Integer | None, Refused("Any number but 1 is refused: a question has one answer.")] = None
    tool_choice: Annotated[
        Literal["none", "auto", "required"] | ToolChoice | None,
        Refused("A choice that demands a tool is refused: `required`, or a tool by its name."),
    ] = None
    function_call: Annotated[
        Literal["none", "auto"] | Function | None, Refused("A function by its name is refused.")
    ] = None
    user: Annotated[
        str | None,
        Honoured(
            "A JSON object in this string carries the editor's state to the engine; any other text is the caller's own."
        ),
    ] = None
    session_id: Annotated[str | None, Honoured("Not OpenAI's: the engine session to ask in.")] = None


def demanded_tool(request: ChatRequest) -> str | None:
    """
    Name the parameter by which a request demands that a tool be called, or None.

    What is not known to leave the choice to the model counts as a demand.
    """
    choice = request.tool_choice
    if choice == "required":
        return "tool_choice"
    if isinstance(choice, ToolChoice):
        selection = choice.allowed_tools
        if (
            choice.type not in {"none", "auto", "allowed_tools", None}
            or choice.function is not None
            or choice.custom is not None
            or (selection is not None and selection.mode not in {"auto", None})
        ):
            return "tool_choice"
    return "function_call" if isinstance(request.function_call, Function) else None


@attrs.frozen(kw_only=True)
class IgnoredByCompletion(Parameters):
    """What schema ``CreateCompletionRequest`` lists and the engine has no counterpart for."""

    best_of: Integer | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, Integer] | None = None
    logprobs: Annotated[Integer | None, Ignored("`logprobs` in the answer is null.")] = None
    presence_penalty: float | None = None
    seed: Integer | None = None
    temperature: float | None = None
    top_p: float | None = None
    user: str | None = None


@attrs.frozen(kw_only=True)
class CompletionsRequest(IgnoredByCompletion):
    """``POST /v1/completions``."""

    model: Annotated[str, Honoured("Required. A name of the model; the answer repeats it.")]
    prompt: Annotated[
        str | list[str | Integer | list[Integer]] | None,
        Honoured("Required. The question, or a list of them: one choice each. Token ids are refused."),
    ] = None
    suffix: Annotated[str | None, Honoured("The text after the gap that the answer is to fill.")] = None
    stream: Annotated[bool | None, Honoured("The answer comes in events, as it is written. Default: false.")] = None
    stream_options: Annotated[StreamOptions | None, Honoured()] = None
    stop: Annotated[
        str | list[str] | None, Honoured("The answer ends before the first of these texts; up to four.")
    ] = None
    max_tokens: Annotated[Integer | None, Honoured("The answer ends after this many tokens.")] = None
    echo: Annotated[bool | None, Honoured("The prompt stands before the answer.")] = None
    n: Annotated[Integer | None, Refused("Any number but 1 is refused: a question has one answer.")] = None
    session_id: Annotated[str | None, Honoured("Not OpenAI's: the engine session to ask in.")] = None
