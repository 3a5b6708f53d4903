"""LiteLLM, by each of its three routes to such a gateway."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

import litellm
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

ROUTES: Final = {"openai": "/v1", "ollama_chat": "", "ollama": ""}
"""What each wants after the gateway's URL."""


@pytest.fixture(params=ROUTES)
def route(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=[litellm.completion, litellm.acompletion], ids=["sync", "async"])
def complete(request: pytest.FixtureRequest, route: str) -> Callable[..., Any]:
    def completing(url: str, model: str = "brunix", **arguments: Any) -> Any:  # noqa: ANN401 - the package's
        return request.param(
            model=f"{route}/{model}", api_base=url + ROUTES[route], api_key="unused", max_retries=0, **arguments
        )

    return completing


def text_of(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


async def test_whole(complete: Callable[..., Any]) -> None:
    """An answer at once would lack its text, its end or its usage."""
    completion = await now(complete(URL, messages=asking(QUESTION)))
    assert KEY_FACT in completion.choices[0].message.content
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage.completion_tokens > MANY


async def test_streamed(complete: Callable[..., Any]) -> None:
    """A streamed answer would come in one piece, or without its end or usage."""
    chunks = await pieces(complete(URL, messages=asking(QUESTION), stream=True, stream_options={"include_usage": True}))
    assert KEY_FACT in text_of(chunks)
    assert len(chunks) > MANY
    assert "stop" in [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert chunks[-1].usage.completion_tokens > MANY


async def test_cut(complete: Callable[..., Any]) -> None:
    """An answer would go on after its stop or its length."""
    messages = asking(script("one ", "two ", "three ", "four"))
    for cut, text in (({"stop": ["three"]}, "one two "), ({"max_tokens": 1}, "one ")):
        completion = await now(complete(SCRIPTED_URL, messages=messages, **cut))
        assert completion.choices[0].message.content == text


REFUSED: Final = {
    "unknown model": (URL, "gpt-7", litellm.NotFoundError),
    "engine down": (DOWN_URL, "brunix", litellm.ServiceUnavailableError),
}


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize(("url", "model", "error"), REFUSED.values(), ids=REFUSED)
async def test_refused(
    complete: Callable[..., Any], url: str, model: str, error: type[Exception], *, stream: bool
) -> None:
    """A program could not tell why it got no answer, or would take the failure for an answer."""
    with pytest.raises(error):
        await pieces(complete(url, model, messages=asking(QUESTION), stream=stream))


async def test_broken_off_by_the_user(complete: Callable[..., Any]) -> None:
    """The engine would go on writing an answer that nobody reads."""
    word = tag()
    messages = asking(script(word, "two ", "three ", {"hang": True}))
    stream = complete(SCRIPTED_URL, messages=messages, stream=True)
    asynchronous = inspect.isawaitable(stream)
    stream = await now(stream)
    assert word.strip() in text_of(await pieces(stream, at_most=2, asynchronous=asynchronous))
    if asynchronous:
        await stream.aclose()
    elif hasattr(stream.completion_stream, "close"):
        stream.completion_stream.close()
    else:
        # There is no other way to close the synchronous stream of the routes to Ollama.
        del stream
    assert await engine_saw(word) == BROKEN_OFF


async def test_fails_in_the_middle(complete: Callable[..., Any]) -> None:
    """Half an answer would pass for a whole one, or be lost."""
    chunks: list[Any] = []
    with pytest.raises(openai.APIError):
        await pieces(
            complete(SCRIPTED_URL, messages=asking(script("one ", "two ", {"status": "INTERNAL"})), stream=True),
            into=chunks,
        )
    assert text_of(chunks) == "one two "


async def test_a_silent_engine(complete: Callable[..., Any]) -> None:
    """The signs of life of a stream whose engine thinks would disturb it."""
    messages = asking(script({"sleep": 1}, "one ", {"sleep": 1}, "two"))
    assert text_of(await pieces(complete(SCRIPTED_URL, messages=messages, stream=True))) == "one two"


async def test_a_conversation(complete: Callable[..., Any]) -> None:
    """A follow-up would be answered as if nothing had been said before."""

    async def ask(*turns: str) -> str:
        text: str = (await now(complete(URL, messages=asking(*turns)))).choices[0].message.content
        return text

    question = f"{QUESTION} {tag()}"
    answer = await ask(question)
    assert KEY_FACT in await ask(question, answer, FOLLOW_UP)
    assert KEY_FACT not in await ask(FOLLOW_UP)


def test_as_documented() -> None:
    """What docs/clients.md says would not work."""
    assert answers_of("litellm").count(KEY_FACT) >= 3
