"""What is told of a request at its end."""

from __future__ import annotations

import json
import re
from typing import cast

import attrs
import pytest
import pytest_twisted
import treq
from klein import Klein
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from brunix_twisted import errors
from brunix_twisted.api.routes import Gateway
from brunix_twisted.dialects.endpoints import ENDPOINTS, QUESTIONS, endpoint_of
from brunix_twisted.errors import Kind
from brunix_twisted.model import Choice
from brunix_twisted.observability.request_record import REASONS, RequestInProgress, RequestRecord, session_digest
from endpoints import CHAT, GENERATE, PATHS
from fake_reactor import LIMIT_S
from gateways import RunningGateway, run_gateway, stop_gateway
from log_lines import log_lines
from metrics_table import record
from received import connect
from scripted_engine import ScriptedEngine, script

# One request.


def test_a_record() -> None:
    """An operator would read times or counts that are not what happened."""
    found = record()
    assert (found.queue_s, found.first_token_s, found.engine_s, found.total_s) == (0.5, 1.0, 1.0, 2.0)
    assert (found.tokens, found.prompt_tokens, found.sent_bytes) == (34, 12, 56)
    assert found.calls == (("AskAgentStream", "UNAVAILABLE"), ("AskAgentStream", "OK"))
    assert (found.endpoint, found.dialect, found.method, found.status) == (CHAT, "openai", "POST", 200)


def test_nothing_asked() -> None:
    """A health check would be counted as a question that waited no time at all."""
    found = RequestInProgress(1.0).finish(
        1.5, request_id="r", method="BREW", path="/health", status=200, gone=False, session="", sent_bytes=2
    )
    assert (found.queue_s, found.first_token_s, found.engine_s, found.total_s) == (None, None, None, 0.5)
    assert (found.reason, found.method, found.original_method, found.session) == ("complete", "other", "BREW", "")


def test_left_while_waiting() -> None:
    """A queue that people leave would look as if nobody had waited."""
    in_progress = RequestInProgress(1.0)
    in_progress.queued(2.0)
    found = in_progress.finish(
        5.0, request_id="r", method="POST", path=CHAT, status=None, gone=True, session="", sent_bytes=0
    )
    assert (found.queue_s, found.engine_s, found.reason, found.status) == (3.0, None, "client_gone", None)


def test_a_sessions_digest() -> None:
    """Who reads the log cannot find a session's id by trying ids, and can still tell which lines belong together."""
    digest = session_digest("ticket-4711", b"one")
    assert re.fullmatch("[0-9a-f]{12}", digest)
    assert session_digest("ticket-4711", b"one") == digest
    assert digest not in {session_digest("ticket-4712", b"one"), session_digest("ticket-4711", b"two")}
    assert session_digest("", b"one") == ""


@pytest.mark.parametrize(
    ("path", "logged"),
    [
        ("/v1/responses/resp_0123", "/v1/responses/{id}"),
        ("/v1/responses/resp_0123/cancel", "/v1/responses/{id}/cancel"),
        ("/v1/responses", "/v1/responses"),
        ("/v1/responses/input_tokens", "/v1/responses/input_tokens"),
        ("/v1/models/resp_0123", "/v1/models/resp_0123"),
    ],
)
def test_a_stored_answers_id_is_not_logged(path: str, logged: str) -> None:
    """Who reads the log cannot read a stored answer, or ask in its session."""
    assert record(path).path == logged


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (errors.ENGINE_ERROR, "engine_error"),
        (errors.ENGINE_UNAVAILABLE, "engine_error"),
        (errors.ENGINE_TIMEOUT, "timeout"),
        (errors.OVERLOADED, "overloaded"),
        (errors.INTERNAL, "internal"),
        (errors.INVALID_REQUEST, "refused"),
        (errors.UNKNOWN_PATH, "refused"),
    ],
)
def test_failures(kind: Kind, reason: str) -> None:
    """A failure would be counted as another, and the wrong alarm go off."""
    in_progress = RequestInProgress(0.0)
    in_progress.failed(kind)
    assert in_progress.reason == reason
    in_progress.failed(errors.INTERNAL)
    assert in_progress.reason == reason


def test_every_server_error_has_a_reason_of_its_own() -> None:
    """A new kind of failure would be taken for the caller's own fault."""
    kinds = [value for value in vars(errors).values() if isinstance(value, Kind) and value.type == "server_error"]
    assert len(kinds) >= 6
    for kind in kinds:
        in_progress = RequestInProgress(0.0)
        in_progress.failed(kind)
        assert in_progress.reason != "refused", kind


@pytest.mark.parametrize(("cut", "reason"), [(False, "complete"), (True, "cut")])
def test_cut(reason: str, *, cut: bool) -> None:
    """An answer that the caller's limit cut would be counted as whole, or the other way round."""
    in_progress = RequestInProgress(0.0)
    in_progress.completed([Choice(finish_reason="stop", completion_tokens=1, cut=cut)], 1)
    assert in_progress.reason == reason


# Endpoints: the only labels that come from a path.


def test_every_question_is_among_the_endpoints() -> None:
    """The time to the first word would be measured at some of the endpoints that ask, and be an error at the others."""
    assert set(QUESTIONS) == {*PATHS, "/mcp"}
    assert set(QUESTIONS) <= set(ENDPOINTS)


def test_every_route_has_an_endpoint() -> None:
    """Requests to a new route would be counted among unknown paths, or a page of statistics never hear of a route."""
    app: Klein = Gateway.app
    patterns = {re.sub("<(path:)?name>", "{id}", rule.rule) for rule in app.url_map.iter_rules()}
    assert patterns == set(ENDPOINTS)


@pytest.mark.parametrize(
    ("path", "endpoint", "dialect"),
    [
        ("/v1/models/brunix", "/v1/models/{id}", "openai"),
        ("/v1/models/a/b", "/v1/models/{id}", "openai"),
        ("/v1/nothing", "other", "openai"),
        ("/api/pull", "other", "ollama"),
        ("/nothing", "other", "none"),
        ("*", "other", "none"),
    ],
)
def test_paths(path: str, endpoint: str, dialect: str) -> None:
    """Whoever scans for holes would fill the statistics with a series for each path that is tried."""
    assert endpoint_of(path) == (endpoint, dialect)


# Of a running gateway.


async def ask(gateway: RunningGateway, path: str, prompt: object, **more: object) -> RequestRecord:
    """Ask, and give the one record of it."""
    records: list[RequestRecord] = []
    gateway.service._site.observers = [records.append]  # noqa: SLF001 - what nobody outside can reach
    body = {"model": "brunix", "prompt": prompt, "messages": [{"role": "user", "content": prompt}]} | more
    await gateway.ask("POST", path, json=body, headers={"X-Request-Id": "req-1"})
    (found,) = records
    return found


@pytest.mark.parametrize("path", [CHAT, GENERATE])
@pytest.mark.parametrize("stream", [True, False])
@pytest_twisted.ensureDeferred
async def test_an_answer(gateway: RunningGateway, path: str, *, stream: bool) -> None:
    """An operator could not tell from the figures how long people wait, and for what."""
    found = await ask(gateway, path, script("one ", "two "), stream=stream, session_id="s")
    assert (found.status, found.reason, found.streamed, found.gone) == (200, "complete", stream, False)
    assert found.calls == (("AskAgentStream" if stream else "AskAgent", "OK"),)
    assert found.tokens == 2
    assert found.prompt_tokens > 0
    assert found.queue_s is not None
    assert found.engine_s is not None
    assert found.first_token_s is not None
    assert 0 <= found.queue_s <= found.first_token_s <= found.total_s
    assert found.queue_s + found.engine_s <= found.total_s
    assert found.request_id == "req-1"
    assert found.session
    assert found.sent_bytes > 0


@pytest.mark.parametrize(
    ("steps", "more", "reason", "calls"),
    [
        (["one ", "STOP", " two"], {"stop": "STOP"}, "cut", None),
        ([{"status": "INTERNAL"}], {}, "engine_error", ["INTERNAL"]),
        (["one ", {"status": "INTERNAL"}], {}, "engine_error", ["INTERNAL"]),
        ([{"status": "DEADLINE_EXCEEDED"}], {}, "timeout", ["DEADLINE_EXCEEDED"]),
        ([{"status": "INVALID_ARGUMENT"}], {}, "refused", ["INVALID_ARGUMENT"]),
        # Nothing came of the first, so it is asked again.
        ([{"status": "UNAVAILABLE"}], {}, "engine_error", ["UNAVAILABLE", "UNAVAILABLE"]),
    ],
)
@pytest_twisted.ensureDeferred
async def test_ends(
    gateway: RunningGateway, steps: list[object], more: dict[str, object], reason: str, calls: list[str] | None
) -> None:
    """An alarm would go off for what is no failure, or stay silent at one."""
    found = await ask(gateway, CHAT, json.dumps(steps), stream=True, **more)
    assert found.reason == reason
    assert found.reason in REASONS
    if calls is not None:
        assert [name for _, name in found.calls] == calls


@pytest_twisted.ensureDeferred
async def test_several_questions(gateway: RunningGateway) -> None:
    """The engine would seem to have taken longer than the whole request did."""
    found = await ask(gateway, "/v1/completions", ["one", "two", "three"])
    assert [name for _, name in found.calls] == ["OK", "OK", "OK"]
    assert found.queue_s is not None
    assert found.engine_s is not None
    assert found.queue_s + found.engine_s <= found.total_s


@pytest_twisted.ensureDeferred
async def test_refused_before_the_engine(gateway: RunningGateway) -> None:
    """What the engine never heard of would be counted as its work."""
    found = await ask(gateway, CHAT, "x", model="gpt-7")
    assert (found.status, found.reason, found.calls, found.queue_s) == (404, "refused", (), None)


@pytest_twisted.ensureDeferred
async def test_turned_away(engine: ScriptedEngine) -> None:
    """Nobody would see that the gateway is too small."""
    gateway = await run_gateway(grpc_target=engine.target, drain_s=0.0, thread_workers=1, queue_size=0)
    records: list[RequestRecord] = []
    gateway.service._site.observers = [records.append]  # noqa: SLF001 - as above
    body = {"model": "brunix", "prompt": script("one ", {"wait": "go"})}
    streaming = await gateway.send("POST", GENERATE, json=body)
    assert (await gateway.ask("POST", GENERATE, json=body)).status == 503
    (refused,) = records
    assert (refused.reason, refused.calls, refused.status) == ("overloaded", (), 503)
    engine.go("go")
    assert streaming.code == 200
    assert b"one " in await treq.content(streaming)
    await stop_gateway(gateway)
    assert len(records) == 2


@pytest_twisted.ensureDeferred
async def test_a_client_that_left(gateway: RunningGateway) -> None:
    """People who give up would not show in any figure."""
    ended: Deferred[RequestRecord] = Deferred()
    gateway.service._site.observers = [ended.callback]  # noqa: SLF001 - as above
    body = json.dumps({"model": "brunix", "prompt": script("one ", {"hang": True})}).encode()
    head = f"POST {GENERATE} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    client = await connect(gateway.url, head + body)
    await client.until(b"one ")
    client.leave()
    found = await ended.addTimeout(LIMIT_S, cast("IReactorTime", reactor))
    assert (found.reason, found.status, found.gone) == ("client_gone", 200, True)
    assert found.calls == (("AskAgentStream", "CANCELLED"),)
    assert found.first_token_s is not None
    assert found.tokens == 1


@pytest_twisted.ensureDeferred
async def test_an_observer_that_fails(gateway: RunningGateway) -> None:
    """A mistake in what tells of requests would break the requests."""
    told: list[RequestRecord] = []

    def fail(_: RequestRecord) -> None:
        raise ZeroDivisionError

    gateway.service._site.observers = [fail, told.append]  # noqa: SLF001 - as above
    with log_lines() as log:
        reply = await gateway.ask("GET", "/v1/models")
    assert reply.status == 200
    assert len(told) == 1
    (error,) = log.errors
    assert "ZeroDivisionError" in error


# Server-Timing.


@pytest_twisted.ensureDeferred
async def test_a_whole_answer_explains_its_time(gateway: RunningGateway) -> None:
    """A user of a slow answer could not say whether the queue, the engine or the gateway was slow."""
    reply = await gateway.ask("POST", GENERATE, json={"model": "brunix", "prompt": "x", "stream": False})
    found = dict(re.findall(r"([a-z]+);dur=(\d+\.\d)(?:, |$)", reply.headers["server-timing"]))
    assert list(found) == ["queue", "first", "engine", "gateway"]


@pytest_twisted.ensureDeferred
async def test_a_stream_says_what_is_known(gateway: RunningGateway) -> None:
    """A stream would tell a time that has not passed yet, or none."""
    reply = await gateway.ask("POST", GENERATE, json={"model": "brunix", "prompt": "x"})
    assert re.fullmatch(r"queue;dur=\d+\.\d, first;dur=\d+\.\d", reply.headers["server-timing"])


@pytest_twisted.ensureDeferred
async def test_nothing_to_explain(gateway: RunningGateway) -> None:
    """An answer that asked no engine would tell of its time."""
    for method, path, body in (("GET", "/v1/models", None), ("POST", CHAT, {"model": "gpt-7"})):
        assert "server-timing" not in (await gateway.ask(method, path, json=body)).headers


def test_a_record_is_fixed() -> None:
    """One observer could change what the next is told."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        record().status = 500  # type: ignore[misc]  # that is the point
