"""Ollama's own package: what only it offers."""

from __future__ import annotations

import ollama
import pytest
from providers.ollama_sdk import Chat
from questions import (
    DOWN_URL,
    KEY_FACT,
    MANY,
    QUESTION,
    SCRIPTED_URL,
    URL,
    collect,
    conversation,
    resolve,
    script,
)

CLIENTS = ["ollama"]


async def test_models(client: Chat) -> None:
    """The model is listed, described and shown as running."""
    api = client.client(URL)
    (listed,) = (await resolve(api.list())).models
    assert listed.model == "brunix:latest"
    shown = await resolve(api.show("brunix"))
    assert shown.capabilities == ["completion"]
    assert shown.modelinfo["general.architecture"] == listed.details.family
    (running,) = (await resolve(api.ps())).models
    assert running.model == "brunix:latest"


@pytest.mark.parametrize("model", ["brunix", "brunix:latest"])
async def test_names_and_counts(client: Chat, model: str) -> None:
    """Both names of the model are accepted, and an answer has its counts and durations."""
    answer = await resolve(client.ask(URL, conversation(QUESTION), model=model))
    assert (answer.done, answer.model) == (True, model)
    assert answer.prompt_eval_count > MANY
    assert answer.total_duration >= answer.eval_duration > 0


async def test_prompts(client: Chat) -> None:
    """Prompts are completed, whole and streamed."""
    api = client.client(URL)
    assert KEY_FACT in (await resolve(api.generate(model="brunix", prompt=QUESTION))).response
    parts = await collect(api.generate(model="brunix", prompt=QUESTION, stream=True))
    assert KEY_FACT in "".join(part.response for part in parts)
    assert len(parts) > MANY


async def test_load_and_unload(client: Chat) -> None:
    """Loading and unloading the model succeeds without calling the engine."""
    api = client.client(DOWN_URL)
    assert (await resolve(api.generate(model="brunix"))).done_reason == "load"
    assert (await resolve(api.chat(model="brunix", messages=[], keep_alive=0))).done_reason == "unload"


async def test_not_offered(client: Chat) -> None:
    """Pulling and embedding are refused with an error that the package understands."""
    api = client.client(URL)
    with pytest.raises(ollama.ResponseError, match="not offered"):
        await resolve(api.pull("brunix"))
    with pytest.raises(ollama.ResponseError, match="not offered"):
        await resolve(api.embed(model="brunix", input="Hi"))


async def test_line_breaks(client: Chat) -> None:
    """Unicode's line breaks in the text do not break a stream, although the package splits lines at each of them."""
    text = "a\u2028b\u2029c\u0085d\r\ne"
    parts = await collect(client.ask(SCRIPTED_URL, conversation(script(text)), stream=True))
    assert client.streamed(parts).text == text
