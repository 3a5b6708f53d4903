"""Explain why a request failed, and what to do about it. Pure."""

from __future__ import annotations

import html
import json
import re
import socket
import ssl
import zlib
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any, Final

import attrs

from brunix_twisted.cli.address import GatewayAddress
from brunix_twisted.cli.http_client import FullResponse, ProtocolError, TruncatedError
from brunix_twisted.cli.sockets import DeadlineExceededError


@attrs.frozen
class Diagnosis:
    """Why a request failed."""

    kind: str
    """A code for programs; the gateway's own error code if it sent one."""
    message: str
    """A sentence without its full stop."""
    remedy: str = ""
    """What to do, in whole sentences."""
    status: int | None = None
    """The HTTP status, if there was a response."""

    def as_json(self) -> dict[str, Any]:
        """Return the ``error`` of ``brunix ask --json``, whose keys are a public interface."""
        return {"kind": self.kind, "says": self.message, "remedy": self.remedy, "status": self.status}


class DiagnosisError(Exception):
    """A request failed for a known reason."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        super().__init__(diagnosis.message)
        self.diagnosis = diagnosis


EXPECTED: Final = (OSError, ProtocolError, zlib.error, DiagnosisError)
"""What a request can raise because of the network or the server."""

# OpenSSL's X509_V_ERR_… codes.
_NOT_YET_VALID, _EXPIRED, _WRONG_NAME, _WRONG_ADDRESS = 9, 10, 62, 64


def diagnose_exception(error: Exception, address: GatewayAddress) -> Diagnosis:  # noqa: PLR0911 - a table
    """Explain one of the :data:`EXPECTED` exceptions."""
    where = address.root
    if isinstance(error, DiagnosisError):
        return error.diagnosis
    if isinstance(error, ssl.SSLError):
        return _tls(error, address)
    if isinstance(error, socket.gaierror):
        return Diagnosis(
            "unknown_name",
            f"DNS lookup for {address.host} failed",
            "Check the spelling. A name of an internal network needs that network or its VPN.",
        )
    if isinstance(error, DeadlineExceededError):
        return Diagnosis(
            "timeout",
            f"{where} did not respond in time: {error}",
            "A firewall may drop the packets, or the server hangs.",
        )
    if isinstance(error, ConnectionRefusedError):
        return Diagnosis("refused", f"connection refused: nothing listens at {where}", _how_to_listen(address))
    if isinstance(error, ProtocolError):
        return _not_http(error, address)
    if isinstance(error, TruncatedError):
        return Diagnosis(
            "broken_off",
            "the connection ended before the response was complete",
            "The gateway was stopped, or a proxy ends long responses. `brunix doctor` checks for that.",
        )
    if isinstance(error, ConnectionError):
        return Diagnosis(
            "closed",
            f"{where} accepts connections, but closes them without a response",
            "It may expect HTTPS, or be a proxy that cannot reach the gateway.",
        )
    if isinstance(error, zlib.error):
        return Diagnosis(
            "broken_compression", "the response cannot be decompressed", "A proxy compresses responses incorrectly."
        )
    assert isinstance(error, OSError)  # noqa: S101 - the last of EXPECTED
    reason = error.strerror or str(error) or type(error).__name__
    return Diagnosis("unreachable", f"{where} cannot be reached: {reason}", "Check this machine's network connection.")


def _how_to_listen(address: GatewayAddress) -> str:
    if address.host in {"localhost", "127.0.0.1", "::1"}:
        return (
            "Start the gateway: `brunix run` with the embedded engine, `twistd --nodaemon --pidfile= brunix` with "
            "another one. If it is running, check its PROXY_LISTEN."
        )
    return (
        "Check that the gateway runs on that machine. By default it accepts only local connections; "
        "PROXY_LISTEN=tcp:8000 accepts them on every interface. Behind a proxy, check the port."
    )


def _tls(error: ssl.SSLError, address: GatewayAddress) -> Diagnosis:
    where = address.root
    code = getattr(error, "verify_code", None)
    if code is None:
        if error.reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE"}:
            return Diagnosis(
                "plain_http",
                f"the server at {where} does not speak TLS",
                f"It probably speaks plain HTTP. Use {attrs.evolve(address, scheme='http')}.",
            )
        reason = (error.reason or str(error)).replace("_", " ").lower()
        return Diagnosis(
            "tls", f"the TLS connection to {where} failed: {reason}", "Check the log of the gateway or of its proxy."
        )
    if code == _EXPIRED:
        return Diagnosis("tls_expired", f"the certificate of {address.host} has expired", "Renew it on the server.")
    if code == _NOT_YET_VALID:
        return Diagnosis(
            "tls_not_yet_valid", f"the certificate of {address.host} is not valid yet", "Check this machine's clock."
        )
    if code in {_WRONG_NAME, _WRONG_ADDRESS}:
        return Diagnosis(
            "tls_wrong_name",
            f"the certificate of {address.host} was issued for another name",
            "Use the name in the certificate, or issue one for this name.",
        )
    return Diagnosis(
        "tls_unknown",
        f"the certificate of {address.host} is not signed by a trusted authority",
        "For a CA of your own, name its file: --ca FILE here, SSL_CERT_FILE or NODE_EXTRA_CA_CERTS for most clients.",
    )


def tls_diagnosis(address: GatewayAddress) -> Diagnosis:
    """Explain that an http:// address belongs to a server that speaks TLS."""
    return Diagnosis(
        "https", f"the server at {address.root} speaks TLS", f"Use {attrs.evolve(address, scheme='https')}."
    )


def _not_http(error: ProtocolError, address: GatewayAddress) -> Diagnosis:
    if error.received.startswith(b"\x15"):  # a TLS record with an alert
        return tls_diagnosis(address)
    if error.received.startswith(b"\x00"):  # the first frame of HTTP/2, which gRPC uses
        return Diagnosis(
            "grpc",
            f"the server at {address.root} speaks only HTTP/2, as gRPC does",
            "It is probably the engine. Use the gateway's port instead, 8000 by default.",
        )
    if error.received.startswith(b"HTTP/"):
        return Diagnosis(
            "invalid_http",
            f"the response from {address.root} is not valid HTTP: {error}",
            "If there is a proxy in front of the gateway, check its log.",
        )
    return Diagnosis(
        "no_http",
        f"the server at {address.root} does not speak HTTP",
        "Another program listens there. Check the port.",
    )


_REMEDIES: Final = {
    "host_not_allowed": "Add this name to the gateway's settings: PROXY_ALLOWED_HOSTS={host}.",
    "origin_not_allowed": "Add the page's origin to PROXY_CORS_ORIGINS.",
    "model_not_found": "`brunix doctor` shows the model's name. To accept this name too, set PROXY_MODEL_ALIASES.",
    "not_offered": "The gateway does not implement this endpoint.",
    "engine_unavailable": "The gateway runs, but its engine is unreachable. Check the engine and BRUNIX_GRPC_TARGET.",
    "engine_timeout": "The engine took too long. See PROXY_ENGINE_TIMEOUT_S and PROXY_FIRST_TOKEN_TIMEOUT_S.",
    "engine_error": "The engine failed. The gateway's log has the reason under the request id.",
    "engine_auth": "The engine rejects the gateway's certificate. Check BRUNIX_GRPC_TLS_CERT.",
    "overloaded": "Try again in a moment. If it happens often, raise PROXY_THREAD_WORKERS or PROXY_QUEUE_SIZE.",
    "rate_limit_exceeded": "Try again in a moment.",
    "request_too_large": "Shorten the request, or raise PROXY_MAX_BODY_BYTES.",
    "internal_error": "The gateway's log has the reason under the request id.",
}


@attrs.frozen
class ErrorBody:
    """The error in the body of a failed response."""

    message: str
    """In one line; may be empty."""
    code: str = ""
    is_api_error: bool = False
    """Whether it has the format of a chat API, and is not, for example, a proxy's HTML page."""


def parse_error_body(body: bytes) -> ErrorBody:
    """Parse the body of a failed response: the error of one of the APIs, HTML, or plain text."""
    text = body[:20_000].decode("utf-8", "replace")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        title = re.search(r"<title>(.*?)</title>", text, re.DOTALL | re.IGNORECASE)
        plain = title[1] if title else re.sub(r"<[^>]*>", " ", text)
        return ErrorBody(" ".join(html.unescape(plain).split())[:200])
    return find_error(data) or ErrorBody(" ".join(text.split())[:200])


def find_error(data: Any) -> ErrorBody | None:  # noqa: ANN401 - any JSON value
    """Return the error in a JSON value, such as an event of a stream; None if it has none."""
    if not isinstance(data, dict):
        return None
    error = data.get("error")
    if error is None and isinstance(data.get("response"), dict):
        error = data["response"].get("error")
    if isinstance(error, str) and error:
        return ErrorBody(error, is_api_error=True)
    if not isinstance(error, dict):
        if data.get("type") != "error":
            return None
        error = data | {"type": None}
    code = error.get("code") or error.get("type") or ""
    return ErrorBody(str(error.get("message") or ""), str(code), is_api_error=True)


_UNAUTHORIZED: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED)
_PROXY_ERRORS: Final = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)


def _is_local(host: str) -> bool:
    """Whether a gateway accepts this host in any configuration."""
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith((".localhost", ".local", ".internal"))
    return address.is_loopback or address.is_private or address.is_unspecified


def diagnose_response(response: FullResponse, address: GatewayAddress) -> Diagnosis:  # noqa: PLR0911 - a table
    """Explain a response that is not the expected one."""
    status = response.status
    error = parse_error_body(response.body)
    detail = f": {error.message}" if error.message else ""
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        location = response.headers.get("Location")
        base = re.sub(r"/(v1|api|health)(/.*)?\Z", "", location) or location
        return Diagnosis(
            "redirect",
            f"{address.root} redirects to {location or 'an unknown address'}; clients do not follow redirects",
            f"Use this address: {base}." if base else "",
            status,
        )
    if status in _UNAUTHORIZED or (status == HTTPStatus.FORBIDDEN and error.code not in _REMEDIES):
        return Diagnosis(
            "unauthorized",
            f"{address.root} requires a key, or rejects this one: {status}{detail}",
            "A proxy in front of the gateway asks for it. Set BRUNIX_API_KEY, or use --header.",
            status,
        )
    if error.code == "host_not_allowed" and _is_local(address.host):
        # The gateway accepts this name, so it must have received another one.
        remedy = "A proxy changes the Host header. In nginx: proxy_set_header Host $http_host. Or check --header."
        return Diagnosis(error.code, error.message, remedy, status)
    if error.code in _REMEDIES:
        remedy = _REMEDIES[error.code].format(host=address.host)
        return Diagnosis(error.code, error.message or error.code, remedy, status)
    if b"plain HTTP request was sent to HTTPS port" in response.body:
        return tls_diagnosis(address)
    if error.is_api_error:
        return Diagnosis(error.code or f"http_{status}", error.message or f"status {status}", "", status)
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return Diagnosis(
            "proxy_body_limit",
            f"a proxy in front of the gateway rejects a request of this size: 413{detail}",
            "In nginx: client_max_body_size 5m.",
            status,
        )
    if status in _PROXY_ERRORS:
        return Diagnosis(
            "proxy_without_gateway",
            f"a proxy responds in place of the gateway: {status}{detail}",
            "The proxy cannot reach the gateway, or does not wait long enough. Check its log.",
            status,
        )
    return Diagnosis(
        "not_the_gateway",
        f"{address.root} responds with {status}{detail}",
        "Check that the gateway runs at this address. `brunix doctor` shows what does.",
        status,
    )
