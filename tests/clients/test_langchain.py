"""LangChain, by its packages for OpenAI and for Ollama."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import ollama
import openai
import pytest
from asked import (
    BROKEN_OFF,
    DOWN_URL,
    FOLLOW_UP,
    KEY_FACT,
    MANY,
    QUESTION,
    SCRIPTED_URL,
    URL,
    answers_of,
    asking,
    engine_saw,
    now,
    pieces,
    script,
    tag,
)
from langchain_core.language_models import BaseChatModel
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI


def chat_openai(url: str, model: str = "brunix") -> BaseChatModel:
    return ChatOpenAI(model=model, base_url=f"{url}/v1", api_key="unused", max_retries=0, stream_usage=True)


def chat_ollama(url: str, model: str = "brunix") -> BaseChatModel:
    return ChatOllama(model=model, base_url=url)


pytestmark = pytest.mark.parametrize("make", [chat_openai, chat_ollama], ids=["openai", "ollama"])
BOTH: Final = pytest.mark.parametrize("a", ["", "a"], ids=["sync", "async"])
"""Its asynchronous methods have the names of the others with an a before them."""

Make = Callable[..., BaseChatModel]


@BOTH
async def test_whole(make: Make, a: str) -> None:
    """An answer at once would lack its text or its usage."""
    message = await now(getattr(make(URL), f"{a}invoke")(QUESTION))
    assert KEY_FACT in message.content
    assert message.usage_metadata["output_tokens"] > MANY


@BOTH
async def test_streamed(make: Make, a: str) -> None:
    """A streamed answer would come in one piece, or without its usage."""
    chunks = await pieces(getattr(make(URL), f"{a}stream")(QUESTION))
    assert KEY_FACT in "".join(chunk.content for chunk in chunks)
    assert len(chunks) > MANY
    assert any(chunk.usage_metadata for chunk in chunks)


async def test_batch(make: Make) -> None:
    """Several questions at once would not be answered each by its own answer."""
    answers = make(URL).batch([QUESTION, FOLLOW_UP])
    assert [KEY_FACT in str(answer.content) for answer in answers] == [True, False]


@BOTH
async def test_stop(make: Make, a: str) -> None:
    """An answer would go on after its stop."""
    message = await now(getattr(make(SCRIPTED_URL), f"{a}invoke")(script("one ", "two ", "three"), stop=["three"]))
    assert message.content == "one two "


@BOTH
@pytest.mark.parametrize(
    ("url", "model", "status"), [(URL, "gpt-7", 404), (DOWN_URL, "brunix", 503)], ids=["unknown model", "engine down"]
)
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_refused(  # noqa: PLR0913 - each is a column of the table
    make: Make, a: str, url: str, model: str, status: int, *, stream: bool
) -> None:
    """A program could not tell why it got no answer, or would take the failure for an answer."""
    chat = make(url, model)
    with pytest.raises((openai.APIStatusError, ollama.ResponseError)) as raised:
        await (pieces(getattr(chat, f"{a}stream")(QUESTION)) if stream else now(getattr(chat, f"{a}invoke")(QUESTION)))
    assert raised.value.status_code == status


@BOTH
async def test_broken_off_by_the_user(make: Make, a: str) -> None:
    """The engine would go on writing an answer that nobody reads."""
    word = tag()
    chat = make(SCRIPTED_URL)
    stream = getattr(chat, f"{a}stream")(script(word, "two ", "three ", {"hang": True}))
    assert await pieces(stream, at_most=3)
    await (stream.aclose() if a else now(stream.close()))
    assert await engine_saw(word) == BROKEN_OFF


@BOTH
async def test_fails_in_the_middle(make: Make, a: str) -> None:
    """Half an answer would pass for a whole one, or be lost."""
    chunks: list[Any] = []
    stream = getattr(make(SCRIPTED_URL), f"{a}stream")(script("one ", "two ", {"status": "INTERNAL"}))
    with pytest.raises((openai.APIError, ollama.ResponseError)):
        await pieces(stream, into=chunks)
    assert "".join(chunk.content for chunk in chunks) == "one two "


async def test_a_conversation(make: Make) -> None:
    """A follow-up would be answered as if nothing had been said before."""
    chat = make(URL)
    question = f"{QUESTION} {tag()}"
    answer = str(chat.invoke(question).content)
    assert KEY_FACT in str(chat.invoke(asking(question, answer, FOLLOW_UP)).content)


async def test_as_documented(make: Make) -> None:
    """What docs/clients.md says would not work."""
    # It is one text for both: once is enough.
    if make is chat_openai:
        assert answers_of("langchain").count(KEY_FACT) >= 2
