"""
The request bodies of Anthropic's API, by the types that its Python SDK (2.12.0) has for them, the beta ones included.

Its editors and agents send beta parameters unasked, under whatever names the last release brought. See
:mod:`brunix_twisted.dialects.openai_requests` for what is checked and what is not.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import attrs

from brunix_twisted.dialects.decode import Element, Integer
from brunix_twisted.dialects.parameters import Honoured, Ignored, Parameters, Refused

# Messages.


class Block(Element, frozen=True):
    """
    A piece of a message's content.

    The SDK has some thirty types of them. Only text says something here; a tool's result has content of its own, and
    what is neither (an image, a thought, the call of a tool) is known by its ``type`` only.
    """

    type: str | None = None
    text: str | None = None
    content: Content = None


Content = str | list[Block] | Block | None
"""Text, alone or in blocks."""


class Message(Element, frozen=True):
    """One message of a conversation."""

    role: Literal["user", "assistant", "system"]
    content: Content = None


# Objects inside a request.


@attrs.frozen(kw_only=True)
class CacheControl:
    """Up to where a prompt is kept, and how long."""

    type: str | None = None
    ttl: str | None = None


@attrs.frozen(kw_only=True)
class ContextEdits:
    """What to leave out of a long conversation."""

    edits: list[dict[str, Any]] | None = None


@attrs.frozen(kw_only=True)
class Metadata:
    """Who asks."""

    user_id: str | None = None


@attrs.frozen(kw_only=True)
class OutputConfig:
    """How hard to try, and in which form to answer."""

    effort: str | None = None
    format: dict[str, Any] | None = None
    task_budget: dict[str, Any] | None = None


@attrs.frozen(kw_only=True)
class Thinking:
    """Whether to think, how much, and what to show of it."""

    type: str | None = None
    budget_tokens: Integer | None = None
    display: str | None = None


@attrs.frozen(kw_only=True)
class Thread:
    """A conversation that the server keeps."""

    type: str | None = None
    previous_message_id: str | None = None


@attrs.frozen(kw_only=True)
class AnthropicTool:
    """A tool, the caller's or the server's."""

    type: str | None = None
    name: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None


@attrs.frozen(kw_only=True)
class AnthropicToolChoice:
    """Whether to call a tool, or which."""

    type: str | None = None
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


# The bodies.


@attrs.frozen(kw_only=True)
class IgnoredByBoth(Parameters):
    """What both endpoints list and the engine has no counterpart for."""

    billing_policy: dict[str, Any] | None = None
    cache_control: CacheControl | None = None
    context_management: ContextEdits | None = None
    mcp_servers: Annotated[list[dict[str, Any]] | None, Ignored("No tool is ever called.")] = None
    output_config: OutputConfig | None = None
    output_format: dict[str, Any] | None = None
    speed: str | None = None
    system: Annotated[Content, Ignored("The engine has its own instructions; these count among the tokens.")] = None
    thinking: Annotated[Thinking | None, Ignored("The engine's thoughts are its own.")] = None
    tools: Annotated[list[AnthropicTool] | None, Ignored("No tool is ever called.")] = None


@attrs.frozen(kw_only=True)
class IgnoredByMessages(IgnoredByBoth):
    """What only an answer has. The last three are no longer in the SDK, but many clients send them."""

    container: str | dict[str, Any] | None = None
    diagnostics: dict[str, Any] | None = None
    fallback_credit_token: str | dict[str, Any] | None = None
    fallbacks: str | list[dict[str, Any]] | None = None
    inference_geo: str | None = None
    metadata: Annotated[Metadata | None, Ignored("Who asks is the caller's own affair.")] = None
    output_config: Annotated[
        OutputConfig | None, Ignored("Answers are text in the engine's own form. A `format` is refused.")
    ] = None
    output_format: Annotated[dict[str, Any] | None, Refused("Refused: answers are text in the engine's own form.")] = (
        None
    )
    service_tier: str | None = None
    temperature: float | None = None
    top_k: Integer | None = None
    top_p: float | None = None


@attrs.frozen(kw_only=True)
class MessagesRequest(IgnoredByMessages):
    """``POST /v1/messages``."""

    model: Annotated[str, Honoured("Required. A name of the model; the answer repeats it.")]
    messages: Annotated[
        list[Message],
        Honoured("Required. The last user message is the question; the turns before it find its session."),
    ]
    stream: Annotated[bool | None, Honoured("The answer comes in events, as it is written. Default: false.")] = None
    max_tokens: Annotated[
        Integer | None, Honoured("The answer ends after this many tokens. May be left out: no limit.")
    ] = None
    stop_sequences: Annotated[list[str] | None, Honoured("The answer ends before the first of these texts.")] = None
    tool_choice: Annotated[
        AnthropicToolChoice | None, Refused("A choice that demands a tool is refused: `any`, or `tool`.")
    ] = None
    thread: Annotated[
        Thread | None, Refused("One that is continued is refused; `session_id` goes on with a conversation.")
    ] = None
    compaction: Annotated[
        dict[str, Any] | None, Refused("Refused: it asks for a summary of the conversation, which is never made.")
    ] = None
    session_id: Annotated[str | None, Honoured("Not Anthropic's: the engine session to ask in.")] = None


@attrs.frozen(kw_only=True)
class CountTokensRequest(IgnoredByBoth):
    """``POST /v1/messages/count_tokens``."""

    model: Annotated[str, Honoured("Required. A name of the model.")]
    messages: Annotated[list[Message], Honoured("Required. Their text is counted.")]
    system: Annotated[Content, Honoured("Its text is counted, too.")] = None
    compaction: dict[str, Any] | None = None
    tool_choice: AnthropicToolChoice | None = None


def demands_tool(request: MessagesRequest) -> bool:
    """Say whether a request demands that a tool be called."""
    choice = request.tool_choice
    return choice is not None and (choice.type not in {"auto", "none", None} or choice.name is not None)
