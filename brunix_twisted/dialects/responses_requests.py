"""
The request body of OpenAI's Responses, by the type that its OpenAPI document (2.3.0) gives it.

The document lists nearly thirty types of items that a conversation may hold, and more with each release: an agent sends
back whatever it was sent and whatever its tools did. Only messages and references to earlier ones mean something here,
so all items are read by one type, which has the keys of those two.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import attrs

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
    """One item of the input: a message, a reference to an earlier item, or a trace of something else."""

    type: str | None = None
    id: str | None = None
    role: Role | None = None
    content: Content = None

    @property
    def is_message(self) -> bool:
        """Whether this is a message; its ``type`` may be left out."""
        return self.type == "message" or (self.type is None and self.role is not None)

    @property
    def is_reference(self) -> bool:
        """Whether this stands for an item of an earlier answer; its ``type`` may be left out, too."""
        return self.type == "item_reference" or (self.type is None and self.role is None)


# Objects inside a request.


@attrs.frozen(kw_only=True)
class ContextManagement:
    """When to shorten the conversation."""

    type: str | None = None
    compact_threshold: Integer | None = None


@attrs.frozen(kw_only=True)
class StoredPrompt:
    """A template of the caller's, by its id."""

    id: str | None = None
    version: str | None = None
    variables: dict[str, Any] | None = None


@attrs.frozen(kw_only=True)
class Reasoning:
    """How much to think, and what to show of it."""

    mode: str | None = None
    effort: str | None = None
    summary: str | None = None
    context: str | None = None
    generate_summary: str | None = None


@attrs.frozen(kw_only=True)
class TextFormat(JsonSchema):
    """Text or JSON, and which JSON."""

    type: str | None = None


@attrs.frozen(kw_only=True)
class TextConfig:
    """Text or JSON, which JSON, and at which length."""

    format: TextFormat | None = None
    verbosity: str | None = None


@attrs.frozen(kw_only=True)
class ResponseTool:
    """A tool of any kind."""

    type: str | None = None
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None


@attrs.frozen(kw_only=True)
class ResponseToolChoice(AllowedTools):
    """One tool by its name or its type, or a selection of tools."""

    type: str | None = None
    name: str | None = None
    server_label: str | None = None


@attrs.frozen(kw_only=True)
class ResponseStreamOptions(Parameters):
    """``stream_options``."""

    include_obfuscation: bool | None = None


# The body.


@attrs.frozen(kw_only=True)
class IgnoredByResponses(Parameters):
    """
    What schema ``CreateResponse`` lists and the engine has no counterpart for.

    The two penalties are only in Open Responses, the specification that other vendors share.
    """

    background: Annotated[bool | None, Ignored("The request is answered as any other, by the complete answer.")] = None
    context_management: list[ContextManagement] | None = None
    frequency_penalty: float | None = None
    include: list[str] | None = None
    instructions: Annotated[
        str | None, Ignored("The engine has its own instructions; these count among the tokens.")
    ] = None
    max_tool_calls: Annotated[Integer | None, Ignored("No tool is ever called.")] = None
    moderation: Moderation | None = None
    parallel_tool_calls: Annotated[bool | None, Ignored("No tool is ever called.")] = None
    presence_penalty: float | None = None
    prompt: Annotated[
        StoredPrompt | None, Ignored("No templates are stored: without an `input` beside it, it is refused.")
    ] = None
    prompt_cache_key: str | None = None
    prompt_cache_options: PromptCache | None = None
    prompt_cache_retention: str | None = None
    reasoning: Annotated[Reasoning | None, Ignored("The engine's thoughts are its own.")] = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    temperature: float | None = None
    text: Annotated[
        TextConfig | None,
        Ignored("Answers are text in the engine's own form. A `format` with `strict: true` is refused."),
    ] = None
    tools: Annotated[list[ResponseTool] | None, Ignored("No tool is ever called.")] = None
    top_logprobs: Annotated[Integer | None, Ignored("`logprobs` in the answer is empty.")] = None
    top_p: float | None = None
    truncation: Annotated[Literal["auto", "disabled"] | None, Ignored()] = None


@attrs.frozen(kw_only=True)
class ResponsesRequest(IgnoredByResponses):
    """``POST /v1/responses``."""

    model: Annotated[str, Honoured("Required. A name of the model; the answer repeats it.")]
    input: Annotated[
        str | list[Item] | None,
        Honoured("Required. The question, or a conversation whose last user message is the question."),
    ] = None
    stream: Annotated[bool | None, Honoured("The answer comes in events, as it is written. Default: false.")] = None
    stream_options: Annotated[ResponseStreamOptions | None, Honoured()] = None
    max_output_tokens: Annotated[Integer | None, Honoured("The answer ends after this many tokens.")] = None
    previous_response_id: Annotated[
        str | None, Honoured("The id of an earlier answer, whose conversation the question goes on with.")
    ] = None
    store: Annotated[
        bool | None,
        Honoured("False: the answer is not kept to be had again, only the session it was in. Default: true."),
    ] = None
    metadata: Annotated[
        dict[str, str] | None,
        Honoured("Repeated in the answer: up to 16 texts of up to 512 characters, under names of up to 64."),
    ] = None
    conversation: Annotated[
        str | dict[str, Any] | None,
        Refused("Refused: no conversations are stored; `previous_response_id` or `session_id` goes on with one."),
    ] = None
    tool_choice: Annotated[
        Literal["none", "auto", "required"] | ResponseToolChoice | None,
        Refused("A choice that demands a tool is refused: `required`, or a tool by its name or type."),
    ] = None
    user: Annotated[
        str | None,
        Honoured(
            "A JSON object in this string carries the editor's state to the engine; any other text is the caller's own."
        ),
    ] = None
    session_id: Annotated[str | None, Honoured("Not OpenAI's: the engine session to ask in.")] = None


def demands_tool(request: ResponsesRequest) -> bool:
    """Say whether a request demands that a tool be called."""
    choice = request.tool_choice
    if isinstance(choice, ResponseToolChoice):
        if choice.type == "allowed_tools":
            return choice.mode == "required"
        return choice.name is not None or choice.type not in {"none", "auto", None}
    return choice == "required"
