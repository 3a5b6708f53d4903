"""The question in a list of messages, and the conversation before it."""

from __future__ import annotations

import pytest

from brunix_twisted import errors
from brunix_twisted.dialects.messages import all_text, question, text_of
from brunix_twisted.dialects.openai_requests import Content, Message, Part
from brunix_twisted.errors import GatewayError
from brunix_twisted.model import Turn

IMAGE = Part(type="image_url")
SYSTEM = Message(role="system", content="Be brief")
DEVELOPER = Message(role="developer", content="Be kind")
REMINDER = Part(type="text", text="<system-reminder>\nToday is Friday.\n</system-reminder>")
HI = Message(role="user", content="Hi")
HELLO = Message(role="assistant", content="Hello!")
WHY = Message(role="user", content="Why?")
SO = Message(role="assistant", content="So.")
RESULT = Message(role="tool", content="42")
CALL = Message(role="assistant", tool_calls=[{"id": "1"}])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, ""),
        ("", ""),
        (" Hi\n", " Hi\n"),  # as it was written
        ([], ""),
        ([Part(type="text", text="a"), Part(type="text", text="b")], "a\nb"),
        ([Part(type="text", text="a"), IMAGE, Part(type="text", text="b")], "a\nb"),
        (Part(type="text", text="a"), "a"),
        ([Part(type="input_text", text="a"), Part(type="output_text", text="b")], "a\nb"),
        # Only parts that say they are something else are something else.
        ([Part(text="a")], "a"),
        ([Part(type="refusal", text="a")], ""),
        ([Part(type="text")], ""),
        (IMAGE, ""),
    ],
)
def test_text(content: Content, text: str) -> None:
    """A part of a question goes unread, or what is no text is asked as if it were."""
    assert text_of(content) == text


@pytest.mark.parametrize(
    ("messages", "query", "turns"),
    [
        ([HI], "Hi", ()),
        ([HI, HELLO, WHY], "Why?", (Turn("Hi", "Hello!"),)),
        ([HI, HELLO, WHY, SO, HI], "Hi", (Turn("Hi", "Hello!"), Turn("Why?", "So."))),
        # Instructions are left out wherever they stand.
        ([SYSTEM, DEVELOPER, HI], "Hi", ()),
        ([SYSTEM, HI, DEVELOPER, HELLO, SYSTEM, WHY], "Why?", (Turn("Hi", "Hello!"),)),
        ([HI, SYSTEM], "Hi", ()),
        # So are an agent's reminders, next to the user's text and alone.
        ([Message(role="user", content=[REMINDER, Part(type="text", text="Hi")])], "Hi", ()),
        ([Message(role="user", content=[REMINDER]), HI, Message(role="user", content=[REMINDER])], "Hi", ()),
        (
            [Message(role="user", content=[Part(type="text", text="Hi"), REMINDER]), HELLO, WHY],
            "Why?",
            (Turn("Hi", "Hello!"),),
        ),
        ([HI, HELLO, WHY, DEVELOPER, SYSTEM], "Why?", (Turn("Hi", "Hello!"),)),
        # Parts are read in earlier turns too.
        (
            [Message(role="user", content=[Part(text="a"), IMAGE, Part(text="b")]), HELLO, WHY],
            "Why?",
            (Turn("a\nb", "Hello!"),),
        ),
        ([HI, CALL, WHY], "Why?", ()),
        # Of several questions in a row the last was asked.
        ([HI, WHY], "Why?", ()),
        ([HI, WHY, SO, HI], "Hi", (Turn("Why?", "So."),)),
        ([HI, HELLO, WHY, WHY, SO, WHY, HI], "Hi", (Turn("Hi", "Hello!"), Turn("Why?", "So."))),
        # An answer without a question: a greeting, or a note of the client's.
        ([HELLO, WHY], "Why?", (Turn("", "Hello!"),)),
        ([HI, HELLO, SO, WHY], "Why?", (Turn("Hi", "Hello!"), Turn("", "So."))),
        ([SYSTEM, HI, DEVELOPER, WHY, SO, HELLO, HI, WHY], "Why?", (Turn("Why?", "So."), Turn("", "Hello!"))),
        # Tools are left out: no engine session holds them.
        ([HI, CALL, RESULT, HELLO, WHY], "Why?", (Turn("Hi", "Hello!"),)),
        ([HI, HELLO, RESULT, WHY], "Why?", (Turn("Hi", "Hello!"),)),
        ([Message(role="function", name="f", content="42"), HELLO, WHY], "Why?", (Turn("", "Hello!"),)),
        # Nor does a message without text take a question's place.
        ([HI, Message(role="user", content=[IMAGE]), HELLO, WHY], "Why?", (Turn("Hi", "Hello!"),)),
        # The question is not what was said last.
        ([HI, HELLO], "Hi", None),
        ([HI, CALL, RESULT], "Hi", None),
    ],
)
def test_question(messages: list[Message], query: str, turns: tuple[Turn, ...] | None) -> None:
    """The wrong message is answered, or the answer comes from a session that holds another conversation."""
    assert question(messages) == (query, turns)


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ([SYSTEM, HELLO], "messages"),
        ([SYSTEM, Message(role="user")], "messages[1].content"),
        ([Message(role="user", content="")], "messages[0].content"),
        ([Message(role="user", content=" \n\u2003")], "messages[0].content"),
        ([Message(role="user", content=[])], "messages[0].content"),
        # An earlier question is not asked again in the place of a picture.
        ([HI, HELLO, Message(role="user", content=[IMAGE])], "messages[2].content"),
        ([Message(role="user", content=IMAGE), HELLO], "messages[0].content"),
    ],
)
def test_nothing_to_ask(messages: list[Message], param: str) -> None:
    """A user who has asked nothing gets an answer to something else, or is not told why there is none."""
    with pytest.raises(GatewayError) as caught:
        question(messages)
    assert (caught.value.kind, caught.value.param) == (errors.INVALID_REQUEST, param)


def test_all_text() -> None:
    """The usage of a prompt leaves out what was sent with it."""
    assert all_text([SYSTEM, HI, CALL, RESULT, WHY]) == "Be brief\nHi\n\n42\nWhy?"
