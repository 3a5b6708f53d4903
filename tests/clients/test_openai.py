"""OpenAI's own package: what only it offers for chat completions."""

from __future__ import annotations

from pathlib import Path

import pytest
from providers.openai_sdk import Chat
from questions import FOLLOW_UP, KEY_FACT, MANY, QUESTION, URL, collect, conversation, resolve, shell_output, tag

CLIENTS = ["openai"]


async def test_models(client: Chat) -> None:
    """The model can be listed and retrieved."""
    models = client.client(URL).models
    assert [model.id for model in (await resolve(models.list())).data] == ["brunix"]
    assert (await resolve(models.retrieve("brunix"))).id == "brunix"


@pytest.mark.parametrize("usage", [True, False], ids=["usage", "no usage"])
async def test_usage(client: Chat, *, usage: bool) -> None:
    """The last chunk of a stream has the usage, if it was requested."""
    options = {"include_usage": usage}
    chunks = await collect(client.ask(URL, conversation(QUESTION), stream=True, stream_options=options))
    assert [bool(chunk.usage) for chunk in chunks] == [False] * (len(chunks) - 1) + [usage]


async def test_stream_helper(client: Chat) -> None:
    """The package's stream helper returns a completion."""
    manager = client.client(URL).chat.completions.stream(model="brunix", messages=conversation(QUESTION))
    if client.asynchronous:
        async with manager as stream:
            completion = await stream.get_final_completion()
    else:
        with manager as stream:
            completion = stream.get_final_completion()
    assert KEY_FACT in completion.choices[0].message.content


async def test_prompts(client: Chat) -> None:
    """Prompts are completed, whole and streamed."""
    completions = client.client(URL).completions
    whole = await resolve(completions.create(model="brunix", prompt=QUESTION))
    assert KEY_FACT in whole.choices[0].text
    chunks = await collect(completions.create(model="brunix", prompt=QUESTION, stream=True))
    assert KEY_FACT in "".join(chunk.choices[0].text for chunk in chunks)
    assert len(chunks) > MANY


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_sessions(client: Chat, *, stream: bool) -> None:
    """A follow-up stays in its session, and two callers with the same conversation are in different sessions."""
    completions = client.client(URL).chat.completions.with_raw_response

    async def ask(*turns: str) -> tuple[str, str]:
        raw = await resolve(completions.create(model="brunix", messages=conversation(*turns), stream=stream))
        parsed = await resolve(raw.parse())
        if stream:
            choices = [chunk.choices[0] for chunk in await collect(parsed)]
            return "".join(choice.delta.content or "" for choice in choices), raw.headers["x-session-id"]
        return parsed.choices[0].message.content, raw.headers["x-session-id"]

    question = f"{QUESTION} {tag()}"
    answer, session = await ask(question)
    same, other = await ask(question)
    assert (same, other != session) == (answer, True)
    followed, first = await ask(question, answer, FOLLOW_UP)
    assert KEY_FACT in followed
    assert first in {session, other}
    # The second caller's follow-up is in the other session, and a third one's in a new session.
    _, second = await ask(question, answer, FOLLOW_UP)
    assert {first, second} == {session, other}
    assert (await ask(question, answer, FOLLOW_UP))[1] not in {session, other}


def test_environment(tmp_path: Path) -> None:
    """A program without settings finds the gateway by the variables in docs/clients.md."""
    program = tmp_path / "program.py"
    program.write_text(
        "import openai\n"
        f"asked = [{{'role': 'user', 'content': {QUESTION!r}}}]\n"
        "print(openai.OpenAI().chat.completions.create(model='brunix', messages=asked).choices[0].message.content)\n"
    )
    assert KEY_FACT in shell_output("openai-environment", tmp_path, "python program.py")
