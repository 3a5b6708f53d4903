"""Chat messages of all dialects: extract the question and the turns before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from brunix_twisted import errors
from brunix_twisted.errors import GatewayError
from brunix_twisted.model import Turn

# Instructions for the model. They are not sent to the engine, so no engine session contains them.
_INSTRUCTIONS = frozenset({"system", "developer"})

# The types of a text part, in all APIs.
_TEXT = frozenset({"text", "input_text", "output_text", None})


class Message(Protocol):
    """A message of any API."""

    @property
    def role(self) -> str:
        """The author's role."""

    @property
    def content(self) -> Any:  # noqa: ANN401 - a text, a part, a list of parts, or None; read by text_of
        """The message's content."""


def text_of(content: Any) -> str:  # noqa: ANN401 - see Message.content
    """
    Return the text of a message's content, without parts that are not text.

    Parts are separate blocks, such as a file and a question about it, so they are joined by line breaks.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    return "\n".join(part.text for part in parts if part.text is not None and part.type in _TEXT)


def texts_of(content: Any) -> list[str]:  # noqa: ANN401 - see Message.content
    """Return the texts of a message's content, one for each part that is text."""
    if isinstance(content, list):
        return [part.text for part in content if part.text is not None and part.type in _TEXT]
    return [text] if (text := text_of(content)) else []


def is_reminder(part: Any) -> bool:  # noqa: ANN401 - a part of a message; see Message.content
    """Whether a part is a reminder for the model and not text of the user, as Claude Code and Qwen Code send them."""
    text = (part.text or "").strip()
    return text.startswith("<system-reminder>") and text.endswith("</system-reminder>")


def without_reminders(content: Any) -> Any:  # noqa: ANN401 - see Message.content
    """Return a user message's content without the parts that are reminders."""
    return [part for part in content if not is_reminder(part)] if isinstance(content, list) else content


def _is_asked(message: Message) -> bool:
    """Whether a message is the user's. One with reminders alone is the client's, like a system message."""
    content = message.content
    return message.role == "user" and not (isinstance(content, list) and content and all(map(is_reminder, content)))


def instructions(messages: Sequence[Message]) -> tuple[str, ...]:
    """Return the texts of the messages that are instructions for the model, one for each part."""
    return tuple(text for message in messages if message.role in _INSTRUCTIONS for text in texts_of(message.content))


def question(messages: Sequence[Message], parameter: str = "messages") -> tuple[str, tuple[Turn, ...] | None]:
    """
    Return the text of the last user message, and the turns before it.

    The turns are the questions and answers in the messages; an answer without a question, such as a greeting, is a turn
    too. Instructions, reminders, tool calls and their results are not: no engine session contains them. If an answer or
    a result comes after the question, there are no turns (None): the question has been asked before.

    :param parameter: name of the request's parameter, for errors.
    :raises GatewayError: INVALID_REQUEST if there is no user message, or the last one has no text.
    """
    positions = [index for index, message in enumerate(messages) if _is_asked(message)]
    if not positions:
        raise GatewayError(
            errors.INVALID_REQUEST,
            f"'{parameter}' must contain a message with the role 'user', whose text is the question",
            param=parameter,
        )
    last = positions[-1]
    query = text_of(without_reminders(messages[last].content))
    if not query.strip():
        raise GatewayError(
            errors.INVALID_REQUEST,
            "The last user message has no text. Only text is supported.",
            param=f"{parameter}[{last}].content",
        )
    answered = any(message.role not in {*_INSTRUCTIONS, "user"} for message in messages[last + 1 :])
    return query, None if answered else _turns(messages[:last])


def _turns(messages: Sequence[Message]) -> tuple[Turn, ...]:
    turns = []
    question = ""
    for message in messages:
        if _is_asked(message):
            # Of several in a row, the engine has received only the last. The others are a preface of the client, or
            # questions without an answer, and are in no session.
            question = text_of(without_reminders(message.content)) or question
        elif message.role == "assistant" and (answer := text_of(message.content)):
            # Without a question it is a greeting, or a note of the client's.
            turns.append(Turn(question, answer))
            question = ""
    return tuple(turns)


def with_gap(prompt: str, suffix: str | None) -> str:
    """
    Join the prompt and the suffix of an editor's completion to one question.

    The engine accepts one text, so ``<gap>`` marks the gap.
    """
    return f"{prompt}<gap>{suffix}" if suffix else prompt


def all_text(messages: Sequence[Message]) -> str:
    """Join the text of all messages."""
    return "\n".join(text_of(message.content) for message in messages)
