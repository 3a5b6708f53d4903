"""The official SDK of the Model Context Protocol: what agents built with it do."""

from __future__ import annotations

from typing import Final, Literal

import anyio
import pytest
from mcp import Client
from questions import CANCELLED, DOWN_URL, KEY_FACT, QUESTION, SCRIPTED_URL, URL, engine_saw, script, tag

Mode = Literal["legacy", "auto", "2026-07-28"]

MODES: Final[tuple[Mode, ...]] = ("legacy", "auto", "2026-07-28")


@pytest.mark.parametrize("mode", MODES)
async def test_agents_find_and_call_the_tool(mode: Mode) -> None:
    """The SDK finds the tool, validates its result against the schema, and continues the session."""
    async with Client(f"{URL}/mcp", mode=mode) as client:
        (tool,) = (await client.list_tools()).tools
        assert tool.name == "ask"
        answered = await client.call_tool("ask", {"question": QUESTION})
        assert not answered.is_error
        structured = answered.structured_content
        assert KEY_FACT in structured["answer"]
        assert answered.content[0].text == structured["answer"]
        again = await client.call_tool("ask", {"question": QUESTION, "session_id": structured["session_id"]})
        assert again.structured_content["session_id"] == structured["session_id"]


@pytest.mark.parametrize("mode", MODES)
async def test_agents_receive_progress(mode: Mode) -> None:
    """The SDK calls back while the engine is answering."""
    values: list[float] = []

    async def note(progress: float, _total: float | None, message: str | None) -> None:
        assert message
        values.append(progress)

    async with Client(f"{SCRIPTED_URL}/mcp", mode=mode) as client:
        question = script("a" * 2000, "b" * 2000)
        answered = await client.call_tool("ask", {"question": question}, progress_callback=note)
    assert answered.structured_content["answer"] == "a" * 2000 + "b" * 2000
    assert values == [1, 2]


@pytest.mark.parametrize("mode", MODES)
async def test_agents_receive_failures_in_words(mode: Mode) -> None:
    """A call fails as a result that the agent's model can read."""
    async with Client(f"{DOWN_URL}/mcp", mode=mode) as client:
        answered = await client.call_tool("ask", {"question": "x"})
    assert answered.is_error
    assert "engine" in answered.content[0].text


@pytest.mark.parametrize("mode", MODES)
async def test_cancelling_a_call_cancels_the_engine_call(mode: Mode) -> None:
    """When the SDK cancels a call, the engine stops working."""
    word = tag()
    question = script(word, {"hang": True})
    async with Client(f"{SCRIPTED_URL}/mcp", mode=mode) as client:
        begun = anyio.Event()

        async def note(*_: object) -> None:
            begun.set()

        async with anyio.create_task_group() as group:

            async def call() -> None:
                await client.call_tool("ask", {"question": question}, progress_callback=note)

            group.start_soon(call)
            await begun.wait()
            group.cancel_scope.cancel()
        assert await engine_saw(word) == CANCELLED
