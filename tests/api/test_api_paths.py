"""The paths of the public APIs: every documented operation is served, or says why it is not, in its own API's form."""

from __future__ import annotations

import re
from typing import Final

import pytest
import pytest_twisted

from brunix_twisted.dialects.endpoints import ENDPOINTS, DialectName, endpoint_of, not_offered
from endpoints import CHAT, MESSAGES
from gateways import RunningGateway, run_gateway, stop_gateway
from paths import TESTS
from scripted_engine import ScriptedEngine, script
from wire import check, message_events

OPERATIONS: Final = TESTS / "support" / "operations"
VERSION: Final = {"anthropic-version": "2023-06-01"}

# Documented operations on paths that have a route for another method: they are answered with 405 and Allow.
OTHER_METHODS: Final = {"GET /v1/chat/completions", "DELETE /v1/models/{model}"}


def operations(api: str) -> list[tuple[str, str]]:
    """Read the documented operations of an API, each a method and a path."""
    lines = (OPERATIONS / f"{api}.txt").read_text("utf-8").splitlines()
    return [(method, path) for method, path in (line.split() for line in lines if not line.startswith("#"))]


def called(path: str) -> str:
    """Put something into a path where an id goes."""
    return re.sub(r"\{\w+\}", "abc-1", path)


SERVED: Final = {
    "openai": {
        "GET /v1/models",
        "GET /v1/models/{model}",
        "POST /v1/chat/completions",
        "POST /v1/completions",
        "POST /v1/responses",
        "GET /v1/responses/{response_id}",
        "DELETE /v1/responses/{response_id}",
    },
    "anthropic": {
        "GET /v1/models",
        "GET /v1/models/{model_id}",
        "POST /v1/messages",
        "POST /v1/messages/count_tokens",
    },
    "ollama": {
        *(f"{method} {path}" for method in ("GET", "HEAD") for path in ("/", "/api/tags", "/api/version")),
        "GET /api/ps",
        "POST /api/chat",
        "POST /api/generate",
        "POST /api/show",
    },
}


@pytest.mark.parametrize(("api", "at_least"), [("openai", 288), ("anthropic", 250), ("ollama", 25)])
@pytest_twisted.ensureDeferred
async def test_every_documented_operation_is_served_or_not_offered(
    gateway: RunningGateway, api: DialectName, at_least: int
) -> None:
    """A client that calls a documented operation must read that it is not offered, and not that it has mistyped."""
    every = operations(api)
    assert len(every) >= at_least
    headers = VERSION if api == "anthropic" else {}
    form = f"{api}_error"
    served = set()
    for method, path in every:
        operation = f"{method} {path}"
        reply = await gateway.ask(method, called(path), headers=headers)
        if operation in OTHER_METHODS:
            assert (reply.status, reply.json()["error"]["code"]) == (405, "method_not_supported"), operation
        elif operation in SERVED[api]:
            served.add(operation)
            assert "is not offered" not in reply.body.decode(), operation
        else:
            assert reply.status == 404, operation
            if method != "HEAD":
                check(form, reply.json())
                assert f"{called(path)} is not offered: " in reply.body.decode(), operation
                assert "unknown_url" not in reply.body.decode()
        assert endpoint_of(called(path), anthropic=bool(headers))[1] in {api, "none"}, operation
    assert served == SERVED[api]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/v1/responses/resp_1/cancel", "no response runs in the background"),
        ("/v1/responses/resp_1/input_items", "without its input"),
        ("/v1/responses/input_tokens", "/v1/messages/count_tokens"),
        ("/v1/chat/completions/chatcmpl-1", "not stored"),
        ("/v1/organization/projects/p/users", "no accounts"),
        ("/v1/embeddings", "no embeddings"),
        ("/api/pull", "one model"),
    ],
)
def test_the_reason_is_the_path_s_own(path: str, reason: str) -> None:
    """The reason must say what a caller of this operation can do instead, or why nothing can be done."""
    told = not_offered(path)
    assert told is not None
    assert reason in told


@pytest.mark.parametrize(
    "path",
    [
        *ENDPOINTS,
        "/v1/nothing",
        "/v1/embeddings/1",
        "/v1/responses/a/cancel/b",
        "/v1/responses/a/b",
        "/v1/filesystem",
        "/v1/agentsx",
        "/api/pulled",
        "/api/user/keys",
        "/files",
        "/",
    ],
)
def test_what_no_api_documents_is_unknown(path: str) -> None:
    """A mistyped path must not be reported as one that the gateway leaves out on purpose."""
    assert not_offered(path) is None


@pytest.mark.parametrize(
    ("path", "endpoint", "plain", "with_version"),
    [
        ("/v1/models", "/v1/models", "openai", "anthropic"),
        ("/v1/models/brunix", "/v1/models/{id}", "openai", "anthropic"),
        ("/v1/models/a/b", "/v1/models/{id}", "openai", "anthropic"),
        ("/v1/responses/abc", "/v1/responses/{id}", "openai", "openai"),
        ("/v1/responses/abc/cancel", "other", "openai", "openai"),
        ("/v1/responses/abc/nothing", "other", "openai", "openai"),
        ("/v1/responses/compact", "other", "openai", "openai"),
        ("/v1/chat/completions", CHAT, "openai", "openai"),
        ("/v1/chat/nothing", "other", "openai", "openai"),
        ("/v1/embeddings", "other", "openai", "openai"),
        ("/v1/files/1", "other", "openai", "anthropic"),
        ("/v1/nothing", "other", "openai", "anthropic"),
        ("/v1", "other", "openai", "anthropic"),
        ("/v1/messages", MESSAGES, "anthropic", "anthropic"),
        ("/v1/messages/nothing", "other", "anthropic", "anthropic"),
        ("/v1/messagesx", "other", "openai", "anthropic"),
        ("/v1/organizations/me", "other", "anthropic", "anthropic"),
        ("/v1x", "other", "none", "none"),
        ("/api/pull", "other", "ollama", "ollama"),
        ("/api/nothing", "other", "ollama", "ollama"),
        ("/api", "other", "ollama", "ollama"),
        ("/apiary", "other", "none", "none"),
        ("/page/app.js", "/page/{id}", "none", "none"),
        ("/pages", "other", "none", "none"),
        ("/nothing", "other", "none", "none"),
        ("*", "other", "none", "none"),
    ],
)
def test_a_path_has_one_route_and_one_api(path: str, endpoint: str, plain: str, with_version: str) -> None:
    """Whoever tries paths must not add a series to the metrics for each, and each error has its API's form."""
    assert endpoint_of(path) == (endpoint, plain)
    assert endpoint_of(path, anthropic=True) == (endpoint, with_version)


@pytest.mark.parametrize("path", ["/v1/models/nope", "/v1/files/nope", "/v1/nothing", "/v1/messages/batches"])
@pytest_twisted.ensureDeferred
async def test_anthropic_s_clients_read_errors_in_their_form(gateway: RunningGateway, path: str) -> None:
    """A client of Anthropic's must find the type of an error and the request's id wherever it looks for them."""
    headers = {**VERSION, "X-Request-Id": "req-1"}
    reply = await gateway.ask("GET", path, headers=headers)
    check("anthropic_error", reply.json())
    assert (reply.status, reply.json()["error"]["type"]) == (404, "not_found_error")
    assert (reply.json()["request_id"], reply.headers["request-id"]) == ("req-1", "req-1")


@pytest_twisted.ensureDeferred
async def test_openai_s_own_paths_keep_their_form(gateway: RunningGateway) -> None:
    """A proxy that adds a header of Anthropic's to everything must not change what OpenAI's clients read."""
    for method, path in (("GET", CHAT), ("POST", "/v1/embeddings"), ("GET", "/v1/responses/resp_1")):
        reply = await gateway.ask(method, path, headers=VERSION)
        check("openai_error", reply.json())
        assert "request-id" not in reply.headers


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest_twisted.ensureDeferred
async def test_a_failed_message_names_its_request(gateway: RunningGateway, *, stream: bool) -> None:
    """A caller who reports a failed answer must be able to say which request it was."""
    steps = ("one ", {"status": "INTERNAL"}) if stream else ({"status": "INTERNAL"},)
    body = {
        "model": "brunix",
        "max_tokens": 10,
        "messages": [{"role": "user", "content": script(*steps)}],
        "stream": stream,
    }
    reply = await gateway.ask("POST", MESSAGES, json=body, headers={"X-Request-Id": "req-2"})
    error = message_events(reply.body)[-1] if stream else reply.json()
    check("anthropic_error", error)
    assert error["request_id"] == "req-2"


@pytest_twisted.ensureDeferred
async def test_models_are_counted_by_their_api(engine: ScriptedEngine) -> None:
    """The metrics must not count Anthropic's clients among OpenAI's."""
    gateway = await run_gateway(grpc_target=engine.target)
    records: list[tuple[str, str]] = []
    gateway.service._site.observers = [lambda record: records.append((record.endpoint, record.dialect))]  # noqa: SLF001 - what nobody outside can reach
    await gateway.ask("GET", "/v1/models", headers=VERSION)
    await gateway.ask("GET", "/v1/models")
    assert records == [("/v1/models", "anthropic"), ("/v1/models", "openai")]
    await stop_gateway(gateway)


@pytest_twisted.ensureDeferred
async def test_a_model_says_what_it_can_do(gateway: RunningGateway) -> None:
    """A client that reads a model's limits and capabilities unguarded must find every key."""
    listed = (await gateway.ask("GET", "/v1/models", headers=VERSION)).json()
    model = (await gateway.ask("GET", "/v1/models/brunix", headers=VERSION)).json()
    check("anthropic_model", model)
    assert listed == {"data": [model], "has_more": False, "first_id": "brunix", "last_id": "brunix"}
    assert model["max_input_tokens"] > 0
