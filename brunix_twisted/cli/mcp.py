"""``brunix mcp``: connect an agent that starts its tools as commands to a gateway's ``/mcp``."""

from __future__ import annotations

import base64
import json
import socket
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import suppress
from threading import Lock, Thread
from typing import Any, Final

from brunix_twisted.cli.api_formats import CHAT
from brunix_twisted.cli.chat_client import IDLE_TIMEOUT_S
from brunix_twisted.cli.diagnosis import EXPECTED, Diagnosis, DiagnosisError, diagnose_exception, diagnose_response
from brunix_twisted.cli.http_client import Connection, FullResponse, Response, Target
from brunix_twisted.cli.terminal import print_err, write

_ACCEPT: Final = ("Accept", "application/json, text/event-stream")
_PROTOCOL_VERSION: Final = "io.modelcontextprotocol/protocolVersion"
_PARSE_ERROR, _INTERNAL_ERROR = -32700, -32603

Json = dict[str, Any]


def mcp(options: Namespace, target: Target) -> int:  # noqa: ARG001 - as every command
    """Run the command."""
    try:
        # As bytes, because JSON is UTF-8 everywhere.
        _Bridge(target).run(iter(sys.stdin.buffer.readline, b""))
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        print_err(f"brunix mcp: cannot read standard input: {error.strerror or error}")
        return 1
    return 0


class _Bridge:
    """Sends each message as one request. Every request has a thread, so that a slow answer delays no other message."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._lock = Lock()
        self._connections: dict[object, Connection] = {}
        """Of the requests that wait for a response, by id."""
        self._version: str | None = None
        """The version that a handshake has agreed on. Messages of newer versions name theirs."""
        self._ended = False

    def run(self, lines: Iterator[bytes]) -> None:
        """Process lines until there are no more; then cancel what is running, because the agent has exited."""
        try:
            for line in lines:
                if line.strip():
                    self._accept(line)
        finally:
            with self._lock:
                self._ended = True
                for connection in self._connections.values():
                    _abort(connection)

    def _accept(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            self._fail(None, _PARSE_ERROR, "The line is not valid JSON")
            return
        fields: Json = message if isinstance(message, dict) else {}
        if fields.get("method") == "notifications/cancelled":
            # Over HTTP, closing the connection cancels a request.
            with self._lock:
                cancelled = self._connections.pop(_key(_object(fields, "params").get("requestId")), None)
                if cancelled is not None:
                    _abort(cancelled)
        elif fields.get("method") == "initialize" or "id" not in fields:
            # In order: the messages after a handshake need its version.
            self._exchange(fields, line)
        else:
            Thread(target=self._exchange, args=(fields, line), daemon=True).start()

    def _exchange(self, fields: Json, line: bytes) -> None:
        key = _key(fields.get("id"))
        with Connection(self._target) as connection:
            with self._lock:
                self._connections[key] = connection
            try:
                connection.open()
                # A request that is cancelled later has a connection to close.
                if not self._is_waiting(key, connection):
                    return
                headers = [_ACCEPT, *_headers(fields, self._version)]
                response = connection.request(
                    "POST", "/mcp", line, headers=headers, timeout_s=float("inf"), idle_timeout_s=IDLE_TIMEOUT_S
                )
                for message in self._messages(response):
                    self._send(key, connection, message)
            except EXPECTED as error:
                diagnosis = diagnose_exception(error, self._target.address)
                words = f"{diagnosis.message}. {diagnosis.remedy}".strip()
                if not self._is_waiting(key, connection):
                    pass  # cancelled
                elif "id" in fields:
                    self._fail(fields["id"], _INTERNAL_ERROR, words)
                else:
                    print_err(f"brunix mcp: {words}")
            finally:
                with self._lock:
                    if self._connections.get(key) is connection:
                        del self._connections[key]

    def _messages(self, response: Response) -> Iterator[Json]:
        if response.headers.get("Content-Type").startswith("text/event-stream"):
            for event in CHAT.events(response.chunks()):
                if isinstance(event.data, dict):
                    yield event.data
            return
        full = response.read()
        if not full.body:
            return
        message = full.json()
        if not isinstance(message, dict) or "jsonrpc" not in message:
            raise _not_mcp(full, self._target)
        version = _object(message, "result").get("protocolVersion")
        self._version = version if isinstance(version, str) else self._version
        yield message

    def _is_waiting(self, key: object, connection: Connection) -> bool:
        with self._lock:
            return not self._ended and self._connections.get(key) is connection

    def _send(self, key: object, connection: Connection, message: Json) -> None:
        # Nothing may follow the cancellation of a request.
        if self._is_waiting(key, connection):
            self._write(message)

    def _fail(self, identifier: object, code: int, words: str) -> None:
        self._write({"jsonrpc": "2.0", "id": identifier, "error": {"code": code, "message": words}})

    def _write(self, message: Json) -> None:
        with self._lock:
            write(json.dumps(message, separators=(",", ":")) + "\n")


def _not_mcp(response: FullResponse, target: Target) -> Exception:
    if not response.ok:
        return DiagnosisError(diagnose_response(response, target.address))
    return DiagnosisError(Diagnosis("not_the_gateway", f"{target.address.root}/mcp does not speak MCP"))


def _headers(fields: Json, version: str | None) -> list[tuple[str, str]]:
    """Return the headers that repeat parts of the message."""
    params = _object(fields, "params")
    declared = _object(params, "_meta").get(_PROTOCOL_VERSION)
    values = {
        "MCP-Protocol-Version": declared or (None if fields.get("method") == "initialize" else version),
        "Mcp-Method": fields.get("method") if declared else None,
        "Mcp-Name": params.get("name") if declared else None,
    }
    return [(name, _encoded(value)) for name, value in values.items() if isinstance(value, str)]


def _encoded(value: str) -> str:
    """Encode a value that is not plain ASCII in base64, as the protocol defines it."""
    if value.isascii() and value.isprintable() and value == value.strip() and not value.startswith("=?base64?"):
        return value
    return f"=?base64?{base64.b64encode(value.encode(errors='replace')).decode()}?="


def _object(fields: Json, name: str) -> Json:
    value = fields.get(name)
    return value if isinstance(value, dict) else {}


def _key(identifier: object) -> object:
    # 1 and "1" are different ids.
    return json.dumps(identifier)


def _abort(connection: Connection) -> None:
    """Wake the thread that waits for a response; it then closes the connection."""
    if (raw := connection.socket) is not None:
        with suppress(OSError):
            raw.shutdown(socket.SHUT_RDWR)
