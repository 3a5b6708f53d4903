"""
The request bodies of OpenAI's API, with the types of its OpenAPI document.

Each parameter of the document is a field, so a value of the wrong type is rejected even if the parameter has no
effect. Nested objects (tools, schemas) are typed one level deep. Ranges and enumerations (``temperature`` up to 2, the
service tiers) are not checked for parameters without effect: they change with each model.

The type of a field declares how the parameter is treated, and the reference page is generated from it. A parameter
without a declaration is ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from brunix_twisted.dialects.decode import Element, Integer
from brunix_twisted.dialects.parameters import Honoured, Ignored, Parameters, Refused

# Messages. Ollama's have the same roles and contents.

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]


class Part(Element, frozen=True):
    """A part of a message's content. Of an image, a file or a sound, only the ``type`` is read."""

    type: str | None = None
    text: str | None = None


Content = str | list[Part] | Part | None
"""Text, or parts. The document does not list a single part without a list, but clients send it."""


class Message(Element, frozen=True):
    """
    One message of a chat.

    The document has a schema for each role; this class combines them. Clients send an assistant's answer back with all
    of its keys, null or not, and a tool's result with one of two roles.
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


class Tool(Element, frozen=True, kw_only=True):
    """A tool: a function or a custom tool."""

    type: str | None = None
    function: dict[str, Any] | None = None
    custom: dict[str, Any] | None = None


class AllowedTools(Element, frozen=True, kw_only=True):
    """A selection of the tools."""

    mode: str | None = None
    tools: list[dict[str, Any]] | None = None


class ToolChoice(Element, frozen=True, kw_only=True):
    """The choice of one tool by name, or of several tools."""

    type: str | None = None
    function: dict[str, Any] | None = None
    custom: dict[str, Any] | None = None
    allowed_tools: AllowedTools | None = None


class Function(Element, frozen=True, kw_only=True):
    """A function in the deprecated ``functions``, or the choice of one by name."""

    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Audio(Element, frozen=True, kw_only=True):
    """Options for spoken answers."""

    voice: str | dict[str, Any] | None = None
    format: str | None = None


class Moderation(Element, frozen=True, kw_only=True):
    """The model and policy for moderation."""

    model: str | None = None
    policy: dict[str, Any] | None = None


class Prediction(Element, frozen=True, kw_only=True):
    """The expected content of the answer."""

    type: str | None = None
    content: str | list[Part] | None = None


class PromptCache(Element, frozen=True, kw_only=True):
    """Options for caching the prompt."""

    ttl: str | None = None
    mode: str | None = None


class JsonSchema(Element, frozen=True, kw_only=True):
    """A JSON schema, and whether the answer must match it."""

    name: str | None = None
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class ResponseFormat(Element, frozen=True, kw_only=True):
    """The format of the answer: text or JSON, and its schema."""

    type: str | None = None
    json_schema: JsonSchema | None = None


class WebSearch(Element, frozen=True, kw_only=True):
    """Options for web search."""

    user_location: dict[str, Any] | None = None
    search_context_size: str | None = None


class StreamOptions(Parameters, frozen=True, kw_only=True):
    """Schema ``ChatCompletionStreamOptions``."""

    include_usage: Annotated[bool | None, Honoured("The stream ends with a chunk that has `usage` and no choices.")] = (
        None
    )

    include_obfuscation: bool | None = None


# The bodies.


class IgnoredByChat(Parameters, frozen=True, kw_only=True):
    """Parameters of schema ``CreateChatCompletionRequest`` without a counterpart in the engine."""

    audio: Annotated[Audio | None, Ignored("Answers are text.")] = None
    frequency_penalty: float | None = None
    functions: Annotated[list[Function] | None, Ignored("Functions are never called.")] = None
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
        Ignored("Answers are plain text. A schema with `strict: true` is refused."),
    ] = None
    safety_identifier: str | None = None
    seed: Integer | None = None
    service_tier: str | None = None
    store: bool | None = None
    temperature: float | None = None
    tools: Annotated[list[Tool] | None, Ignored("Tools are never called.")] = None
    top_logprobs: Integer | None = None
    top_p: float | None = None
    verbosity: str | None = None
    web_search_options: WebSearch | None = None


class ChatRequest(IgnoredByChat, frozen=True, kw_only=True):
    """``POST /v1/chat/completions``."""

    model: Annotated[str, Honoured("Required. A name of the model; the answer repeats it.")]
    messages: Annotated[
        list[Message],
        Honoured("Required. The last user message is the question. The turns before it identify the session."),
    ]
    stream: Annotated[bool | None, Honoured("Stream the answer as Server-Sent Events. Default: false.")] = None
    stream_options: Annotated[StreamOptions | None, Honoured()] = None
    stop: Annotated[
        str | list[str] | None, Honoured("The answer ends before the first of these texts. At most four.")
    ] = None
    max_completion_tokens: Annotated[Integer | None, Honoured("Maximum number of tokens in the answer.")] = None
    max_tokens: Annotated[
        Integer | None, Honoured("The older name of `max_completion_tokens`, which has precedence.")
    ] = None
    n: Annotated[Integer | None, Refused("Values other than 1 are refused.")] = None
    tool_choice: Annotated[
        Literal["none", "auto", "required"] | ToolChoice | None,
        Refused("Values that require a tool call are refused: `required`, or a tool by its name."),
    ] = None
    function_call: Annotated[
        Literal["none", "auto"] | Function | None, Refused("The name of a function is refused.")
    ] = None
    user: Annotated[
        str | None,
        Honoured("The editor's state, if it is a JSON object as text. Other texts have no effect."),
    ] = None
    session_id: Annotated[str | None, Honoured("Not OpenAI's: the engine session.")] = None


def required_tool(request: ChatRequest) -> str | None:
    """
    Return the name of the parameter that requires a tool call, or None.

    A value counts as requiring one unless it is known to leave the choice to the model.
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


class IgnoredByCompletion(Parameters, frozen=True, kw_only=True):
    """Parameters of schema ``CreateCompletionRequest`` without a counterpart in the engine."""

    best_of: Integer | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, Integer] | None = None
    logprobs: Annotated[Integer | None, Ignored("`logprobs` in the answer is null.")] = None
    presence_penalty: float | None = None
    seed: Integer | None = None
    temperature: float | None = None
    top_p: float | None = None
    user: str | None = None


class CompletionsRequest(IgnoredByCompletion, frozen=True, kw_only=True):
    """``POST /v1/completions``."""

    model: Annotated[str, Honoured("Required. A name of the model; the answer repeats it.")]
    prompt: Annotated[
        str | list[str | Integer | list[Integer]] | None,
        Honoured("Required. The question, or a list of questions with one choice each. Token ids are refused."),
    ] = None
    suffix: Annotated[str | None, Honoured("The text after the gap that the answer fills.")] = None
    stream: Annotated[bool | None, Honoured("Stream the answer as Server-Sent Events. Default: false.")] = None
    stream_options: Annotated[StreamOptions | None, Honoured()] = None
    stop: Annotated[
        str | list[str] | None, Honoured("The answer ends before the first of these texts. At most four.")
    ] = None
    max_tokens: Annotated[Integer | None, Honoured("Maximum number of tokens in the answer.")] = None
    echo: Annotated[bool | None, Honoured("The answer begins with the prompt.")] = None
    n: Annotated[Integer | None, Refused("Values other than 1 are refused.")] = None
    session_id: Annotated[str | None, Honoured("Not OpenAI's: the engine session.")] = None
