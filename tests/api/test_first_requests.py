"""The requests that current clients send first: one row for each behaviour that such a client requires."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from http.client import HTTPConnection
from typing import Any, Final
from urllib.parse import urlsplit

import attrs
import pytest
import pytest_twisted

from brunix_twisted.dialects.endpoints import ENDPOINTS, endpoint_of, with_version
from endpoints import CHAT, COMPLETIONS, MESSAGES, RESPONSES, asking_by_default, whole_text
from gateways import Reply, RunningGateway, in_thread, run_gateway, stop_gateway
from scripted_engine import ScriptedEngine
from wire import check

ALIASES: Final = ("claude-brunix", "company/assistant", "*")
LISTED: Final = ["brunix", "claude-brunix", "company/assistant"]
VERSION: Final = {"anthropic-version": "2023-06-01"}
WEBSOCKET: Final = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}

REMINDER: Final = {"type": "text", "text": "<system-reminder>\nToday is Friday.\n</system-reminder>"}

# The fields without which Codex 0.169.0 rejects the whole list ("failed to decode models response").
CODEX_REQUIRES: Final = {
    "slug": str,
    "display_name": str,
    "supported_reasoning_levels": list,
    "shell_type": str,
    "visibility": str,
    "supported_in_api": bool,
    "priority": int,
    "base_instructions": str,
    "support_verbosity": bool,
    "truncation_policy": dict,
    "supports_parallel_tool_calls": bool,
    "experimental_supported_tools": list,
}


def codex_list(reply: Reply) -> None:
    """Codex reads ``models``, others ``data``, from one object; Codex keeps the ETag."""
    body = reply.json()
    check("openai_models", body)
    assert [model["slug"] for model in body["models"]] == [model["id"] for model in body["data"]] == LISTED
    for model in body["models"]:
        for field, kind in CODEX_REQUIRES.items():
            assert isinstance(model[field], kind), field
    assert reply.headers["etag"].startswith('W/"')


def listed(reply: Reply) -> None:
    assert [model["id"] for model in reply.json()["data"]] == LISTED


def listed_by_ollama(reply: Reply) -> None:
    assert [model["name"].removesuffix(":latest") for model in reply.json()["models"]] == LISTED


def context_lengths(reply: Reply) -> None:
    body = reply.json()
    for model in body.get("data", [body]):
        assert model["context_length"] == model["max_model_len"] == 131_072


def falls_back(reply: Reply) -> None:
    """The error says what to do, in the form of the path's API."""
    check("anthropic_error" if "request-id" in reply.headers else "openai_error", reply.json())
    assert "POST" in reply.body.decode()


def answered(path: str) -> Callable[[Reply], None]:
    def expect(reply: Reply) -> None:
        assert whole_text(path, reply.json()) == "hello "

    return expect


@attrs.frozen
class Row:
    """What a client sends, and what it requires."""

    client: str
    method: str
    path: str
    expected: Callable[[Reply], None]
    status: int = 200
    headers: dict[str, str] = attrs.field(factory=dict)
    json: Any = None


def asks(client: str, path: str, served_by: str) -> Row:
    body = asking_by_default(served_by, "hello") | {"stream": False}
    return Row(client, "POST", path, answered(served_by), json=body)


ROWS: Final = [
    Row("Codex", "GET", "/v1/models?client_version=0.169.0", codex_list),
    Row("Codex without /v1", "GET", "/models?client_version=0.169.0", codex_list),
    Row("Codex over WebSocket", "GET", RESPONSES, falls_back, 426, WEBSOCKET),
    Row("Codex over WebSocket without /v1", "GET", "/responses", falls_back, 426, WEBSOCKET),
    Row("several protocols", "GET", RESPONSES, falls_back, 426, WEBSOCKET | {"Upgrade": "h2c, WebSocket"}),
    *(Row(f"WebSocket at {path}", "GET", path, falls_back, 426, WEBSOCKET) for path in (CHAT, COMPLETIONS, MESSAGES)),
    Row("Claude Code", "GET", "/v1/models?limit=1000", listed, headers=VERSION),
    Row("Claude Code with a base URL that ends in /v1", "GET", "/v1/v1/models?limit=1000", listed, headers=VERSION),
    Row("OpenAI's clients", "GET", "/v1/models", listed),
    Row("Ollama's clients", "GET", "/api/tags", listed_by_ollama),
    Row("IDEs", "GET", "/v1/models", context_lengths),
    Row("IDEs, of one model", "GET", "/v1/models/claude-brunix", context_lengths),
    Row("Jan", "GET", "/models", listed),
    asks("Jan", "/chat/completions", CHAT),
    asks("Home Assistant", "/chat/completions/", CHAT),
    Row(
        "Qwen Code",
        "POST",
        CHAT,
        answered(CHAT),
        json={
            "model": "brunix",
            "messages": [
                {"role": "system", "content": "You are Qwen Code."},
                {"role": "user", "content": [REMINDER, REMINDER, {"type": "text", "text": "hello"}]},
            ],
        },
    ),
    asks("a wrong base URL", "/completions", COMPLETIONS),
    asks("a wrong base URL", "/responses", RESPONSES),
    asks("a wrong base URL", "/messages", MESSAGES),
    asks("a wrong base URL", "/v1/v1/chat/completions", CHAT),
    asks("a wrong base URL", "/v1/v1/messages", MESSAGES),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.client}: {row.method} {row.path}")
@pytest_twisted.ensureDeferred
async def test_the_first_request_of_a_client(engine: ScriptedEngine, row: Row) -> None:
    """A current client gets what it requires, in the form that it reads."""
    gateway = await run_gateway(grpc_target=engine.target, model_aliases=ALIASES)
    arguments = {} if row.json is None else {"json": row.json}
    reply = await gateway.ask(row.method, row.path, headers=row.headers, **arguments)
    assert reply.status == row.status, reply.body
    row.expected(reply)
    await stop_gateway(gateway)


@pytest_twisted.ensureDeferred
async def test_the_connection_serves_http_after_a_refused_websocket(gateway: RunningGateway) -> None:
    """A client can send its question on the connection on which it asked for WebSocket."""

    def ask() -> list[int]:
        connection = HTTPConnection("127.0.0.1", urlsplit(gateway.url).port or 0)
        statuses = []
        try:
            connection.connect()
            sock = connection.sock
            connection.request("GET", RESPONSES, headers=WEBSOCKET)
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)
            # RFC 9110, 15.5.22 and 7.8. The client of the other tests does not pass these headers on.
            assert (response.headers["Upgrade"], response.headers["Connection"]) == ("HTTP/1.1", "Upgrade")
            body = json.dumps(asking_by_default(RESPONSES, "hello"))
            connection.request("POST", RESPONSES, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)
            assert connection.sock is sock
        finally:
            connection.close()
        return statuses

    assert await in_thread(ask) == [426, 200]


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/v1/models", WEBSOCKET, 200),
        ("GET", "/v1/realtime", WEBSOCKET, 404),
        ("GET", RESPONSES, {"Connection": "Upgrade", "Upgrade": "h2c"}, 405),
        ("DELETE", RESPONSES, {}, 405),
    ],
    ids=["a path with an answer", "not offered", "HTTP/2", "no upgrade"],
)
@pytest_twisted.ensureDeferred
async def test_only_a_websocket_gets_426(
    gateway: RunningGateway, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    """A client that asks for something else, or at a path with an answer, is not sent to a POST request."""
    assert (await gateway.ask(method, path, headers=headers)).status == status


@pytest.mark.parametrize("path", ["/v1/models", "/models", "/api/tags"])
@pytest.mark.parametrize("version", [{}, VERSION], ids=["plain", "Anthropic"])
@pytest_twisted.ensureDeferred
async def test_a_client_that_has_the_list_gets_304(gateway: RunningGateway, path: str, version: dict[str, str]) -> None:
    """A client that asks at every start whether the list has changed receives it only if it has."""
    reply = await gateway.ask("GET", path, headers=version)
    tag = reply.headers["etag"]
    for held in (tag, tag.removeprefix("W/"), f'"other", {tag}', f'W/"other",{tag}', "*"):
        again = await gateway.ask("GET", path, headers={**version, "If-None-Match": held})
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag), held
        assert again.headers["vary"] == reply.headers["vary"]
    for held in ('"other"', tag.removeprefix("W/").strip('"')):
        again = await gateway.ask("GET", path, headers={**version, "If-None-Match": held})
        assert (again.status, again.body) == (200, reply.body), held
    split = {**version, "If-None-Match": ['"other"', tag]}
    assert (await gateway.ask("HEAD", path, headers=split)).status == 304


@pytest.mark.parametrize(
    "changed", [{"model_id": "other"}, {"model_aliases": ("claude-brunix",)}, {"context_length": 9}]
)
@pytest_twisted.ensureDeferred
async def test_the_tag_changes_with_the_list(engine: ScriptedEngine, changed: dict[str, Any]) -> None:
    """A client that keeps the list notices that a restarted gateway has another."""
    tags = []
    for settings in ({}, changed):
        gateway = await run_gateway(grpc_target=engine.target, **settings)
        tags.append((await gateway.ask("GET", "/v1/models")).headers["etag"])
        await stop_gateway(gateway)
    assert tags[0] != tags[1]


@pytest_twisted.ensureDeferred
async def test_the_same_list_has_the_same_tag(engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client receives the list again from each process of a gateway, and after each restart."""
    tags = []
    for now_s in (1_000.0, 2_000.0):
        monkeypatch.setattr(time, "time", lambda now_s=now_s: now_s)
        gateway = await run_gateway(grpc_target=engine.target)
        tags += [(await gateway.ask("GET", path)).headers["etag"] for path in ("/v1/models", "/api/tags")]
        await stop_gateway(gateway)
    assert tags[:2] == tags[2:]


def test_a_prefix_that_is_repeated() -> None:
    """A long path ends the connection without a response."""
    assert with_version("/v1" * 1_200 + "/models") == "/v1/models"


@pytest.mark.parametrize("path", [path.replace("{id}", "a") for path in ENDPOINTS])
def test_a_path_without_v1_is_counted_as_the_one_with_it(path: str) -> None:
    """The log and the metrics have one label for both; the page, health and Ollama's paths stay what they are."""
    assert with_version(path) == path
    if path.startswith("/v1/"):
        for wrong in (path.removeprefix("/v1"), f"/v1{path}", f"/v1/v1{path}"):
            assert with_version(wrong) == path
            assert endpoint_of(with_version(wrong)) == endpoint_of(path)


@pytest.mark.parametrize("path", ["/", "*", "/v1", "/v1/v1", "/chatter", "/model", "/page/models", "/api/models"])
def test_other_paths_are_not_completed(path: str) -> None:
    """A path that only resembles one of these is reported as it was requested."""
    assert with_version(path) == path


@pytest_twisted.ensureDeferred
async def test_the_record_has_the_complete_path(engine: ScriptedEngine) -> None:
    """An operator finds a request without /v1 under the endpoint that answered it."""
    gateway = await run_gateway(grpc_target=engine.target)
    records: list[tuple[str, str, str]] = []
    gateway.service._site.observers = [  # noqa: SLF001 - what a caller cannot reach
        lambda record: records.append((record.path, record.endpoint, record.dialect))
    ]
    await gateway.ask("GET", "/models")
    await gateway.ask("GET", "/messages", headers=VERSION)
    assert records == [("/v1/models", "/v1/models", "openai"), (MESSAGES, MESSAGES, "anthropic")]
    await stop_gateway(gateway)
