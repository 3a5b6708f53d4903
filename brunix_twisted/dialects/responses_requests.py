"""
The request body of OpenAI's Responses API, with the types of its OpenAPI document (2.3.0).

The document lists nearly thirty types of items in a conversation, and more with each release: agents send back answers,
tool calls and results. The gateway uses only messages and references to earlier ones, so one type with the keys of
these two decodes all items.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from brunix_twisted.dialects.decode import Element, Integer
from brunix_twisted.dialects.openai_requests import (
    AllowedTools,
    Content,
    JsonSchema,
    Moderation,
    PromptCache,
    Role,
)
from brunix_twisted.dialects.parameters import Honoured, Ignored, Parameters, Refused


class Item(Element, frozen=True):
    """One item of the input: a message, a reference to an earlier item, or something else."""

    type: str | None = None
    id: str | None = None
    role: Role | None = None
    content: Content = None

    @property
    def is_message(self) -> bool:
        """Whether this is a message. Its ``type`` is optional."""
        return self.type == "message" or (self.type is None and self.role is not None)

    @property
    def is_reference(self) -> bool:
        """Whether this is a reference to an item of an earlier answer. Its ``type`` is optional."""
        return self.type == "item_reference" or (self.type is None and self.role is None)


# Objects inside a request.


class ContextManagement(Element, frozen=True, kw_only=True):
    """When to shorten the conversation."""

    type: str | None = None
    compact_threshold: Integer | None = None


class StoredPrompt(Element, frozen=True, kw_only=True):
    """A reference to a stored template."""

    id: str | None = None
    version: str | None = None
    variables: dict[str, Any] | None = None


class Reasoning(Element, frozen=True, kw_only=True):
    """Options for reasoning."""

    mode: str | None = None
    effort: str | None = None
    summary: str | None = None
    context: str | None = None
    generate_summary: str | None = None


class TextFormat(JsonSchema, frozen=True, kw_only=True):
    """The format of the answer: text or JSON, and its schema."""

    type: str | None = None


class TextConfig(Element, frozen=True, kw_only=True):
    """The format and the verbosity of the answer."""

    format: TextFormat | None = None
    verbosity: str | None = None


class ResponseTool(Element, frozen=True, kw_only=True):
    """A tool of any kind."""

    type: str | None = None
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ResponseToolChoice(AllowedTools, frozen=True, kw_only=True):
    """The choice of one tool by name or type, or of several tools."""

    type: str | None = None
    name: str | None = None
    server_label: str | None = None


class ResponseStreamOptions(Parameters, frozen=True, kw_only=True):
    """``stream_options``."""

    include_obfuscation: bool | None = None


# The body.


class IgnoredByResponses(Parameters, frozen=True, kw_only=True):
    """
    Parameters of schema ``CreateResponse`` without a counterpart in the engine.

    The two penalties are only in Open Responses, the specification of other vendors.
    """

    background: Annotated[bool | None, Ignored("The response contains the complete answer.")] = None
    context_management: list[ContextManagement] | None = None
    frequency_penalty: float | None = None
    include: list[str] | None = None
    instructions: Annotated[
        str | None,
        Honoured("The system prompt, as `PROXY_SYSTEM_PROMPT` says; ignored by default. Counted as tokens."),
    ] = None
    max_tool_calls: Annotated[Integer | None, Ignored("Tools are never called.")] = None
    moderation: Moderation | None = None
    parallel_tool_calls: Annotated[bool | None, Ignored("Tools are never called.")] = None
    presence_penalty: float | None = None
    prompt: Annotated[StoredPrompt | None, Ignored("Templates are not stored. Without `input`, it is refused.")] = None
    prompt_cache_key: str | None = None
    prompt_cache_options: PromptCache | None = None
    prompt_cache_retention: str | None = None
    reasoning: Annotated[Reasoning | None, Ignored("The engine returns no reasoning.")] = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    temperature: float | None = None
    text: Annotated[
        TextConfig | None,
        Ignored("Answers are plain text. A `format` with `strict: true` is refused."),
    ] = None
    tools: Annotated[list[ResponseTool] | None, Ignored("Tools are never called.")] = None
    top_logprobs: Annotated[Integer | None, Ignored("`logprobs` in the answer is empty.")] = None
    top_p: float | None = None
    truncation: Annotated[Literal["auto", "disabled"] | None, Ignored()] = None


class ResponsesRequest(IgnoredByResponses, frozen=True, kw_only=True):
    """``POST /v1/responses``."""

    model: Annotated[str, Honoured("Required. A name of the model; the answer repeats it.")]
    input: Annotated[
        str | list[Item] | None,
        Honoured("Required. The question, or a conversation whose last user message is the question."),
    ] = None
    stream: Annotated[bool | None, Honoured("Stream the answer as Server-Sent Events. Default: false.")] = None
    stream_options: Annotated[ResponseStreamOptions | None, Honoured()] = None
    max_output_tokens: Annotated[Integer | None, Honoured("Maximum number of tokens in the answer.")] = None
    previous_response_id: Annotated[
        str | None, Honoured("The id of an earlier answer; the question continues its conversation.")
    ] = None
    store: Annotated[
        bool | None,
        Honoured("With false, the answer cannot be retrieved; its session is kept. Default: true."),
    ] = None
    metadata: Annotated[
        dict[str, str] | None,
        Honoured("Repeated in the answer. At most 16 entries, with names of 64 and texts of 512 characters."),
    ] = None
    conversation: Annotated[
        str | dict[str, Any] | None,
        Refused("Refused. Use `previous_response_id` or `session_id` to continue a conversation."),
    ] = None
    tool_choice: Annotated[
        Literal["none", "auto", "required"] | ResponseToolChoice | None,
        Refused("Values that require a tool call are refused: `required`, or a tool by its name or type."),
    ] = None
    user: Annotated[
        str | None,
        Honoured("The editor's state, if it is a JSON object as text. Other texts have no effect."),
    ] = None
    session_id: Annotated[str | None, Honoured("Not OpenAI's: the engine session.")] = None


def requires_tool(request: ResponsesRequest) -> bool:
    """Whether a request requires a tool call."""
    choice = request.tool_choice
    if isinstance(choice, ResponseToolChoice):
        if choice.type == "allowed_tools":
            return choice.mode == "required"
        return choice.name is not None or choice.type not in {"none", "auto", None}
    return choice == "required"
