"""A list of chat messages, as every dialect has one: the question in it, and the turns before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from brunix_twisted import errors
from brunix_twisted.errors import GatewayError
from brunix_twisted.model import Turn

# Instructions to a model of the caller's choice: the engine never sees them, and no engine session holds them.
_INSTRUCTIONS = frozenset({"system", "developer"})

# What a part of a message says it is when it is text, in whichever API.
_TEXT = frozenset({"text", "input_text", "output_text", None})


class Message(Protocol):
    """A message of any of these APIs."""

    @property
    def role(self) -> str:
        """Who says it."""

    @property
    def content(self) -> Any:  # noqa: ANN401 - a text, a part, a list of parts, or None; read by text_of
        """What is said."""


def text_of(content: Any) -> str:  # noqa: ANN401 - see Message.content
    """
    Take the text out of a message's content; parts that are no text are left out.

    Parts stand for separate blocks (a file, then a question about it), so a line break joins them.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    return "\n".join(part.text for part in parts if part.text is not None and part.type in _TEXT)


def question(messages: Sequence[Message], parameter: str = "messages") -> tuple[str, tuple[Turn, ...] | None]:
    """
    Find the text of the last user message, and the turns before it.

    The turns are None when the messages are no plain conversation of questions and answers: an engine session holds
    nothing else, so none can hold these.

    :param parameter: the request's, for the errors.
    :raises GatewayError: INVALID_REQUEST when there is no user message, or no text in the last one.
    """
    positions = [index for index, message in enumerate(messages) if message.role == "user"]
    if not positions:
        raise GatewayError(
            errors.INVALID_REQUEST,
            f"'{parameter}' must contain a message with the role 'user': its text is the question",
            param=parameter,
        )
    last = positions[-1]
    query = text_of(messages[last].content)
    if not query.strip():
        raise GatewayError(
            errors.INVALID_REQUEST,
            "The last user message has no text, and only text can be asked",
            param=f"{parameter}[{last}].content",
        )
    answered = any(message.role not in _INSTRUCTIONS for message in messages[last + 1 :])
    return query, None if answered else _turns(messages[:last])


def _turns(messages: Sequence[Message]) -> tuple[Turn, ...] | None:
    turns = []
    asked: Message | None = None
    for message in messages:
        if message.role == "user":
            # Of several in a row the engine was asked the last: what stands before it is the client's own preface, or
            # a question that was not answered, and neither is in any session.
            asked = message
        elif message.role == "assistant" and asked is not None:
            turns.append(Turn(text_of(asked.content), text_of(message.content)))
            asked = None
        elif message.role not in _INSTRUCTIONS:
            return None
    return tuple(turns)


def with_gap(prompt: str, suffix: str | None) -> str:
    """
    Put a prompt and the text after its gap, as an editor's completion sends them, into one question.

    The engine takes one text, so the gap is marked in it.
    """
    return f"{prompt}<gap>{suffix}" if suffix else prompt


def all_text(messages: Sequence[Message]) -> str:
    """Join everything that was said, whoever said it."""
    return "\n".join(text_of(message.content) for message in messages)
