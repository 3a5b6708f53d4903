"""The state of the caller's editor on its way to the engine, within the field ``user`` of a chat completion."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
import pytest_twisted

from brunix_twisted.api.caller import owner_of
from brunix_twisted.dialects.editor import read_editor
from brunix_twisted.errors import GatewayError
from brunix_twisted.model import EditorContext
from gateways import Reply, RunningGateway
from log_lines import LogLines, log_lines
from scripted_engine import ScriptedEngine
from wire import check

CHAT: Final = "/v1/chat/completions"
FIELDS: Final = ("editor_content", "selected_text", "extra_context", "user_info")
TEXTS: Final = FIELDS[:3]


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


CODE: Final = encoded('def größe():\n    return "\u2028😀"\n')
SELECTED: Final = encoded("größe")
EXTRA: Final = encoded("")
INFO: Final = '{ "dev_id": 7,"org_id" : "Ä",  "n": 1.50 }'

streamed_or_whole = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])


async def ask(gateway: RunningGateway, user: str, *, stream: bool = False) -> Reply:
    messages = [{"role": "user", "content": "hello"}]
    body = {"model": "brunix", "messages": messages, "user": user, "stream": stream}
    return await gateway.ask("POST", CHAT, json=body)


def arrived(engine: ScriptedEngine) -> dict[str, str]:
    """List the editor's fields that the engine was sent, however empty."""
    (asked,) = engine.calls
    return {name: getattr(asked.request, name) for name in FIELDS if asked.request.HasField(name)}


@streamed_or_whole
@pytest.mark.parametrize(
    ("user", "fields"),
    [
        (
            {"editor_content": CODE, "selected_text": SELECTED, "extra_context": EXTRA, "user_info": INFO},
            {"editor_content": CODE, "selected_text": SELECTED, "extra_context": EXTRA, "user_info": INFO},
        ),
        ({"editor_content": CODE}, {"editor_content": CODE}),
        ({"selected_text": SELECTED, "theme": [1]}, {"selected_text": SELECTED}),
        ({"extra_context": "", "editor_content": None}, {"extra_context": ""}),
        ({"user_info": INFO}, {"user_info": INFO}),
        ({"user_info": {"dev_id": 7, "org_id": "Ä"}}, {"user_info": '{"dev_id":7,"org_id":"Ä"}'}),
        ({"user_info": {}}, {"user_info": "{}"}),
        ({"user_info": None}, {}),
        ({"user_info": ""}, {}),
    ],
)
@pytest_twisted.ensureDeferred
async def test_passed_on(
    gateway: RunningGateway, engine: ScriptedEngine, user: dict[str, Any], fields: dict[str, str], *, stream: bool
) -> None:
    """The engine would answer without the file that is open in the user's editor, or with another text."""
    reply = await ask(gateway, json.dumps(user), stream=stream)
    assert reply.status == 200
    assert arrived(engine) == fields


@pytest_twisted.ensureDeferred
async def test_nothing_to_pass_on(gateway: RunningGateway, engine: ScriptedEngine) -> None:
    """An engine would take an editor that is not there for one with an empty file."""
    reply = await gateway.ask(
        "POST", CHAT, json={"model": "brunix", "messages": [{"role": "user", "content": "hello"}]}
    )
    assert reply.status == 200
    assert arrived(engine) == {}


def test_an_objects_text_says_the_same() -> None:
    """Numbers and names in what the extension knows of its user would reach the engine as others."""
    info = {"id": 123456789012345678901234567890, "f": 0.1, "t": "\u2028é\x00", "n": None, "l": [[{}]]}
    user_info = read_editor(json.dumps({"user_info": info})).user_info
    assert user_info is not None
    assert json.loads(user_info) == info


# What is not such an object is an id of the caller's own.

ORDINARY: Final = [
    "",
    "user-1234",
    "mrs.smith@example.com",
    "1234567890123",
    "null",
    "true",
    '"editor_content"',
    "[]",
    '["editor_content"]',
    "{}",
    '{"id": "mrs.smith"}',
    '{"Editor_Content": 5}',
    '{"nested": {"editor_content": 5}}',
    '{"editor_content": 5',
    '{"editor_content": 5}}',
    '{"editor_content": "\\ud800"}',
    "{'editor_content': 5}",
    "editor_content=5",
    '{"editor_content": ' + "[" * 5000 + "]" * 5000 + "}",
    "\x1b[2J\n😀",
]


@pytest.mark.parametrize("user", ORDINARY)
def test_ordinary_user(user: str) -> None:
    """A client that says who its user is would be refused, or its user's id would be taken for an editor's state."""
    assert read_editor(user) == EditorContext()


def test_no_user() -> None:
    """A client that says nothing of its user would be refused."""
    assert read_editor(None) == EditorContext()


@pytest.fixture
def log() -> Iterator[LogLines]:
    with log_lines() as lines:
        yield lines


@pytest.mark.parametrize("user", [user for user in ORDINARY if user])
@pytest_twisted.ensureDeferred
async def test_ordinary_user_passes(gateway: RunningGateway, engine: ScriptedEngine, log: LogLines, user: str) -> None:
    """A user's name would stand in the operator's log, or go to the engine as a state of an editor."""
    reply = await ask(gateway, user)
    assert reply.status == 200
    broken = user.startswith('{"editor_content": ')
    assert reply.headers.get("x-brunix-ignored") == ("user" if broken else None)
    assert arrived(engine) == {}
    (line,) = log.texts
    assert line.startswith(f"POST {CHAT} 200 ")
    assert user not in line


@pytest_twisted.ensureDeferred
async def test_an_editors_state_is_not_logged(gateway: RunningGateway, log: LogLines) -> None:
    """A user's code would stand in the operator's log."""
    await ask(gateway, json.dumps({"editor_content": CODE, "user_info": {"dev_id": "mrs.smith"}}))
    await ask(gateway, json.dumps({"editor_content": CODE, "user_info": "mrs.smith"}))
    assert [line.split()[2] for line in log.texts] == ["200", "400"]
    assert not [line for line in log.texts if CODE[:8] in line or "smith" in line]


# What is such an object is checked.

NOT_BASE64_OF_TEXT: Final = (
    *("mrs.smith", "YQ", "YQ=", "YQ===", "=", "YQ==YQ==", "Y Q==", "YQ==\n", "-_-_", "é"),
    # Bytes that are no UTF-8, and a surrogate in what only resembles it.
    *("/w==", "7aCA"),
)

MALFORMED: Final[list[tuple[str, object]]] = [
    *((name, value) for name in FIELDS for value in (5, True, [], ["YQ=="])),
    *((name, {}) for name in TEXTS),
    *((name, value) for name in TEXTS for value in NOT_BASE64_OF_TEXT),
    *(("user_info", value) for value in ("mrs.smith", "null", "[]", "5", "{", '"{}"', "{}{}", encoded("{}"))),
]


@pytest.mark.parametrize(("name", "value"), MALFORMED)
def test_malformed(name: str, value: object) -> None:
    """The engine would fail on what an extension has sent by mistake, and nobody would know which field it was."""
    for others in ({}, {other: None for other in FIELDS if other != name}):
        with pytest.raises(GatewayError) as caught:
            read_editor(json.dumps({**others, name: value}))
        assert (caught.value.kind.status, caught.value.param) == (400, f"user.{name}")
        assert f"'user.{name}'" in caught.value.message
        assert "mrs.smith" not in caught.value.message


@streamed_or_whole
@pytest.mark.parametrize("name", FIELDS)
@pytest_twisted.ensureDeferred
async def test_malformed_is_refused(
    gateway: RunningGateway, engine: ScriptedEngine, name: str, *, stream: bool
) -> None:
    """An extension's mistake would be a failure of the engine's, repeated again and again by its SDK."""
    reply = await ask(gateway, json.dumps({name: "%"}), stream=stream)
    assert reply.status == 400
    check("openai_error", reply.json())
    assert reply.json()["error"]["param"] == f"user.{name}"
    assert reply.headers["x-should-retry"] == "false"
    assert engine.calls == []


@pytest_twisted.ensureDeferred
async def test_only_in_a_chat(gateway: RunningGateway, engine: ScriptedEngine) -> None:
    """A completion, which knows no editor, would be refused for what its caller calls a user."""
    body = {"model": "brunix", "prompt": "hello", "user": '{"editor_content": 5}'}
    reply = await gateway.ask("POST", "/v1/completions", json=body)
    assert reply.status == 200
    assert reply.headers["x-brunix-ignored"] == "user"
    assert arrived(engine) == {}


# In whose session a conversation goes on.

ANN: Final = {"dev_id": "ann", "project_id": "p", "org_id": "o"}
NOBODY: Final[list[object]] = [
    *({}, None, {"org_id": "o"}, {"dev_id": None, "org_id": "o"}, {"dev_id": ""}, {"dev_id": " "}, {"dev_id": 0}),
    *(
        {"dev_id": "null"},
        {"dev_id": "undefined"},
        {"dev_id": "0"},
        {"dev_id": True},
        {"dev_id": ["ann"]},
        {"dev_id": {}},
    ),
]

with_an_editor = pytest.mark.parametrize("path", [CHAT, "/v1/responses"])


async def converse(
    gateway: RunningGateway, path: str, messages: list[dict[str, str]], editor: dict[str, Any] | None
) -> tuple[str, list[dict[str, str]]]:
    """Ask, and give the session and the conversation with the answer in it."""
    body: dict[str, Any] = {"model": "brunix", "input" if path == "/v1/responses" else "messages": messages}
    if editor is not None:
        body["user"] = json.dumps(editor)
    reply = await gateway.ask("POST", path, json=body)
    assert reply.status == 200, reply.body
    answer = {"role": "assistant", "content": messages[-1]["content"]}
    return reply.headers["x-session-id"], [*messages, answer]


def said(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


@with_an_editor
@pytest_twisted.ensureDeferred
async def test_the_same_person_goes_on_while_the_editor_changes(gateway: RunningGateway, path: str) -> None:
    """A developer keeps the conversation though each question comes with another state of the editor."""
    session_id, messages = await converse(
        gateway, path, [said("hello")], {"editor_content": CODE, "selected_text": SELECTED, "user_info": ANN}
    )
    spelled = '{ "org_id": "o", "dev_id" : "ann", "project_id":"p" }'
    for editor in ({"editor_content": EXTRA, "user_info": ANN}, {"user_info": spelled}, {"user_info": ANN}):
        another, messages = await converse(gateway, path, [*messages, said("and?")], editor)
        assert another == session_id


@with_an_editor
@pytest.mark.parametrize(
    "other",
    [
        None,
        {},
        {"editor_content": CODE},
        {"editor_content": CODE, "user_info": {}},
        {"editor_content": CODE, "user_info": {**ANN, "dev_id": "bob"}},
        {"editor_content": CODE, "user_info": {**ANN, "project_id": "q"}},
        {"editor_content": CODE, "user_info": {"dev_id": "ann"}},
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_persons_session_is_no_one_elses(
    gateway: RunningGateway, path: str, other: dict[str, Any] | None
) -> None:
    """A caller who only repeats question and answer is not asked in the session that holds a developer's code."""
    own = {"editor_content": CODE, "user_info": ANN}
    session_id, messages = await converse(gateway, path, [said("hello")], own)
    elsewhere, _ = await converse(gateway, path, [*messages, said("what was in the editor?")], other)
    assert elsewhere != session_id
    assert (await converse(gateway, path, [*messages, said("and?")], own))[0] == session_id


@pytest.mark.parametrize("user_info", NOBODY)
@pytest_twisted.ensureDeferred
async def test_where_no_person_is_named_the_editor_must_be_the_same(
    gateway: RunningGateway, user_info: dict[str, Any] | None
) -> None:
    """Two developers who began alike, and whose extension does not say who they are, never see each other's code."""
    own = {"editor_content": CODE, "user_info": user_info}
    session_id, messages = await converse(gateway, CHAT, [said("hello")], own)
    for other in (None, own | {"editor_content": EXTRA}, own | {"selected_text": SELECTED}, own | {"user_info": ANN}):
        assert (await converse(gateway, CHAT, [*messages, said("and?")], other))[0] != session_id
    assert (await converse(gateway, CHAT, [*messages, said("and?")], own))[0] == session_id


@pytest_twisted.ensureDeferred
async def test_a_session_without_an_editor_stays_without(gateway: RunningGateway) -> None:
    """A conversation held on a web page goes on there, and an editor that presents it begins a session of its own."""
    session_id, messages = await converse(gateway, CHAT, [said("hello")], None)
    assert (await converse(gateway, CHAT, [*messages, said("and?")], {"user_info": ANN}))[0] != session_id
    assert (await converse(gateway, CHAT, [*messages, said("and?")], {"id": "an ordinary user"}))[0] == session_id


def test_who_may_go_on_is_not_guessed_from_a_border() -> None:
    """The fields of an editor's state cannot be shifted into one another to open a session."""
    states = [
        EditorContext(editor_content=CODE),
        EditorContext(selected_text=CODE),
        EditorContext(extra_context=CODE),
        EditorContext(user_info=json.dumps({"x": CODE})),
        EditorContext(editor_content=CODE, selected_text=""),
        EditorContext(editor_content=""),
        EditorContext(user_info='{"dev_id": 7}'),
        EditorContext(user_info='{"dev_id": "7"}'),
        EditorContext(user_info='{"dev_id": 7, "n": ' + "9" * 5000 + "}"),
        EditorContext(user_info='{"dev_id": 7, "l": ' + "[" * 100_000 + "]" * 100_000 + "}"),
        EditorContext(),
    ]
    assert len({owner_of(state) for state in states}) == len(states)
