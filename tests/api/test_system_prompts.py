"""System prompts: what the engine receives of them, in every API, and what the client reads about it."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

import pytest
import pytest_twisted

from endpoints import CHAT, COMPLETIONS, GENERATE, MESSAGES, OLLAMA_CHAT, PATHS, RESPONSES, asking_by_default
from gateways import RunningGateway, run_gateway, stop_gateway
from scripted_engine import ScriptedEngine

QUESTION: Final = "How do I loop?"
SYSTEM: Final = "You are a direct and concise assistant"
REMINDER: Final = "<system-reminder>Today is Friday.</system-reminder>"


def with_messages(path: str, *messages: dict[str, Any]) -> dict[str, Any]:
    key = "input" if path == RESPONSES else "messages"
    return {"model": "brunix", "stream": False, "max_tokens": 100, key: list(messages)}


def message(role: str, content: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever JSON holds
    return {"role": role, "content": content}


# How each API sends a system prompt; two texts are joined by an empty line.
PROMPTED: Final = [
    pytest.param(CHAT, with_messages(CHAT, message("system", SYSTEM), message("user", QUESTION)), SYSTEM, id="chat"),
    pytest.param(
        CHAT,
        with_messages(
            CHAT,
            message("developer", [{"type": "text", "text": SYSTEM}, {"type": "text", "text": "Be kind."}]),
            message("user", QUESTION),
        ),
        f"{SYSTEM}\n\nBe kind.",
        id="chat, developer",
    ),
    pytest.param(
        RESPONSES, {"model": "brunix", "instructions": SYSTEM, "input": QUESTION}, SYSTEM, id="responses, instructions"
    ),
    pytest.param(
        RESPONSES,
        with_messages(RESPONSES, message("system", "Be kind."), message("user", QUESTION)) | {"instructions": SYSTEM},
        f"{SYSTEM}\n\nBe kind.",
        id="responses, both",
    ),
    pytest.param(
        MESSAGES, with_messages(MESSAGES, message("user", QUESTION)) | {"system": SYSTEM}, SYSTEM, id="messages"
    ),
    pytest.param(
        MESSAGES,
        with_messages(
            MESSAGES, message("user", [{"type": "text", "text": REMINDER}, {"type": "text", "text": QUESTION}])
        )
        | {"system": [{"type": "text", "text": SYSTEM}]},
        SYSTEM,
        id="messages, with a reminder",
    ),
    pytest.param(
        OLLAMA_CHAT,
        with_messages(OLLAMA_CHAT, message("system", SYSTEM), message("user", QUESTION)),
        SYSTEM,
        id="Ollama's chat",
    ),
    pytest.param(
        GENERATE,
        {"model": "brunix", "prompt": QUESTION, "system": SYSTEM, "stream": False},
        SYSTEM,
        id="Ollama's generate",
    ),
]


def decoded(text: str) -> str:
    return base64.b64decode(text).decode()


async def asked(gateway: RunningGateway, path: str, body: dict[str, Any]) -> list[str]:
    """Ask, and return the names in ``X-Brunix-Ignored``."""
    reply = await gateway.ask("POST", path, json=body)
    assert reply.status == 200, reply.body
    names = reply.headers.get("x-brunix-ignored", "")
    return names.split(", ")


@pytest.mark.parametrize(("path", "body", "_text"), PROMPTED)
@pytest_twisted.ensureDeferred
async def test_by_default_the_engine_receives_only_the_question(
    gateway: RunningGateway, engine: ScriptedEngine, path: str, body: dict[str, Any], _text: str
) -> None:
    """A system prompt has no effect, and the response says so once."""
    names = await asked(gateway, path, body)
    assert names.count("system") == 1
    assert "instructions" not in names
    assert engine.calls[0].request.query == QUESTION
    assert engine.calls[0].request.extra_context == ""


@pytest.mark.parametrize("path", PATHS)
@pytest_twisted.ensureDeferred
async def test_a_request_without_a_system_prompt_is_not_reported(gateway: RunningGateway, path: str) -> None:
    """``X-Brunix-Ignored`` lists ``system`` only if one was sent."""
    assert "system" not in await asked(gateway, path, asking_by_default(path, QUESTION) | {"stream": False})


@pytest.mark.parametrize("content", ["", "  \n", [], [{"type": "text", "text": ""}]])
@pytest_twisted.ensureDeferred
async def test_an_empty_system_prompt_is_none(engine: ScriptedEngine, content: Any) -> None:  # noqa: ANN401 - JSON
    """A client that sends its empty field of instructions has sent no system prompt."""
    gateway = await run_gateway(grpc_target=engine.target, system_prompt="prepend")
    body = with_messages(CHAT, message("system", content), message("user", QUESTION))
    assert "system" not in await asked(gateway, CHAT, body)
    assert engine.calls[0].request.query == QUESTION
    await stop_gateway(gateway)


@pytest.mark.parametrize(("path", "body", "text"), PROMPTED)
@pytest_twisted.ensureDeferred
async def test_prepended_to_the_question(engine: ScriptedEngine, path: str, body: dict[str, Any], text: str) -> None:
    """The engine routes by phrases that a platform puts into the system prompt."""
    gateway = await run_gateway(grpc_target=engine.target, system_prompt="prepend")
    assert "system" not in await asked(gateway, path, body)
    assert engine.calls[0].request.query == f"{text}\n\n{QUESTION}"
    assert engine.calls[0].request.extra_context == ""
    await stop_gateway(gateway)


@pytest.mark.parametrize(("path", "body", "text"), PROMPTED)
@pytest_twisted.ensureDeferred
async def test_sent_as_extra_context(engine: ScriptedEngine, path: str, body: dict[str, Any], text: str) -> None:
    """The engine receives the question alone, and the system prompt in base64 next to it."""
    gateway = await run_gateway(grpc_target=engine.target, system_prompt="extra_context")
    assert "system" not in await asked(gateway, path, body)
    assert engine.calls[0].request.query == QUESTION
    assert decoded(engine.calls[0].request.extra_context) == text
    await stop_gateway(gateway)


@pytest_twisted.ensureDeferred
async def test_the_editor_s_own_context_is_kept(engine: ScriptedEngine) -> None:
    """An editor that sends ``extra_context`` does not lose it, nor its other fields."""
    gateway = await run_gateway(grpc_target=engine.target, system_prompt="extra_context")
    encoded = {key: base64.b64encode(key.encode()).decode() for key in ("extra_context", "selected_text")}
    body = with_messages(CHAT, message("system", SYSTEM), message("user", QUESTION)) | {"user": json.dumps(encoded)}
    await asked(gateway, CHAT, body)
    request = engine.calls[0].request
    assert decoded(request.extra_context) == f"{SYSTEM}\n\nextra_context"
    assert decoded(request.selected_text) == "selected_text"
    await stop_gateway(gateway)


@pytest_twisted.ensureDeferred
async def test_several_prompts_each_have_no_system_prompt(engine: ScriptedEngine) -> None:
    """Text completions have no system prompt, so the setting does not change them."""
    gateway = await run_gateway(grpc_target=engine.target, system_prompt="prepend")
    await asked(gateway, COMPLETIONS, {"model": "brunix", "prompt": ["one", "two"]})
    assert sorted(call.request.query for call in engine.calls) == ["one", "two"]
    await stop_gateway(gateway)


@pytest.mark.parametrize("mode", ["ignore", "prepend", "extra_context"])
@pytest.mark.parametrize("path", [CHAT, MESSAGES, OLLAMA_CHAT, RESPONSES])
@pytest_twisted.ensureDeferred
async def test_a_conversation_keeps_its_session(engine: ScriptedEngine, path: str, mode: str) -> None:
    """A conversation continues in its session, even if its system prompt changes or is left out."""
    gateway = await run_gateway(grpc_target=engine.target, system_prompt=mode)
    turns: list[dict[str, Any]] = []
    for system in ("Be brief.", "It is 12:01.", None):
        turns.append(message("user", QUESTION))
        body = with_messages(path, *turns)
        if system is not None and path == MESSAGES:
            body["system"] = system
        elif system is not None and path == RESPONSES:
            body["instructions"] = system
        elif system is not None:
            body = with_messages(path, message("system", system), *turns)
        reply = await gateway.ask("POST", path, json=body)
        assert reply.headers["x-brunix-session"] == ("new" if len(turns) == 1 else "found")
        turns.append(message("assistant", "".join(piece + " " for piece in engine.calls[-1].request.query.split())))
    assert len({call.request.session_id for call in engine.calls}) == 1
    await stop_gateway(gateway)


@pytest.mark.parametrize("mode", ["prepend", "extra_context"])
@pytest_twisted.ensureDeferred
async def test_a_side_request_is_still_recognised(engine: ScriptedEngine, mode: str) -> None:
    """A request for a title gets a separate session, also if its system prompt is sent."""
    gateway = await run_gateway(grpc_target=engine.target, system_prompt=mode, side_request_patterns=("Title this:",))
    body = with_messages(CHAT, message("system", SYSTEM), message("user", "Title this: loops"))
    assert (await gateway.ask("POST", CHAT, json=body)).headers["x-brunix-session"] == "side"
    await stop_gateway(gateway)
