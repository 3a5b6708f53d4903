"""
The URLs, and the dialect of each.

Only this module imports klein. Everything here runs on the reactor's thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from types import MappingProxyType
from typing import Final, cast

import attrs
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from brunix_twisted import __version__, errors
from brunix_twisted.api.completion import Completion
from brunix_twisted.api.health import SharedCheck
from brunix_twisted.api.mismatches import Mismatches
from brunix_twisted.api.response_store import ResponseStore
from brunix_twisted.dialects import (
    ErrorFormat,
    Models,
    anthropic,
    anthropic_models,
    codings,
    mcp,
    ollama,
    openai,
    responses,
)
from brunix_twisted.dialects.endpoints import DialectName, endpoint_of, not_offered
from brunix_twisted.dialects.framing import JSON, encode_json
from brunix_twisted.dialects.openai import HeartbeatForm
from brunix_twisted.dialects.openapi import openapi_body
from brunix_twisted.engine import Engine
from brunix_twisted.errors import GatewayError
from brunix_twisted.http import syntax
from brunix_twisted.http.conditional import etag_of, is_current
from brunix_twisted.http.site import GatewayRequest
from brunix_twisted.limits import count_tokens
from brunix_twisted.model import CompletedAnswer, Model, Processes
from brunix_twisted.page import HTML, QUESTIONS, Asset, questions, wants_page
from brunix_twisted.runtime.random_ids import random_id

# The dialect that renders an error. Paths of no API use the one that most clients understand.
_DIALECTS: Final[dict[DialectName, ErrorFormat]] = {
    "openai": openai,
    "anthropic": anthropic,
    "ollama": ollama,
    "mcp": mcp,
    "none": openai,
}

_log = Logger("brunix.gateway")

# /health answers within one second, even if the engine does not.
_HEALTH_TIMEOUT_S: Final = 0.9

# The reported expiry of the model, which is always loaded.
_LOADED_S: Final = 24 * 3600


class Gateway:
    """The routes."""

    app = Klein()

    assets: Mapping[str, Asset] = MappingProxyType({})
    """The page and its files, by name; empty if the page is disabled."""
    mcp_server: mcp.Server | None = None
    """None if ``/mcp`` is disabled."""
    check_state: Callable[[], Deferred[str | None]] | None = None
    """Fires with the reason why the state cannot be used; with None if it can be."""

    def __init__(  # noqa: PLR0913 - what its routes need
        self,
        engine: Engine,
        completion: Completion,
        model: Model,
        heartbeat: HeartbeatForm,
        *,
        answers: ResponseStore,
        mismatches: Mismatches,
        processes: Callable[[], Processes | None],
    ) -> None:
        """
        Serve one engine.

        :param model: the model that clients see.
        :param heartbeat: the form of heartbeats in OpenAI streams.
        :param answers: the store of answers that can be retrieved or continued.
        :param mismatches: why conversations did not continue in their sessions.
        :param processes: returns the state of several gateway processes; None if there is one.
        """
        self._engine = engine
        self._check = SharedCheck(partial(engine.check, _HEALTH_TIMEOUT_S), time.monotonic)
        self._completion = completion
        self._model = model
        self._answers = answers
        self._mismatches = mismatches
        self._processes = processes
        self._openai_chat = openai.Chat(model, heartbeat)
        self._openai_completions = openai.Completions(model, heartbeat)
        self._openai_responses = responses.Responses(model, heartbeat)
        self._anthropic_messages = anthropic.Messages(model, count_tokens, heartbeat)
        self._ollama_chat = ollama.Chat(model)
        self._ollama_generate = ollama.Generate(model)
        self._started_s = time.time()

    # OpenAI.

    @app.route("/v1/chat/completions", methods=["POST"])
    async def openai_chat(self, request: GatewayRequest) -> None:
        """Answer a conversation."""
        await self._completion.complete(request, self._openai_chat)

    @app.route("/v1/completions", methods=["POST"])
    async def openai_completions(self, request: GatewayRequest) -> None:
        """Answer a prompt."""
        await self._completion.complete(request, self._openai_completions)

    @app.route("/v1/responses", methods=["POST"])
    async def openai_responses(self, request: GatewayRequest) -> None:
        """Answer a conversation, and store the answer by its id."""
        await self._completion.complete(request, self._openai_responses, self._keep)

    async def _keep(self, answered: CompletedAnswer) -> None:
        requested, meta = answered.requested, answered.meta
        body = responses.response_body(requested, meta, answered.end) if requested.stored else None
        await self._answers.keep(meta.id, answered.session_id, answered.caller, body)

    @app.route("/v1/responses/<name>", methods=["GET"])
    async def openai_response(self, request: GatewayRequest, name: str) -> bytes:
        """Return a stored answer."""
        if request.args and request.args.get(b"stream", [b"false"])[0] != b"false":
            raise GatewayError(
                errors.INVALID_REQUEST, "stream=true is not supported when retrieving a stored response", param="stream"
            )
        return _json(request, await self._kept(request, name))

    @app.route("/v1/responses/<name>", methods=["DELETE"])
    async def openai_response_deleted(self, request: GatewayRequest, name: str) -> bytes:
        """Delete a stored answer."""
        await self._kept(request, name)
        await self._answers.forget(responses.answer_id(name))
        return _json(request, responses.deleted_body(name))

    async def _kept(self, request: GatewayRequest, name: str) -> bytes:
        body = await self._answers.body_of(responses.answer_id(name), self._completion.caller(request))
        if body is None:
            raise GatewayError(errors.NOT_FOUND, f"Response with id '{name}' not found")
        return body

    @app.route("/v1/models", methods=["GET"])
    def openai_models(self, request: GatewayRequest) -> bytes:
        """List the model."""
        return _model_list(request, partial(_models(request).models_body, self._model), self._started_s)

    @app.route("/v1/models/<path:name>", methods=["GET"])
    def openai_model(self, request: GatewayRequest, name: str) -> bytes:
        """Describe the model."""
        return _json(request, _models(request).model_body(self._model, name, self._started_s))

    # Anthropic.

    @app.route("/v1/messages", methods=["POST"])
    async def anthropic_messages(self, request: GatewayRequest) -> None:
        """Answer a conversation."""
        _dialect(request)
        messages = attrs.evolve(self._anthropic_messages, request_id=request.request_id)
        await self._completion.complete(request, messages)

    @app.route("/v1/messages/count_tokens", methods=["POST"])
    async def anthropic_count_tokens(self, request: GatewayRequest) -> bytes:
        """Estimate the tokens of a conversation."""
        _dialect(request)
        counted = partial(anthropic.count_tokens_body, self._model, count_tokens=count_tokens)
        return _json(request, await request.parsed(counted))

    # Ollama.

    @app.route("/api/chat", methods=["POST"])
    async def ollama_chat(self, request: GatewayRequest) -> None:
        """Answer a conversation."""
        await self._completion.complete(request, self._ollama_chat)

    @app.route("/api/generate", methods=["POST"])
    async def ollama_generate(self, request: GatewayRequest) -> None:
        """Answer a prompt."""
        await self._completion.complete(request, self._ollama_generate)

    @app.route("/api/tags", methods=["GET"])
    def ollama_tags(self, request: GatewayRequest) -> bytes:
        """List the model."""
        return _model_list(request, partial(ollama.tags_body, self._model), self._started_s)

    @app.route("/api/ps", methods=["GET"])
    def ollama_ps(self, request: GatewayRequest) -> bytes:
        """List the model as running."""
        return _json(request, ollama.ps_body(self._model, time.time() + _LOADED_S))

    @app.route("/api/show", methods=["POST"])
    async def ollama_show(self, request: GatewayRequest) -> bytes:
        """Describe the model."""
        shown = partial(ollama.show_body, self._model, modified_s=self._started_s)
        return _json(request, await request.parsed(shown))

    @app.route("/api/version", methods=["GET"])
    def ollama_version(self, request: GatewayRequest) -> bytes:
        """Return the version of Ollama that this API is compatible with."""
        return _json(request, ollama.version_body())

    # The Model Context Protocol.

    @app.route("/mcp", methods=["POST"])
    async def mcp_message(self, request: GatewayRequest) -> None:
        """Answer one message: describe the tool, or call it."""
        if self.mcp_server is None:
            raise _nothing_here("/mcp")
        exchange = self.mcp_server.exchange(lambda name: request.requestHeaders.getRawHeaders(name, ()))
        request.error_format = exchange
        if exchange.begins_session:
            request.setHeader(b"Mcp-Session-Id", random_id().encode("ascii"))
        await self._completion.complete(request, exchange)

    @app.route("/", methods=["GET"])
    def root(self, request: GatewayRequest) -> bytes:
        """Return the page to browsers, and to Ollama clients the text by which they detect a server."""
        if self.assets:
            request.setHeader(b"Vary", b"Origin, Accept")
            if wants_page(b",".join(request.requestHeaders.getRawHeaders(b"Accept", ())).decode("latin-1")):
                return _asset(request, self.assets[HTML])
        return _body(request, ollama.ROOT_BODY, b"text/plain; charset=utf-8")

    @app.route("/page/<path:name>", methods=["GET"])
    def page(self, request: GatewayRequest, name: str) -> bytes:
        """Return a file of the page."""
        if name == HTML or name not in self.assets:
            raise _nothing_here(request.path.decode("ascii"))
        return _asset(request, self.assets[name])

    @app.route(f"/page/{QUESTIONS}", methods=["GET"])
    async def sample_questions(self, request: GatewayRequest) -> bytes:
        """Return questions that the engine's documents answer, as the engine reports them with its health."""
        if not self.assets:
            raise _nothing_here(request.path.decode("ascii"))
        await self._check()
        return _asset(request, questions(self._engine.sample_questions))

    @app.route("/openapi.json", methods=["GET"])
    def openapi(self, request: GatewayRequest) -> bytes:
        """Describe these endpoints."""
        return _json(request, openapi_body())

    # Health checks.

    @app.route("/health", methods=["GET"])
    async def health(self, request: GatewayRequest) -> bytes:
        """Return whether the gateway and the engine are healthy."""
        if self._completion.in_flight.draining:
            return _health(request, "draining", processes=self._processes())
        checking_state = None if self.check_state is None else self.check_state()
        unhealthy_reason = await self._check()
        # Without its state the gateway answers, so it is healthy. The reason is for the log: it names files and hosts.
        state = None if checking_state is None else "unavailable" if await checking_state else "ok"
        status = "unavailable" if unhealthy_reason else "ok"
        return _health(request, status, unhealthy_reason, self._processes(), state)

    @app.route("/health/live", methods=["GET"])
    def live(self, request: GatewayRequest) -> bytes:
        """Return that this process serves, regardless of the engine."""
        return _health(request, "ok")

    @app.route("/health/sessions", methods=["GET"])
    def mismatched_sessions(self, request: GatewayRequest) -> bytes:
        """Return why the caller's latest conversations did not continue in their sessions."""
        processes = self._processes()
        told = self._mismatches.of(self._completion.caller(request))
        return _json(request, encode_json(told | {"process": None if processes is None else processes.number}))

    @app.handle_errors(GatewayError, HTTPException)
    def failed(self, request: IRequest, failure: Failure) -> bytes:
        """Answer a failed request in the dialect of its path."""
        gateway_request = cast("GatewayRequest", request)
        fault = failure.value
        path = gateway_request.path.decode("ascii")
        if isinstance(fault, MethodNotAllowed) and syntax.is_websocket(
            gateway_request.requestHeaders.getRawHeaders(b"Upgrade", ())
        ):
            # RFC 9110, 15.5.22 and 7.8. Clients then use HTTP at once; after a 405 some try again for many seconds.
            gateway_request.setHeader(b"Upgrade", b"HTTP/1.1")
            gateway_request.responseHeaders.addRawHeader(b"Connection", b"Upgrade")
            fault = GatewayError(errors.NO_WEBSOCKET, "WebSocket is not supported. Send a POST request to this path.")
        elif isinstance(fault, MethodNotAllowed) and not_offered(path) is None:
            allowed = ", ".join(sorted(fault.valid_methods or ()))
            gateway_request.setHeader(b"Allow", allowed.encode("ascii"))
            fault = GatewayError(errors.WRONG_METHOD, f"Method not allowed; this path accepts {allowed}")
        elif isinstance(fault, HTTPException):
            fault = _nothing_here(path)
        return refuse(gateway_request, cast("GatewayError", fault))


def _dialect(request: GatewayRequest) -> DialectName:
    """
    Return the API of a request, by its path and, if the path belongs to two APIs, by its headers.

    Anthropic's clients always send the version of their API, and read the request id from another header.
    """
    path, anthropic = request.path.decode("latin-1"), request.requestHeaders.hasHeader(b"anthropic-version")
    request.in_progress.anthropic = anthropic
    _, dialect = endpoint_of(path, anthropic=anthropic)
    if endpoint_of(path, anthropic=not anthropic)[1] != dialect:
        request.setHeader(b"Vary", b"Origin, anthropic-version")
    if dialect == "anthropic":
        request.setHeader(b"request-id", request.request_id.encode("ascii"))
    return dialect


def _models(request: GatewayRequest) -> Models:
    return anthropic_models if _dialect(request) == "anthropic" else openai


def _nothing_here(path: str) -> GatewayError:
    if reason := not_offered(path):
        return GatewayError(errors.NOT_OFFERED, f"{path} is not offered: {reason}")
    return GatewayError(errors.UNKNOWN_PATH, f"Unknown path: {path}")


def refuse(request: GatewayRequest, error: GatewayError) -> bytes:
    """Set the status and headers of a failed request, and return its body in the dialect of its path."""
    if error.kind.type == "server_error" or error.detail:
        _log.warn("Request {request_id}: {error}", request_id=request.request_id, error=error)
    request.in_progress.failed(error.kind)
    if error.kind.retry:
        request.setHeader(b"Retry-After", b"%d" % errors.RETRY_AFTER_S)
    elif error.kind.retry is False:
        # Without it, the OpenAI SDKs would retry errors that a retry cannot fix.
        request.setHeader(b"x-should-retry", b"false")
    if error.kind is errors.UNSUPPORTED_CODING:
        # RFC 9110, 15.5.16.
        request.setHeader(b"Accept-Encoding", codings.ACCEPTED)
    dialect = request.error_format or _DIALECTS[_dialect(request)]
    request.setResponseCode(dialect.error_status(error.kind))
    return _json(request, dialect.error_body(error, request.request_id))


def _json(request: GatewayRequest, body_bytes: bytes) -> bytes:
    return _body(request, body_bytes, JSON)


def _model_list(request: GatewayRequest, render: Callable[[float], bytes], created_s: float) -> bytes:
    # No cache may store it, but clients such as Codex keep the list and its tag. The tag does not depend on the time at
    # which a process has started: the same list has the same tag in all processes, and after a restart.
    return b"" if is_current(request, etag_of(render(0)), weak=True) else _json(request, render(created_s))


def _body(request: GatewayRequest, body_bytes: bytes, content_type: bytes) -> bytes:
    request.setHeader(b"Content-Type", content_type)
    # Without it, the body would be sent in chunks.
    request.setHeader(b"Content-Length", b"%d" % len(body_bytes))
    return body_bytes


def _asset(request: GatewayRequest, asset: Asset) -> bytes:
    for name, value in asset.headers:
        request.setHeader(name, value)
    if is_current(request, asset.etag):
        return b""
    return _body(request, asset.body_bytes, asset.content_type)


def _health(
    request: GatewayRequest,
    status: str,
    reason: str | None = None,
    processes: Processes | None = None,
    state: str | None = None,
) -> bytes:
    if status != "ok":
        request.setResponseCode(HTTPStatus.SERVICE_UNAVAILABLE)
    told: dict[str, object] = {"status": status, "version": __version__}
    if reason:
        told["reason"] = reason
    if state is not None:
        told["state"] = state
    if processes is not None:
        told["processes"] = attrs.asdict(processes)
    return _json(request, encode_json(told))
