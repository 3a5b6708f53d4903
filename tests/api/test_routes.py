"""The endpoints over real HTTP, with a real gRPC engine behind them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from brunix_twisted.engine.sample_questions import METADATA
from endpoints import (
    CHAT,
    COMPLETIONS,
    ENDPOINTS,
    GENERATE,
    MESSAGES,
    OLLAMA_CHAT,
    PATHS,
    asking_by_default,
    error_schema,
    streamed,
    whole_text,
)
from gateways import Reply, RunningGateway, in_thread, run_gateway, stop_gateway
from scripted_engine import ScriptedEngine, script
from wire import check

every_endpoint = pytest.mark.parametrize("path", PATHS)
streamed_or_whole = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])


def body_for(path: str, query: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever JSON holds
    """Ask a question in the words of an endpoint."""
    return {**asking_by_default(path, query), **more}


def text_in(path: str, reply: Reply, *, stream: bool) -> str:
    """Read the answer's text as a client does, and check every body on the way."""
    endpoint = ENDPOINTS[path]
    piece, whole, _ = endpoint.schemas
    if not stream:
        check(whole, reply.json())
        return whole_text(path, reply.json())
    for event in endpoint.events(reply.body):
        check(piece, event)
    answer = streamed(path, reply.body)
    assert answer.complete
    return answer.text


@every_endpoint
@streamed_or_whole
@pytest_twisted.ensureDeferred
async def test_answer(gateway: RunningGateway, engine: ScriptedEngine, path: str, *, stream: bool) -> None:
    """A client of this API would get no answer, or one whose form it does not understand."""
    reply = await gateway.ask("POST", path, json=body_for(path, "every word of this", stream=stream))
    assert reply.status == 200
    assert text_in(path, reply, stream=stream) == "every word of this "
    assert engine.calls[0].request.query == "every word of this"
    assert engine.calls[0].rpc == ("AskAgentStream" if stream else "AskAgent")
    framing = "application/x-ndjson" if path.startswith("/api") else "text/event-stream; charset=utf-8"
    assert reply.headers["content-type"] == (framing if stream else "application/json; charset=utf-8")
    assert reply.headers["cache-control"] == "no-store"
    assert len(engine.calls) == 1


@pytest.mark.parametrize(("path", "stream"), [(path, path.startswith("/api")) for path in PATHS])
@pytest_twisted.ensureDeferred
async def test_default_of_stream(gateway: RunningGateway, path: str, *, stream: bool) -> None:
    """A client that does not say whether to stream would get the other form."""
    reply = await gateway.ask("POST", path, json=body_for(path, "hello"))
    assert text_in(path, reply, stream=stream) == "hello "


class Pieces(Protocol):
    """Reads a response's body piece by piece."""

    def __init__(self) -> None:
        self.body = b""
        self._wanted = b""
        self._found: Deferred[None] | None = None
        self.ended: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.body += data
        self._look()

    def connectionLost(self, reason: Failure = connectionDone) -> None:  # noqa: ARG002 - IProtocol
        self.ended.callback(None)

    def until(self, wanted: bytes) -> Deferred[None]:
        """Fire once this has come."""
        self._wanted, self._found = wanted, Deferred()
        found = self._found
        self._look()
        return found

    def _look(self) -> None:
        if self._found is not None and self._wanted in self.body:
            found, self._found = self._found, None
            found.callback(None)


@every_endpoint
@pytest_twisted.ensureDeferred
async def test_tokens_come_as_the_engine_sends_them(gateway: RunningGateway, engine: ScriptedEngine, path: str) -> None:
    """A user would stare at nothing until the whole answer is there."""
    query = script("first", {"wait": "the client has the first"}, "second", {"wait": "the second"}, "third")
    response = await gateway.send("POST", path, json=body_for(path, query, stream=True))
    pieces = Pieces()
    response.deliverBody(pieces)
    # The engine does not go on before the client has what was sent: buffering anywhere would end in a deadlock.
    await pieces.until(b'"first"')
    assert b'"second"' not in pieces.body
    engine.go("the client has the first")
    await pieces.until(b'"second"')
    assert b'"third"' not in pieces.body
    engine.go("the second")
    await pieces.ended
    assert b'"third"' in pieces.body


# Sessions.


@every_endpoint
@streamed_or_whole
@pytest_twisted.ensureDeferred
async def test_session_in_the_body(gateway: RunningGateway, engine: ScriptedEngine, path: str, *, stream: bool) -> None:
    """A caller who names an engine session would be answered in another."""
    body = body_for(path, "hello", stream=stream, session_id="from-the-body")
    reply = await gateway.ask("POST", path, json=body, headers={"X-Session-Id": "from-the-header"})
    assert engine.calls[0].request.session_id == "from-the-body"
    assert reply.headers["x-session-id"] == "from-the-body"


@every_endpoint
@pytest_twisted.ensureDeferred
async def test_session_in_the_header(gateway: RunningGateway, engine: ScriptedEngine, path: str) -> None:
    """A caller who cannot change the body could not name a session."""
    reply = await gateway.ask("POST", path, json=body_for(path, "hello"), headers={"X-Session-Id": "mine"})
    assert engine.calls[0].request.session_id == "mine"
    assert reply.headers["x-session-id"] == "mine"


@every_endpoint
@pytest_twisted.ensureDeferred
async def test_fresh_session(gateway: RunningGateway, engine: ScriptedEngine, path: str) -> None:
    """Two callers who name no session would read each other's conversation in the engine's shared default."""
    replies = [await gateway.ask("POST", path, json=body_for(path, "hello", session_id="")) for _ in range(3)]
    used = [asked.request.session_id for asked in engine.calls]
    assert len(set(used)) == 3
    assert not {"", "default"} & set(used)
    assert [reply.headers["x-session-id"] for reply in replies] == used


@pytest.mark.parametrize("session_id", ["two words", "tab\t", "é", "x" * 257])
@pytest_twisted.ensureDeferred
async def test_unsafe_session(gateway: RunningGateway, engine: ScriptedEngine, session_id: str) -> None:
    """A session id could break a log line or a header in two."""
    reply = await gateway.ask("POST", CHAT, json=body_for(CHAT, "hello", session_id=session_id))
    assert reply.status == 400
    assert reply.json()["error"]["param"] == "session_id"
    assert engine.calls == []


@pytest_twisted.ensureDeferred
async def test_prompts_do_not_share_a_session(gateway: RunningGateway, engine: ScriptedEngine) -> None:
    """Of several prompts in one request, the second would be answered in the context of the first."""
    body = {"model": "brunix", "prompt": ["one", "two"]}
    reply = await gateway.ask("POST", COMPLETIONS, json=body)
    check("openai_completion", reply.json())
    assert [(choice["index"], choice["text"]) for choice in reply.json()["choices"]] == [(0, "one "), (1, "two ")]
    first, second = (asked.request.session_id for asked in engine.calls)
    assert first != second
    assert reply.headers["x-session-id"] == f"{first}, {second}"


# Request ids.


@pytest_twisted.ensureDeferred
async def test_request_id_of_the_caller(gateway: RunningGateway, engine: ScriptedEngine) -> None:
    """A caller could not find its request in the gateway's and the engine's logs."""
    reply = await gateway.ask("POST", CHAT, json=body_for(CHAT, "hello"), headers={"X-Request-Id": "req-1"})
    assert reply.headers["x-request-id"] == "req-1"
    assert engine.calls[0].metadata["x-request-id"] == "req-1"


@pytest.mark.parametrize("given", ["", "two words", "x" * 129, "é", '"'])
@pytest_twisted.ensureDeferred
async def test_request_id_that_is_not_sane(gateway: RunningGateway, engine: ScriptedEngine, given: str) -> None:
    """A caller could write whatever it likes into the logs."""
    reply = await gateway.ask("POST", CHAT, json=body_for(CHAT, "hello"), headers={"X-Request-Id": given.encode()})
    assert reply.status == 200
    assert reply.headers["x-request-id"].isalnum()
    assert engine.calls[0].metadata["x-request-id"] == reply.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/", "/v1/models", "/api/tags", "/health", "/nothing", "/api/chat"])
@pytest_twisted.ensureDeferred
async def test_every_answer_has_a_request_id(gateway: RunningGateway, path: str) -> None:
    """The answer to some requests could not be found in the log."""
    replies = [await gateway.ask("GET", path) for _ in range(2)]
    assert len({reply.headers["x-request-id"] for reply in replies}) == 2


# What is told without the engine.


@pytest.mark.parametrize(
    ("path", "schema"),
    [
        ("/v1/models", "openai_models"),
        ("/v1/models/brunix", "openai_model"),
        ("/v1/models/brunix:latest", "openai_model"),
        ("/api/tags", "ollama_tags"),
        ("/api/ps", "ollama_ps"),
        ("/api/version", "ollama_version"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_listing(gateway: RunningGateway, path: str, schema: str) -> None:
    """A client would not find the model, or refuse the whole list."""
    reply = await gateway.ask("GET", path)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json; charset=utf-8")
    check(schema, reply.json())
    head = await gateway.ask("HEAD", path)
    assert (head.status, head.body) == (200, b"")


@pytest.mark.parametrize("key", ["model", "name"])
@pytest_twisted.ensureDeferred
async def test_show(gateway: RunningGateway, key: str) -> None:
    """A client of Ollama's would not learn what the model can do, and hide it."""
    reply = await gateway.ask("POST", "/api/show", json={key: "brunix:latest"})
    assert reply.status == 200
    check("ollama_show", reply.json())


@pytest_twisted.ensureDeferred
async def test_root(gateway: RunningGateway) -> None:
    """A client of Ollama's would say that no server is there."""
    reply = await gateway.ask("GET", "/")
    assert (reply.status, reply.body) == (200, b"Ollama is running")
    head = await gateway.ask("HEAD", "/")
    assert (head.status, head.body) == (200, b"")


@pytest.mark.parametrize(("keep_alive", "reason"), [(None, "load"), ("5m", "load"), (0, "unload")])
@pytest.mark.parametrize("path", [OLLAMA_CHAT, GENERATE])
@pytest_twisted.ensureDeferred
async def test_load(
    gateway: RunningGateway, engine: ScriptedEngine, path: str, keep_alive: object, reason: str
) -> None:
    """A chat UI that loads the model first would ask the engine an empty question."""
    reply = await gateway.ask("POST", path, json={"model": "brunix", "keep_alive": keep_alive})
    assert reply.status == 200
    check("ollama_chat" if path == OLLAMA_CHAT else "ollama_generate", reply.json())
    assert reply.json()["done_reason"] == reason
    assert engine.calls == []


# Health.


@pytest_twisted.ensureDeferred
async def test_health(gateway: RunningGateway) -> None:
    """A supervisor would take a gateway that answers for one that does not."""
    reply = await gateway.ask("GET", "/health")
    assert (reply.status, reply.json()["status"]) == (200, "ok")


@pytest_twisted.ensureDeferred
async def test_health_of_an_engine_without_the_health_service() -> None:
    """An engine that offers no health service would be taken for one that is down."""
    engine = ScriptedEngine(with_health=False)
    gateway = await run_gateway(grpc_target=engine.target)
    reply = await gateway.ask("GET", "/health")
    assert (reply.status, reply.json()["status"]) == (200, "ok")
    await stop_gateway(gateway)
    engine.stop()


@pytest_twisted.ensureDeferred
async def test_health_without_an_engine(gateway: RunningGateway, engine: ScriptedEngine) -> None:
    """A supervisor would send questions to a gateway that cannot answer them."""
    await in_thread(engine.stop)
    reply = await gateway.ask("GET", "/health")
    assert (reply.status, reply.json()["status"]) == (503, "unavailable")
    assert reply.json()["reason"] == "The engine is unreachable"
    live = await gateway.ask("GET", "/health/live")
    assert (live.status, live.json()["status"]) == (200, "ok")


@pytest_twisted.ensureDeferred
async def test_health_needs_no_worker(engine: ScriptedEngine) -> None:
    """A gateway that is only busy would be taken for a broken one, and restarted."""
    gateway = await run_gateway(grpc_target=engine.target, thread_workers=1, drain_s=0.0)
    response = await gateway.send("POST", CHAT, json=body_for(CHAT, script("a", {"hang": True}), stream=True))
    reply = await gateway.ask("GET", "/health")
    assert (reply.status, reply.json()["status"]) == (200, "ok")
    pieces = Pieces()
    response.deliverBody(pieces)
    await stop_gateway(gateway)
    await pieces.ended


# What fails.


def assert_error(path: str, reply: Reply, status: int) -> str:
    """Check that a failure is told in the dialect of its path, and return its words."""
    assert reply.status == status
    assert reply.headers["content-type"] == "application/json; charset=utf-8"
    check(error_schema(path), reply.json())
    error = reply.json()["error"]
    return str(error if path.startswith("/api") else error["message"])


@pytest.mark.parametrize("path", ["/nothing", "/v1", "/v1/nothing", "/v1/chat", "/api", "/api/nothing", "/%ff", "/%00"])
@pytest_twisted.ensureDeferred
async def test_unknown_path(gateway: RunningGateway, path: str) -> None:
    """A client would fail to parse an HTML page instead of reading what is wrong."""
    reply = await gateway.ask("GET", path)
    assert "Unknown path: /" in assert_error(path, reply, 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        *(("GET", path, "POST") for path in PATHS),
        ("GET", "/api/show", "POST"),
        ("DELETE", "/v1/models", "GET, HEAD"),
        ("POST", "/api/tags", "GET, HEAD"),
        ("PATCH", "/", "GET, HEAD"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_wrong_method(gateway: RunningGateway, method: str, path: str, allowed: str) -> None:
    """A client would fail to parse an HTML page instead of reading which method is right."""
    reply = await gateway.ask(method, path)
    assert allowed in assert_error(path, reply, 405)
    assert reply.headers["allow"] == allowed


@pytest.mark.parametrize("path", [*PATHS, "/api/show"])
@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"[]", "JSON object"),
        (b"{}", "model"),
        (b'{"model": 5}', "model"),
        (b'{"model": "brunix", "messages": 5, "prompt": 5, "options": 5, "verbose": 5}', ""),
    ],
)
@pytest_twisted.ensureDeferred
async def test_bad_body(gateway: RunningGateway, engine: ScriptedEngine, path: str, body: bytes, named: str) -> None:
    """A mistake in a request would reach the engine, or be answered without saying what is wrong."""
    reply = await gateway.ask("POST", path, data=body)
    assert named in assert_error(path, reply, 400)
    assert reply.headers["x-should-retry"] == "false"
    assert engine.calls == []


@pytest.mark.parametrize("path", [*PATHS, "/api/show"])
@pytest_twisted.ensureDeferred
async def test_unknown_model(gateway: RunningGateway, engine: ScriptedEngine, path: str) -> None:
    """A client with a mistyped model would be answered by another than it asked for."""
    reply = await gateway.ask(
        "POST", path, json=body_for(path if path in PATHS else CHAT, "hello") | {"model": "gpt-7"}
    )
    assert "gpt-7" in assert_error(path, reply, 404)
    assert engine.calls == []


@pytest_twisted.ensureDeferred
async def test_models_as_anthropic_lists_them(gateway: RunningGateway) -> None:
    """A program with Anthropic's package would find a list of models that it cannot read."""
    version = {"anthropic-version": "2023-06-01"}
    models = (await gateway.ask("GET", "/v1/models", headers=version)).json()
    (model,) = models.pop("data")
    assert models == {"has_more": False, "first_id": "brunix", "last_id": "brunix"}
    check("anthropic_model", model)
    assert (model["id"], model["display_name"]) == ("brunix", "brunix")
    one = (await gateway.ask("GET", "/v1/models/brunix:latest", headers=version)).json()
    assert (one["id"], one["type"]) == ("brunix:latest", "model")
    assert (await gateway.ask("GET", "/v1/models/gpt-7", headers=version)).status == 404


@pytest_twisted.ensureDeferred
async def test_request_id_as_anthropic_sends_it(gateway: RunningGateway) -> None:
    """A program with Anthropic's package could not tell its operator which request went wrong."""
    for body in (body_for(MESSAGES, "hello"), {}):
        reply = await gateway.ask("POST", MESSAGES, json=body)
        assert reply.headers["request-id"] == reply.headers["x-request-id"]


@pytest_twisted.ensureDeferred
async def test_aliases(engine: ScriptedEngine) -> None:
    """A client whose model name cannot be changed could not be used, though the operator allowed that name."""
    gateway = await run_gateway(grpc_target=engine.target, model_aliases=("gpt-4o",))
    for name in ("gpt-4o", "brunix", "brunix:latest"):
        reply = await gateway.ask("POST", CHAT, json=body_for(CHAT, "hello") | {"model": name})
        assert (reply.status, reply.json()["model"]) == (200, name)
    await stop_gateway(gateway)


@every_endpoint
@streamed_or_whole
@pytest_twisted.ensureDeferred
async def test_engine_unreachable(gateway: RunningGateway, engine: ScriptedEngine, path: str, *, stream: bool) -> None:
    """A user would wait, or see an empty answer, when the engine is down."""
    await in_thread(engine.stop)
    reply = await gateway.ask("POST", path, json=body_for(path, "hello", stream=stream))
    assert "unreachable" in assert_error(path, reply, 503)
    assert reply.headers["retry-after"] == "1"


# How requests come in.


@pytest.mark.parametrize(
    "path", ["//api/version", "/api/version/", "/api//version//", "/api/version?x=1", "/%61pi/version"]
)
@pytest_twisted.ensureDeferred
async def test_spellings_of_a_path(gateway: RunningGateway, path: str) -> None:
    """A client that joins its base URL and the path with a slash too many would get a 404 or a redirect."""
    reply = await gateway.ask("GET", path)
    assert (reply.status, reply.json()) == (200, {"version": "0.14.0"})


@pytest.mark.parametrize(
    "content_type", [None, "application/x-www-form-urlencoded", "multipart/form-data", "text/plain"]
)
@pytest_twisted.ensureDeferred
async def test_content_type_does_not_matter(gateway: RunningGateway, content_type: str | None) -> None:
    """``curl -d`` and clients that send no Content-Type would be refused, or their question lost."""
    headers = {} if content_type is None else {"Content-Type": content_type}
    reply = await gateway.ask("POST", CHAT, data=json.dumps(body_for(CHAT, "a=b&c=d")).encode(), headers=headers)
    assert text_in(CHAT, reply, stream=False) == "a=b&c=d "


@pytest.mark.parametrize("host", ["localhost", "%41.localhost", "a,b.localhost:", "[::1]:8000"])
@pytest_twisted.ensureDeferred
async def test_host_does_not_matter_to_routing(gateway: RunningGateway, host: str) -> None:
    """A strange Host header would be answered with a traceback."""
    reply = await gateway.ask("GET", "/v1/models", headers={"Host": host})
    assert reply.status == 200


@pytest_twisted.ensureDeferred
async def test_sample_questions(gateway: RunningGateway, engine: ScriptedEngine) -> None:
    """The page offers the questions that the engine reports with its health."""
    engine.health.trailing_metadata = ((METADATA, json.dumps(["¿Cuándo?", "What is Floop?"]).encode()),)
    reply = await gateway.ask("GET", "/page/questions.json")
    assert (reply.status, reply.json()) == (200, {"questions": ["¿Cuándo?", "What is Floop?"]})


@pytest.mark.parametrize(
    "reported",
    [
        (),
        ((METADATA, b"no JSON"),),
        ((METADATA, b"[" * 5000),),
        ((METADATA, b"3"),),
        ((METADATA, json.dumps([3, " ", "?" * 5000]).encode()),),
    ],
    ids=["nothing", "no JSON", "nested", "no list", "no questions"],
)
@pytest_twisted.ensureDeferred
async def test_no_sample_questions(
    gateway: RunningGateway, engine: ScriptedEngine, reported: tuple[tuple[str, bytes], ...]
) -> None:
    """Without valid questions the list is empty, and the engine stays healthy."""
    engine.health.trailing_metadata = reported
    assert (await gateway.ask("GET", "/page/questions.json")).json() == {"questions": []}
    assert (await gateway.ask("GET", "/health")).status == 200


@pytest_twisted.ensureDeferred
async def test_sample_questions_without_an_engine(gateway: RunningGateway, engine: ScriptedEngine) -> None:
    """Without an engine, the list is empty, and not an error."""
    engine.stop()
    assert (await gateway.ask("GET", "/page/questions.json")).json() == {"questions": []}
