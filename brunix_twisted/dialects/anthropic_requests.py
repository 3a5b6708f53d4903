"""
The request bodies of Anthropic's API, with the types of its Python SDK (2.12.0), including beta parameters.

Editors and agents send beta parameters by default, and their names change with each release. See
:mod:`brunix_twisted.dialects.openai_requests` for what is checked.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from brunix_twisted.dialects.decode import Element, Integer
from brunix_twisted.dialects.parameters import Honoured, Ignored, Parameters, Refused

# Messages.


class Block(Element, frozen=True):
    """
    A block of a message's content.

    The SDK has about thirty types. Only text is used. A tool's result has ``content``. Of other types (images,
    thinking, tool calls), only the ``type`` is read.
    """

    type: str | None = None
    text: str | None = None
    content: Content = None


Content = str | list[Block] | Block | None
"""Text, or blocks."""


class Message(Element, frozen=True):
    """One message of a conversation."""

    role: Literal["user", "assistant", "system"]
    content: Content = None


# Objects inside a request.


class CacheControl(Element, frozen=True, kw_only=True):
    """Options for caching the prompt."""

    type: str | None = None
    ttl: str | None = None


class ContextEdits(Element, frozen=True, kw_only=True):
    """What to remove from a long conversation."""

    edits: list[dict[str, Any]] | None = None


class Metadata(Element, frozen=True, kw_only=True):
    """The end user's id."""

    user_id: str | None = None


class OutputConfig(Element, frozen=True, kw_only=True):
    """The effort, and the format of the answer."""

    effort: str | None = None
    format: dict[str, Any] | None = None
    task_budget: dict[str, Any] | None = None


class Thinking(Element, frozen=True, kw_only=True):
    """Options for thinking."""

    type: str | None = None
    budget_tokens: Integer | None = None
    display: str | None = None


class Thread(Element, frozen=True, kw_only=True):
    """A conversation that the server stores."""

    type: str | None = None
    previous_message_id: str | None = None


class AnthropicTool(Element, frozen=True, kw_only=True):
    """A tool of the client or the server."""

    type: str | None = None
    name: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None


class AnthropicToolChoice(Element, frozen=True, kw_only=True):
    """Whether to call a tool, and which one."""

    type: str | None = None
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


# The bodies.


class IgnoredByBoth(Parameters, frozen=True, kw_only=True):
    """Parameters of both endpoints without a counterpart in the engine."""

    billing_policy: dict[str, Any] | None = None
    cache_control: CacheControl | None = None
    context_management: ContextEdits | None = None
    mcp_servers: Annotated[list[dict[str, Any]] | None, Ignored("Tools are never called.")] = None
    output_config: OutputConfig | None = None
    output_format: dict[str, Any] | None = None
    speed: str | None = None
    thinking: Annotated[Thinking | None, Ignored("The engine returns no reasoning.")] = None
    tools: Annotated[list[AnthropicTool] | None, Ignored("Tools are never called.")] = None


class IgnoredByMessages(IgnoredByBoth, frozen=True, kw_only=True):
    """Ignored parameters of ``/v1/messages``. The last three are no longer in the SDK, but many clients send them."""

    container: str | dict[str, Any] | None = None
    diagnostics: dict[str, Any] | None = None
    fallback_credit_token: str | dict[str, Any] | None = None
    fallbacks: str | list[dict[str, Any]] | None = None
    inference_geo: str | None = None
    metadata: Annotated[Metadata | None, Ignored()] = None
    output_config: Annotated[OutputConfig | None, Ignored("Answers are plain text. A `format` is refused.")] = None
    output_format: Annotated[dict[str, Any] | None, Refused("Refused: answers are plain text.")] = None
    service_tier: str | None = None
    temperature: float | None = None
    top_k: Integer | None = None
    top_p: float | None = None


class MessagesRequest(IgnoredByMessages, frozen=True, kw_only=True):
    """``POST /v1/messages``."""

    model: Annotated[str, Honoured("Required. A name of the model; the answer repeats it.")]
    messages: Annotated[
        list[Message],
        Honoured("Required. The last user message is the question. The turns before it identify the session."),
    ]
    stream: Annotated[bool | None, Honoured("Stream the answer as Server-Sent Events. Default: false.")] = None
    max_tokens: Annotated[
        Integer | None, Honoured("Maximum number of tokens in the answer. Optional; the default is no limit.")
    ] = None
    system: Annotated[
        Content, Honoured("The system prompt, as `PROXY_SYSTEM_PROMPT` says; ignored by default. Counted as tokens.")
    ] = None
    stop_sequences: Annotated[list[str] | None, Honoured("The answer ends before the first of these texts.")] = None
    tool_choice: Annotated[
        AnthropicToolChoice | None, Refused("Values that require a tool call are refused: `any` and `tool`.")
    ] = None
    thread: Annotated[
        Thread | None, Refused("Continuing a thread is refused. Use `session_id` to continue a conversation.")
    ] = None
    compaction: Annotated[dict[str, Any] | None, Refused("Refused: the conversation is not summarised.")] = None
    session_id: Annotated[str | None, Honoured("Not Anthropic's: the engine session.")] = None


class CountTokensRequest(IgnoredByBoth, frozen=True, kw_only=True):
    """``POST /v1/messages/count_tokens``."""

    model: Annotated[str, Honoured("Required. A name of the model.")]
    messages: Annotated[list[Message], Honoured("Required. Their text is counted.")]
    system: Annotated[Content, Honoured("Its text is counted too.")] = None
    compaction: dict[str, Any] | None = None
    tool_choice: AnthropicToolChoice | None = None


def requires_tool(request: MessagesRequest) -> bool:
    """Whether a request requires a tool call."""
    choice = request.tool_choice
    return choice is not None and (choice.type not in {"auto", "none", None} or choice.name is not None)
