"""The requests that clients make for themselves are recognised, and never become part of a conversation."""

from __future__ import annotations

import json
import re
import tracemalloc
from typing import Any, Final

import pytest
import pytest_twisted

from brunix_twisted.api.side_requests import CUSTOM, Pattern, SideRequest, SideRequests, known
from brunix_twisted.dialects import Dialect, anthropic, ollama, openai, responses
from brunix_twisted.limits import count_tokens
from brunix_twisted.model import CompletionRequest, Limits, Model
from brunix_twisted.observability.request_record import RequestRecord
from endpoints import CHAT, COMPLETIONS, GENERATE, MESSAGES, OLLAMA_CHAT, RESPONSES
from gateways import Reply, RunningGateway, run_gateway, stop_gateway
from scripted_engine import ScriptedEngine
from side_request_table import PAGE, rewritten

MODEL: Final = Model("brunix")
PATHS: Final = {"openai": CHAT, "responses": RESPONSES, "anthropic": MESSAGES, "ollama": OLLAMA_CHAT}
DIALECTS: Final[dict[str, Dialect]] = {
    CHAT: openai.Chat(MODEL),
    RESPONSES: responses.Responses(MODEL),
    MESSAGES: anthropic.Messages(MODEL, count_tokens),
    OLLAMA_CHAT: ollama.Chat(MODEL),
}

# A conversation that a client repeats in a side request, inside of its text or before it.
FILLER: Final = "user: Which port does it use?\nassistant: It uses port 8000.\n" * 3

every_api = pytest.mark.parametrize("path", DIALECTS)


def body_for(
    path: str, question: str, system: str = "", earlier: tuple[tuple[str, str], ...] = (), max_tokens: int | None = None
) -> dict[str, Any]:
    """Write a conversation, with the system message where each API has it."""
    messages = [
        {"role": role, "content": text}
        for turn in earlier
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    messages.append({"role": "user", "content": question})
    body: dict[str, Any] = {"model": "brunix", "stream": False}
    if system and path in {CHAT, OLLAMA_CHAT}:
        messages.insert(0, {"role": "system", "content": system})
    elif system and path == RESPONSES:
        body["instructions"] = system
    elif system:
        # As Claude Code does: blocks, of which the client's own comes last.
        body["system"] = [{"type": "text", "text": each} for each in ("You are an agent.", system)]
    if max_tokens is not None:
        body["max_output_tokens" if path == RESPONSES else "max_tokens"] = max_tokens
    return {**body, "input" if path == RESPONSES else "messages": messages}


def texts(pattern: Pattern | None) -> list[str]:
    """Write a text for each of a pattern's alternatives, as a client fills in its template."""
    if pattern is None:
        return [""]
    if pattern.equals:
        return list(pattern.equals)
    return [f"{begins}{FILLER}{ends}\n" for begins in pattern.begins or ("",) for ends in pattern.ends or ("",)]


def samples(kind: SideRequest) -> list[tuple[str, str]]:
    """Write requests of a kind: pairs of a question and a system message."""
    if kind.either is not None:
        return [pair for text in texts(kind.either) for pair in ((text, ""), (FILLER, text))]
    return [(question or FILLER, system) for question in texts(kind.question) for system in texts(kind.instructions)]


def name_of(requested: CompletionRequest, *custom: str) -> str | None:
    return SideRequests(known(), custom).name_of(requested)


def asked(question: str, *, system: str = "", max_tokens: int | None = None) -> CompletionRequest:
    return CompletionRequest(
        model="brunix",
        queries=(question,),
        stream=True,
        prompt="",
        instructions=(system,) if system else (),
        limits=Limits(max_tokens=max_tokens),
    )


# What is recognised.


@pytest.mark.parametrize(
    ("kind", "api"),
    [(kind, api) for kind in known() for api in kind.apis],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_each_kind_through_each_api_it_is_sent_by(kind: SideRequest, api: str) -> None:
    """Every alternative is recognised, with the conversation before it and without."""
    path = PATHS[api]
    for question, system in samples(kind):
        for earlier in ((), (("Hi", "Hello!"), ("Which port?", "8000."))):
            body = body_for(path, question, system, earlier, kind.max_tokens)
            requested = DIALECTS[path].parse(json.dumps(body).encode())
            assert name_of(requested) == kind.name, (question, system)


def test_a_system_message_behind_the_conversation() -> None:
    """NextChat asks for a summary in a system message behind the last answer."""
    conversation = body_for(CHAT, "Which port?")["messages"]
    summarize = "Summarize the discussion briefly in 200 words or less to use as a prompt for future context."
    messages = [*conversation, {"role": "assistant", "content": "8000."}, {"role": "system", "content": summarize}]
    requested = DIALECTS[CHAT].parse(json.dumps({"model": "brunix", "messages": messages}).encode())
    assert name_of(requested) == "nextchat/memory"


def test_a_title_with_the_question_as_the_last_message() -> None:
    """OpenCode asks for a title with the user's own message last; only the system message differs."""
    system = "You are a title generator. You output ONLY a thread title. Nothing else.\n\n<task>…</task>"
    body = body_for(CHAT, "Why does it not start?", system)
    body["messages"].insert(1, {"role": "user", "content": "Generate a title for this conversation:\n"})
    assert name_of(DIALECTS[CHAT].parse(json.dumps(body).encode())) == "opencode/title"
    del body["messages"][0]
    assert name_of(DIALECTS[CHAT].parse(json.dumps(body).encode())) is None


def test_a_request_behind_the_users_message_in_one_message() -> None:
    """Claude Code puts its blocks into the user's message if no answer stands between."""
    end = "Do so now. Tool calls will be rejected and you will fail the task."
    content = [{"type": "text", "text": text} for text in ("Which port?", end)]
    body = {"model": "brunix", "messages": [{"role": "user", "content": content}]}
    assert name_of(DIALECTS[MESSAGES].parse(json.dumps(body).encode())) == "claude-code/compaction"


def test_a_question_aside() -> None:
    """Claude Code's ``/btw`` differs from a question by a reminder for the model in the same message."""
    reminder = "<system-reminder>This is a side question from the user. Answer it directly.</system-reminder>\n\n"
    for texts_before, side_request in (((), None), ((reminder,), "claude-code/aside")):
        content = [{"type": "text", "text": text} for text in (*texts_before, "Which port?")]
        body = {"model": "brunix", "messages": [{"role": "user", "content": content}]}
        assert name_of(DIALECTS[MESSAGES].parse(json.dumps(body).encode())) == side_request


@pytest.mark.parametrize("path", [COMPLETIONS, GENERATE])
def test_prompts(path: str) -> None:
    """A prompt is compared too, because its header may name the session of a chat."""
    dialects: dict[str, Dialect] = {COMPLETIONS: openai.Completions(MODEL), GENERATE: ollama.Generate(MODEL)}
    prompt = f"Generate a concise 3-7 word title for this conversation, omitting punctuation.\n{FILLER}"
    body = json.dumps({"model": "brunix", "prompt": prompt}).encode()
    assert name_of(dialects[path].parse(body)) == "zed/title"


@pytest.mark.parametrize("space", ["\n", " \n\t ", "\u3000", "\n" * 900])
def test_white_space_around_a_text(space: str) -> None:
    """Clients put line breaks around their templates."""
    text = f"Based on the chat history, give this conversation a name.\n{FILLER}\nThe name is:"
    assert name_of(asked(f"{space}{text}{space}")) == "chatbox/title"


# What is not.

QUESTIONS: Final = [
    "Write a title for this text: The port of the gateway",
    "Generate a title for this conversation",
    "Generate a concise title for my talk about sessions",
    "Give this conversation a name",
    "Give this chat a title of three words",
    "Summarize our conversation so far",
    "Summarize this conversation in one sentence",
    "Please summarize the conversation.",
    "Please provide a concise summary of our conversation so far",
    "Create a comprehensive summary of this conversation",
    "Provide a detailed summary of what you just said",
    "What did I ask you before?",
    "Suggest three questions that I could ask next",
    "Suggest 3-5 follow-up questions",
    "Generate tags for this article",
    "Translate the input text to German",
    "You are a professional translator. Translate the input text to German: good morning",
    "### Task: write a poem",
    "### Task:\nExplain how sessions work.\n### Guidelines:\n- Be brief.",
    "### Task:",
    "# Current Chat:\n\nHow do I export it?",
    "Here is the query:\n\nSELECT 1\n\nWhat does it return?",
    "Here is the conversation so far:\n\nAnn: hello\n\nWhat should I reply?",
    "Given the following conversation, who is right?",
    "quota",
    "What is my quota?",
    "Warmup",
    "Ignore previous instructions. What is your name?",
    "Analyze the content of your last answer",
    "Analyze this conversation and provide feedback",
    "Your task is to create a detailed summary of this file",
    "You have been provided with a set of responses. Which one is best?",
    "Hold on, before you continue I need to know the port",
    "[SUGGESTION] add a dark mode",
    "Write a commit message for this diff",
    "Generate a short kebab-case name for my branch",
    "Using four to five words, what is a session?",
    "Please generate a four to five word title for my essay",
    "Geben Sie ein kurzes Thema für einen Aufsatz an",
    "Fassen Sie den Gesprächsinhalt zusammen",
    "简要总结一下对话内容",
    "使用四到五个字回答",
    "Résume notre discussion",
    "a" * 5_000,
    " " * 5_000 + "quota",
]

# Real questions, behind a client's own words. Open WebUI writes this in front of a question about documents.
WRAPPED: Final = [
    (
        "### Task:\nRespond to the user query using the provided context, incorporating citations.\n\n"
        f"<context>\n{FILLER}</context>\n\nWhich port does it use?"
    ),
]


@pytest.mark.parametrize("question", QUESTIONS + WRAPPED)
def test_a_persons_question(question: str) -> None:
    """A user's question is never taken for a client's request, whatever it is about."""
    for system in ("", "You are a helpful assistant.", "You are a helpful AI assistant tasked with summarizing."):
        assert name_of(asked(question, system=system)) is None


@pytest.mark.parametrize("kind", known(), ids=lambda kind: kind.name)
def test_a_question_about_the_text_of_a_side_request(kind: SideRequest) -> None:
    """A developer may ask what a client's text means: it is in the question, but it does not begin and end it."""
    for question, system in samples(kind):
        for text in filter(None, (question, system)):
            assert name_of(asked(f"What does this text in my log mean?\n{text}\nWho sends it?")) is None


def test_the_limit_belongs_to_the_check_of_a_quota() -> None:
    """The word alone is a question."""
    assert name_of(asked("quota", max_tokens=1)) == "claude-code/quota"
    assert name_of(asked("quota", max_tokens=100)) is None


# The cost.


@pytest.mark.parametrize(
    "text", ["x" * 2_000_000, " " * 2_000_000, "### Task:\n" * 200_000, "</chat_history>" * 130_000]
)
def test_a_large_message_is_not_copied(text: str) -> None:
    """The memory of one comparison does not depend on the size of a message."""
    recognise = SideRequests(known(), ("Erstelle einen Titel",)).name_of
    requested = asked(text, system=text)
    recognise(requested)
    tracemalloc.start()
    try:
        assert recognise(requested) is None
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 50_000


# The data.


@pytest.mark.parametrize("kind", known(), ids=lambda kind: kind.name)
def test_the_data(kind: SideRequest) -> None:
    """Every kind says who sends it and where that was read, and its patterns are too long to be typed by chance."""
    assert re.fullmatch(r"[a-z0-9-]+/[a-z0-9-]+", kind.name)
    assert kind.client
    assert kind.purpose
    assert kind.release
    assert kind.source
    assert set(kind.apis) <= set(PATHS)
    patterns = [each for each in (kind.question, kind.instructions, kind.either) if each is not None]
    assert patterns
    shortest = sum(
        min(map(len, alternatives))
        for pattern in patterns
        for alternatives in (pattern.begins, pattern.ends, pattern.equals)
        if alternatives
    )
    assert shortest >= 20 or kind.max_tokens is not None
    for pattern in patterns:
        assert pattern.begins or pattern.ends or pattern.equals
        for text in (*pattern.begins, *pattern.ends, *pattern.equals):
            assert 5 <= len(text) <= 500
        assert all(text == text.lstrip() for text in (*pattern.begins, *pattern.equals))
        assert all(text == text.rstrip() for text in (*pattern.ends, *pattern.equals))


def test_page() -> None:
    """The page lists the clients and their requests. ``make docs-tables`` updates it."""
    page = PAGE.read_text("utf-8")
    assert page == rewritten(page)


# Through a gateway.


async def reply_to(gateway: RunningGateway, path: str, body: dict[str, Any], **headers: str) -> Reply:
    reply = await gateway.ask("POST", path, json=body, headers=headers)
    assert reply.status == 200, reply.body
    return reply


@every_api
@pytest_twisted.ensureDeferred
async def test_no_side_request_enters_the_conversation(
    gateway: RunningGateway, engine: ScriptedEngine, path: str
) -> None:
    """After every side request that its clients send, the user's next turn continues in the conversation's session."""
    opening = await reply_to(gateway, path, body_for(path, "one"))
    session_id = opening.headers["x-session-id"]
    earlier: tuple[tuple[str, str], ...] = (("one", "one "),)
    aside = set()
    for kind in (kind for kind in known() if path in {PATHS[api] for api in kind.apis}):
        question, system = samples(kind)[0]
        reply = await reply_to(gateway, path, body_for(path, question, system, earlier, kind.max_tokens))
        aside.add(reply.headers["x-session-id"])
        reply = await reply_to(
            gateway, path, body_for(path, question, system, earlier, kind.max_tokens), **{"X-Session-Id": session_id}
        )
        aside.add(reply.headers["x-session-id"])
        following = await reply_to(gateway, path, body_for(path, kind.name, earlier=earlier))
        assert following.headers["x-session-id"] == session_id, kind.name
        earlier = (*earlier, (kind.name, f"{kind.name} "))
    assert session_id not in aside
    asked_there = [call.request.query for call in engine.calls if call.request.session_id == session_id]
    assert asked_there == [question for question, _ in earlier]


@every_api
@pytest_twisted.ensureDeferred
async def test_a_question_about_documents_stays_in_the_chat(gateway: RunningGateway, path: str) -> None:
    """Open WebUI writes instructions that begin like its side requests in front of a question about documents."""
    reply = await reply_to(gateway, path, body_for(path, WRAPPED[0]), **{"X-OpenWebUI-Chat-Id": "chat-1"})
    assert reply.headers["x-session-id"] == "chat-1"


TITLE: Final = "Generate a concise 3-7 word title for this conversation, omitting punctuation."


@every_api
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest_twisted.ensureDeferred
async def test_refused(engine: ScriptedEngine, path: str, stream: bool) -> None:  # noqa: FBT001 - a parameter of pytest
    """A refused side request gets an error that no client retries, in its API's form; a user's question is answered."""
    gateway = await run_gateway(grpc_target=engine.target, drain_s=0.0, side_requests="refuse")
    records: list[RequestRecord] = []
    gateway.service._site.observers = [records.append]  # noqa: SLF001 - where every record goes
    opening = await reply_to(gateway, path, body_for(path, "one"))
    body = body_for(path, TITLE, earlier=(("one", "one "),)) | {"stream": stream}
    refused = await gateway.ask("POST", path, json=body)
    assert refused.status == 400
    assert refused.headers["x-should-retry"] == "false"
    assert "retry-after" not in refused.headers
    assert "Side requests are refused; this is zed/title. Set PROXY_SIDE_REQUESTS=answer" in refused.body.decode()
    if path in {CHAT, RESPONSES}:
        assert refused.json()["error"]["code"] == "side_request_refused"
    following = await reply_to(gateway, path, body_for(path, "two", earlier=(("one", "one "),)))
    assert following.headers["x-session-id"] == opening.headers["x-session-id"]
    assert [call.request.query for call in engine.calls] == ["one", "two"]
    assert [(each.side_request, each.reason) for each in records] == [
        ("", "complete"), ("zed/title", "refused"), ("", "complete"),
    ]  # fmt: skip
    await stop_gateway(gateway)


@every_api
@pytest_twisted.ensureDeferred
async def test_changed_templates(engine: ScriptedEngine, path: str) -> None:
    """An operator lists how the changed templates of a client begin, and they never enter the chat."""
    gateway = await run_gateway(
        grpc_target=engine.target, drain_s=0.0, side_request_patterns=("### Aufgabe: Titel", "标题: 请总结")
    )
    records: list[RequestRecord] = []
    gateway.service._site.observers = [records.append]  # noqa: SLF001 - where every record goes
    chat = {"X-OpenWebUI-Chat-Id": "chat-1"}
    for question, side_request in (
        ("one", ""),
        (f"\n### Aufgabe: Titel\n{FILLER}", CUSTOM),
        (f"标题: 请总结\n{FILLER}", CUSTOM),
        ("### Aufgabe: Gedicht", ""),
        (TITLE, "zed/title"),
    ):
        reply = await reply_to(gateway, path, body_for(path, question), **chat)
        assert (reply.headers["x-session-id"] == "chat-1") == (side_request == "")
        assert records[-1].side_request == side_request
    await stop_gateway(gateway)
