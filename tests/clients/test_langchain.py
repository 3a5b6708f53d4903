"""LangChain: what only it offers."""

from __future__ import annotations

from providers.langchain import LangChain
from questions import FOLLOW_UP, KEY_FACT, QUESTION, URL, resolve

CLIENTS = ["langchain-openai", "langchain-ollama"]


async def test_text(client: LangChain) -> None:
    """A question can be a text instead of messages."""
    model = client.model(URL)
    answer = await resolve((model.ainvoke if client.asynchronous else model.invoke)(QUESTION))
    assert KEY_FACT in str(answer.content)


async def test_batch(client: LangChain) -> None:
    """Each question of a batch gets its own answer."""
    model = client.model(URL)
    answers = await resolve((model.abatch if client.asynchronous else model.batch)([QUESTION, FOLLOW_UP]))
    assert [KEY_FACT in str(answer.content) for answer in answers] == [True, False]
