"""
The Model Context Protocol over Streamable HTTP: one tool, ``ask``, which asks the engine.

Protocol 2026-07-28 has neither a handshake nor sessions. The two versions before it begin with ``initialize``; the
gateway answers that without remembering it. It sends an id for the protocol session, but only to recognize which call a
client cancels. Every message is one request for a completion. Messages other than a tool call have no question for the
engine, so their answer is complete at once.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NoReturn

import attrs
import msgspec

from brunix_twisted import __version__, errors
from brunix_twisted.dialects import Encoder, mcp_errors
from brunix_twisted.dialects.code_blocks import code_blocks
from brunix_twisted.dialects.decode import decode
from brunix_twisted.dialects.framing import JSON, SSE, encode_json, sse
from brunix_twisted.dialects.mcp_errors import error_object
from brunix_twisted.dialects.mcp_requests import AskArguments, Message
from brunix_twisted.errors import GatewayError, Kind
from brunix_twisted.model import CompletionEnd, CompletionRequest, EditorContext, ResponseMeta

Json = dict[str, Any]

MODERN_VERSIONS: Final = ("2026-07-28",)
HANDSHAKE_VERSIONS: Final = ("2025-11-25", "2025-06-18")

TOOL: Final = "ask"
DEFAULT_DOMAIN: Final = "the company's language, products and documentation"

_META: Final = "io.modelcontextprotocol/"
_SERVER: Final = {"name": "brunix", "title": "Brunix", "version": __version__}
_CAPABILITIES: Final[Json] = {"tools": {}}

# The list of tools only changes with a restart. An hour is what the specification's examples use.
_CACHE: Final[Json] = {"ttlMs": 3_600_000, "cacheScope": "public"}

# A notification for each token would be as large as the answer.
_PROGRESS_CHARACTERS: Final = 1024

# Every notification repeats the token.
_MAX_TOKEN_CHARACTERS: Final = 1000

_BASE64: Final = re.compile(r"=\?base64\?(?P<encoded>.*)\?=")


def error_body(error: GatewayError, request_id: str | None = None) -> bytes:  # noqa: ARG001 - see ErrorFormat
    """Render an error of a request whose message was not read."""
    return encode_json({"jsonrpc": "2.0", "id": None, "error": error_object(error)})


def error_status(kind: Kind) -> int:
    """Return the HTTP status of an error."""
    return kind.status


@attrs.frozen
class Server:
    """What the gateway reports about itself and its tool."""

    domain: str = DEFAULT_DOMAIN
    """What the engine knows, as a noun phrase; part of the tool's description."""

    @property
    def description(self) -> str:
        """The tool's description: when an agent should use it."""
        return (
            f"Ask Brunix, an assistant that knows {self.domain}. Use it for any question about these, before you guess "
            "or search elsewhere: how to write or fix code in the language, what a function or a product does, how to "
            "configure it. Ask one complete question in plain words. To ask a follow-up question, pass the session_id "
            "of the previous answer."
        )

    @property
    def tool(self) -> Json:
        """The tool, as ``tools/list`` returns it."""
        return {
            "name": TOOL,
            "title": "Ask Brunix",
            "description": self.description,
            "inputSchema": {
                "type": "object",
                "properties": {
                    "question": {"type": "string", "minLength": 1, "description": "The question, in plain words."},
                    "session_id": {
                        "type": "string",
                        "description": "The session_id of an earlier answer, to continue its conversation.",
                    },
                    "context": {
                        "type": "string",
                        "description": "Code or text that the question refers to, such as the lines to explain.",
                    },
                },
                "required": ["question"],
            },
            "outputSchema": {
                "type": "object",
                "properties": {
                    "answer": {"type": "string", "description": "The answer, in Markdown."},
                    "session_id": {"type": "string", "description": "Pass it to continue this conversation."},
                    "code": {
                        "type": "array",
                        "description": "The code blocks of the answer, in order.",
                        "items": {
                            "type": "object",
                            "properties": {"language": {"type": "string"}, "text": {"type": "string"}},
                            "required": ["language", "text"],
                        },
                    },
                },
                "required": ["answer", "session_id", "code"],
            },
            "annotations": {"readOnlyHint": True, "openWorldHint": False},
        }

    def exchange(self, header: Callable[[bytes], Sequence[bytes]]) -> Exchange:
        """
        Return the dialect of one HTTP request.

        :param header: returns the values of a request header.
        """
        # Any bytes become text here; what is expected is ASCII.
        values = {name: [value.decode("latin-1") for value in header(name.encode())] for name in _HEADERS}
        return Exchange(self, values, "text/event-stream" in ",".join(values["accept"]).lower())


# Those that repeat parts of the message, and the protocol session of the older versions.
_HEADERS: Final = ("accept", "mcp-protocol-version", "mcp-method", "mcp-name", "mcp-session-id")


@attrs.define(eq=False)
class Exchange:
    """
    One HTTP request and its answer, as :class:`brunix_twisted.dialects.Dialect` and ``ErrorFormat``.

    It keeps the message's id, which every answer and error repeats.
    """

    _server: Server
    _headers: Mapping[str, Sequence[str]]
    _accepts_sse: bool
    _id: str | int | None = None
    _modern: bool = False
    """Whether the message has the form of 2026-07-28."""
    _asks: bool = False
    """Whether the message is a valid tool call. From then on, errors are results of the tool."""
    _result: Json | None = None
    """The result of a message that does not ask the engine."""
    _error_data: Json | None = None
    _progress_token: str | int | None = None

    @property
    def begins_session(self) -> bool:
        """Whether this may be the handshake of an older version, of which the response has a new ``Mcp-Session-Id``."""
        return self._header("mcp-protocol-version") is None and self._header("mcp-session-id") is None

    def parse(self, body_bytes: bytes) -> CompletionRequest:
        """See :class:`brunix_twisted.dialects.Dialect`."""
        message = self._read(body_bytes)
        if message is None:
            return _no_question(status=202)
        params = message.params or {}
        meta = params.get("_meta")
        meta = meta if isinstance(meta, dict) else {}
        self._id = None if message.id is msgspec.UNSET else message.id
        self._select_version(meta)
        if message.id is msgspec.UNSET:
            cancels = message.method == "notifications/cancelled" and not self._modern
            return _no_question(status=202, cancels=self._call_id(params.get("requestId")) if cancels else None)
        if self._modern:
            self._require_envelope(message, params, meta)
        if message.method == "tools/call":
            return self._tool_call(params, meta)
        self._result = self._result_of(message.method, params)
        if self._result is None:
            raise GatewayError(mcp_errors.UNKNOWN_METHOD, f"Method not found: {message.method}")
        return _no_question()

    def _read(self, body_bytes: bytes) -> Message | None:
        """Decode the message; None for a response, which only older clients send."""
        try:
            return decode(Message, body_bytes)
        except GatewayError as error:
            # The id, if there is one, tells the client which of its requests failed.
            try:
                value = msgspec.json.decode(body_bytes)
            except (msgspec.DecodeError, RecursionError):
                raise GatewayError(mcp_errors.PARSE_ERROR, error.message) from None
            if isinstance(value, list):
                reason = "Batches are not part of this protocol version; send each message in its own request"
                raise GatewayError(mcp_errors.INVALID_MESSAGE, reason) from None
            if isinstance(value, dict):
                if isinstance(identifier := value.get("id"), str | int) and not isinstance(identifier, bool):
                    self._id = identifier
                is_response = "method" not in value and ("result" in value or "error" in value)
                if is_response and self._header("mcp-protocol-version") not in MODERN_VERSIONS:
                    return None
            raise GatewayError(mcp_errors.INVALID_MESSAGE, error.message) from None

    def _header(self, name: str) -> str | None:
        values = self._headers.get(name, ())
        return ", ".join(values) if values else None

    def _call_id(self, identifier: object) -> str | None:
        """
        Return a request's id that differs from those of other clients; None if the client did not shake hands.

        Clients of the newest version close the connection to cancel a request, and have no protocol session.
        """
        session_id = self._header("mcp-session-id")
        return None if self._modern or session_id is None else encode_json([session_id, identifier]).decode()

    def _select_version(self, meta: Json) -> None:
        header = self._header("mcp-protocol-version")
        self._modern = f"{_META}protocolVersion" in meta or header not in {None, *HANDSHAKE_VERSIONS}
        if self._modern and f"{_META}protocolVersion" not in meta and header not in MODERN_VERSIONS:
            self._reject_version(header)

    def _require_envelope(self, message: Message, params: Json, meta: Json) -> None:
        """Check what each message of 2026-07-28 declares, and that its headers agree with it."""
        missing = [f"{_META}{key}" for key in ("protocolVersion", "clientCapabilities") if f"{_META}{key}" not in meta]
        if missing:
            raise GatewayError(mcp_errors.INVALID_PARAMS, f"params._meta is missing {' and '.join(missing)}")
        version = meta[f"{_META}protocolVersion"]
        expected = {"mcp-protocol-version": version, "mcp-method": message.method}
        if message.method == "tools/call" and "name" in params:
            expected["mcp-name"] = params["name"]
        for name, value in expected.items():
            shown = "-".join({"mcp": "Mcp"}.get(part, part.capitalize()) for part in name.split("-"))
            header = self._header(name)
            if header is None:
                raise GatewayError(mcp_errors.HEADER_MISMATCH, f"Header mismatch: the header {shown} is missing")
            if _decoded(header) != value:
                reason = f"Header mismatch: {shown} differs from the message's value"
                raise GatewayError(mcp_errors.HEADER_MISMATCH, reason)
        if version not in MODERN_VERSIONS:
            self._reject_version(version)

    def _reject_version(self, requested: str | None) -> NoReturn:
        self._error_data = {"supported": list(MODERN_VERSIONS), "requested": requested}
        versions = ", ".join((*MODERN_VERSIONS, *HANDSHAKE_VERSIONS))
        reason = f"Unsupported protocol version; the gateway supports {versions}"
        raise GatewayError(mcp_errors.UNSUPPORTED_VERSION, reason)

    def _result_of(self, method: str, params: Json) -> Json | None:
        """Return the result of a message that does not ask the engine; None for an unknown method."""
        if method == "tools/list":
            return {"tools": [self._server.tool]} | (_CACHE if self._modern else {})
        if self._modern:
            if method != "server/discover":
                return None
            return {
                "supportedVersions": list(MODERN_VERSIONS),
                "capabilities": _CAPABILITIES,
                "instructions": self._server.description,
                **_CACHE,
            }
        if method == "ping":
            return {}
        if method != "initialize":
            return None
        requested = params.get("protocolVersion")
        return {
            "protocolVersion": requested if requested in HANDSHAKE_VERSIONS else HANDSHAKE_VERSIONS[0],
            "capabilities": _CAPABILITIES,
            "serverInfo": _SERVER,
            "instructions": self._server.description,
        }

    def _tool_call(self, params: Json, meta: Json) -> CompletionRequest:
        name, arguments = params.get("name"), params.get("arguments")
        if name != TOOL:
            raise GatewayError(mcp_errors.INVALID_PARAMS, f"Unknown tool: {name}. The only tool is '{TOOL}'.")
        token = meta.get("progressToken")
        if self._accepts_sse and isinstance(token, str | int) and not isinstance(token, bool):
            if len(str(token)) > _MAX_TOKEN_CHARACTERS:
                reason = f"'progressToken' has more than {_MAX_TOKEN_CHARACTERS} characters"
                raise GatewayError(mcp_errors.INVALID_PARAMS, reason)
            self._progress_token = token
        # From here on, the agent's model can correct its mistake if it receives the error as a result.
        self._asks = True
        asked = decode(AskArguments, msgspec.json.encode({} if arguments is None else arguments))
        if not asked.question.strip():
            raise GatewayError(errors.INVALID_REQUEST, "'question' has no text", param="question")
        context = asked.context or ""
        return CompletionRequest(
            model="",
            queries=(asked.question,),
            stream=self._progress_token is not None,
            prompt=f"{context}\n{asked.question}" if context else asked.question,
            session_id=asked.session_id or None,
            call_id=self._call_id(self._id),
            editor=EditorContext(selected_text=base64.b64encode(context.encode()).decode() if context else None),
        )

    def encoder(self, request: CompletionRequest, meta: ResponseMeta) -> Encoder:
        """See :class:`brunix_twisted.dialects.Dialect`."""
        return _Encoder(self, request, meta)

    def error_body(self, error: GatewayError, request_id: str | None) -> bytes:  # noqa: ARG002 - see ErrorFormat
        """Render an error: of the tool as its result, of the protocol as JSON-RPC's error."""
        if self._asks:
            return self._response({"content": [{"type": "text", "text": error.message_with_param}], "isError": True})
        return encode_json({"jsonrpc": "2.0", "id": self._id, "error": error_object(error, self._error_data)})

    def error_status(self, kind: Kind) -> int:
        """Return the HTTP status of an error."""
        # Clients of the older versions take 404 for the end of their protocol session.
        return 200 if self._asks or (kind is mcp_errors.UNKNOWN_METHOD and not self._modern) else kind.status

    def whole(self, request: CompletionRequest, answer: str, session_id: str) -> bytes:
        """Render the response to a message; empty for a notification."""
        if request.queries:
            structured = {"answer": answer, "session_id": session_id, "code": code_blocks(answer)}
            # Some agents pass only the content to their model, which needs the session for its next question.
            session = {"type": "text", "text": f"session_id: {session_id}", "annotations": {"audience": ["assistant"]}}
            content = [{"type": "text", "text": answer}, session]
            return self._response({"content": content, "structuredContent": structured, "isError": False})
        return b"" if self._result is None else self._response(self._result)

    def progress(self, progress: int, message: str) -> bytes:
        """Render a notification that the engine is working."""
        params = {"progressToken": self._progress_token, "progress": progress, "message": message}
        return encode_json({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})

    def _response(self, result: Json) -> bytes:
        if self._modern:
            result = result | {"resultType": "complete", "_meta": {f"{_META}serverInfo": _SERVER}}
        return encode_json({"jsonrpc": "2.0", "id": self._id, "result": result})


def _no_question(status: int = 200, cancels: str | None = None) -> CompletionRequest:
    return CompletionRequest(model="", queries=(), stream=False, prompt="", status=status, cancels=cancels)


def _decoded(header: str) -> str:
    """Decode a header's value, which is in base64 if it is not plain ASCII."""
    if encoded := _BASE64.fullmatch(header):
        with suppress(ValueError):
            return base64.b64decode(encoded["encoded"], validate=True).decode()
    return header


class _Encoder:
    """Collects an answer, and reports progress if the client has asked for it."""

    def __init__(self, exchange: Exchange, request: CompletionRequest, meta: ResponseMeta) -> None:
        self._exchange = exchange
        self._request = request
        self._meta = meta
        self._texts: list[str] = []
        self._received_characters = 0
        self._progress = 0
        self._next_characters = 1
        self.content_type = SSE if request.stream else JSON

    def begin(self) -> bytes:
        return b""

    def delta(self, index: int, text: str) -> bytes:  # noqa: ARG002 - a tool's result is one text
        self._texts.append(text)
        self._received_characters += len(text)
        if self._received_characters < self._next_characters:
            return b""
        self._next_characters = self._received_characters + _PROGRESS_CHARACTERS
        return self._notify(f"Brunix is answering: {self._received_characters} characters so far")

    def heartbeat(self) -> bytes:
        return self._notify("Brunix is working on the answer")

    def _notify(self, message: str) -> bytes:
        if not self._request.stream:
            return b""
        self._progress += 1
        return sse(self._exchange.progress(self._progress, message))

    def finish(self, end: CompletionEnd) -> bytes:  # noqa: ARG002 - a tool's result has no token counts
        return self._framed(self._exchange.whole(self._request, "".join(self._texts), self._meta.session_id))

    def fail(self, error: GatewayError) -> bytes:
        return self._framed(self._exchange.error_body(error, None))

    def _framed(self, response: bytes) -> bytes:
        return sse(response) if self._request.stream else response
