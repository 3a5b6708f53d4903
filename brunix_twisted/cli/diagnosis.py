"""What stands between a question and its answer, in words, and what to do about it. Pure."""

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
    """One of them."""

    kind: str
    """A word for programs; where the gateway itself gave one, its own."""
    message: str
    """A sentence without its full stop."""
    remedy: str = ""
    """One or more whole sentences."""
    status: int | None = None
    """The HTTP status, if there was an answer."""


class DiagnosisError(Exception):
    """There is no answer."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        super().__init__(diagnosis.message)
        self.diagnosis = diagnosis


EXPECTED: Final = (OSError, ProtocolError, zlib.error, DiagnosisError)
"""What asking over a network raises."""

# OpenSSL's own numbers of what can be wrong with a certificate, X509_V_ERR_….
_NOT_YET_VALID, _EXPIRED, _WRONG_NAME, _WRONG_ADDRESS = 9, 10, 62, 64


def diagnose_exception(error: Exception, address: GatewayAddress) -> Diagnosis:  # noqa: PLR0911 - a table
    """Tell what was raised while a gateway was asked."""
    where = address.root
    if isinstance(error, DiagnosisError):
        return error.diagnosis
    if isinstance(error, ssl.SSLError):
        return _tls(error, address)
    if isinstance(error, socket.gaierror):
        return Diagnosis(
            "unknown_name",
            f"nobody knows the name {address.host}",
            "Is it spelled as it should be? A name of an internal network needs that network, or its VPN.",
        )
    if isinstance(error, DeadlineExceededError):
        return Diagnosis(
            "timeout",
            f"{where} does not answer: {error}",
            "Something between drops what is sent there, a firewall most likely, or the server is stuck.",
        )
    if isinstance(error, ConnectionRefusedError):
        return Diagnosis("refused", f"nothing listens at {where}", _listening(address))
    if isinstance(error, ProtocolError):
        return _no_http(error, address)
    if isinstance(error, TruncatedError):
        return Diagnosis(
            "broken_off",
            "the connection ended before the answer did",
            "The gateway was stopped, or something between cuts answers off; `brunix doctor` looks for that.",
        )
    if isinstance(error, ConnectionError):
        return Diagnosis(
            "closed",
            f"{where} takes connections, and closes them without an answer",
            "It may speak HTTPS where http:// is asked, or be a proxy that does not reach the gateway.",
        )
    if isinstance(error, zlib.error):
        return Diagnosis("broken_compression", "the answer came compressed, and cannot be read", "A proxy garbles it.")
    assert isinstance(error, OSError)  # noqa: S101 - nothing else is caught
    reason = error.strerror or str(error) or type(error).__name__
    return Diagnosis("unreachable", f"{where} cannot be reached: {reason}", "Is this machine in the right network?")


def _listening(address: GatewayAddress) -> str:
    if address.host in {"localhost", "127.0.0.1", "::1"}:
        return "Start the gateway: `twistd --nodaemon --pidfile= brunix`. Or is another port in its PROXY_LISTEN?"
    return (
        "Does the gateway run there? By default it listens on its own machine only: PROXY_LISTEN=tcp:8000 is every "
        "interface. Or there is a proxy, with another port."
    )


def _tls(error: ssl.SSLError, address: GatewayAddress) -> Diagnosis:
    where = address.root
    code = getattr(error, "verify_code", None)
    if code is None:
        if error.reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE"}:
            return Diagnosis(
                "plain_http",
                f"what listens at {where} speaks no TLS",
                f"Most likely it is plain HTTP: write {attrs.evolve(address, scheme='http')}.",
            )
        reason = (error.reason or str(error)).replace("_", " ").lower()
        return Diagnosis("tls", f"TLS with {where} fails: {reason}", "Its log, or the proxy's, should say more.")
    if code == _EXPIRED:
        return Diagnosis("tls_expired", f"the certificate of {address.host} has expired", "Renew it on the server.")
    if code == _NOT_YET_VALID:
        return Diagnosis(
            "tls_not_yet_valid",
            f"the certificate of {address.host} is not valid yet",
            "Is the clock of this machine right?",
        )
    if code in {_WRONG_NAME, _WRONG_ADDRESS}:
        return Diagnosis(
            "tls_wrong_name",
            f"the certificate that {address.host} shows is for another name",
            "Use the name that is in it, or have one made for this name.",
        )
    return Diagnosis(
        "tls_unknown",
        f"the certificate of {address.host} is signed by nobody that this machine trusts",
        "Is it your own authority's? Then name its file: --ca FILE here, SSL_CERT_FILE or NODE_EXTRA_CA_CERTS for most "
        "clients.",
    )


def tls_diagnosis(address: GatewayAddress) -> Diagnosis:
    """Tell that http:// was asked, and https:// is there."""
    return Diagnosis(
        "https",
        f"what listens at {address.root} speaks TLS",
        f"Write {attrs.evolve(address, scheme='https')}.",
    )


def _no_http(error: ProtocolError, address: GatewayAddress) -> Diagnosis:
    if error.received.startswith(b"\x15"):  # a TLS record with an alert
        return tls_diagnosis(address)
    if error.received.startswith(b"\x00"):  # the first frame of HTTP/2, which gRPC uses
        return Diagnosis(
            "grpc",
            f"what listens at {address.root} speaks HTTP/2 only, as gRPC does",
            "That is likely to be the engine itself: ask the gateway, which has a port of its own, 8000 by default.",
        )
    if error.received.startswith(b"HTTP/"):
        return Diagnosis(
            "invalid_http",
            f"the response from {address.root} is not valid HTTP: {error}",
            "If there is a proxy in front of the gateway, check its log.",
        )
    return Diagnosis(
        "no_http",
        f"what listens at {address.root} speaks no HTTP",
        "It is another program: is the port right?",
    )


_REMEDIES: Final = {
    "host_not_allowed": "Tell the gateway this name, too: PROXY_ALLOWED_HOSTS={host}.",
    "origin_not_allowed": "Add the page's origin to PROXY_CORS_ORIGINS.",
    "model_not_found": "`brunix doctor` tells the model's name; PROXY_MODEL_ALIASES lets the gateway take this one.",
    "not_offered": "The gateway has no such endpoint, on purpose.",
    "engine_unavailable": "The gateway runs, its engine does not answer: look at that, and at BRUNIX_GRPC_TARGET.",
    "engine_timeout": "The engine took too long; see PROXY_ENGINE_TIMEOUT_S and PROXY_FIRST_TOKEN_TIMEOUT_S.",
    "engine_error": "The engine failed; the gateway's log says how, beside the request's id.",
    "engine_auth": "The engine does not take the gateway's certificate: see BRUNIX_GRPC_TLS_CERT.",
    "overloaded": "Ask again in a moment. If that is often so: PROXY_THREAD_WORKERS, PROXY_QUEUE_SIZE.",
    "rate_limit_exceeded": "Ask again in a moment.",
    "request_too_large": "Shorten it, or raise PROXY_MAX_BODY_BYTES.",
    "internal_error": "The gateway's log has the reason, beside the request's id.",
}


_HOST_TODO: Final = "proxy_set_header Host $http_host, HAProxy nothing; or a --header of yours does."


@attrs.frozen
class ErrorBody:
    """What an answer that is a failure says of itself."""

    message: str
    """In one line; empty where it says nothing."""
    code: str = ""
    ours: bool = False
    """Whether it has the form of the APIs that the gateway speaks, and not that of a proxy's page."""


def parse_error_body(body: bytes) -> ErrorBody:
    """Read a failure's body, in any of the APIs' forms or in none."""
    text = body[:20_000].decode("utf-8", "replace")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        title = re.search(r"<title>(.*?)</title>", text, re.DOTALL | re.IGNORECASE)
        plain = title[1] if title else re.sub(r"<[^>]*>", " ", text)
        return ErrorBody(" ".join(html.unescape(plain).split())[:200])
    return find_error(data) or ErrorBody(" ".join(text.split())[:200])


def find_error(data: Any) -> ErrorBody | None:  # noqa: ANN401 - whatever JSON holds
    """Read the failure in a JSON value, such as an event of a stream, if it is one."""
    if not isinstance(data, dict):
        return None
    error = data.get("error")
    if error is None and isinstance(data.get("response"), dict):
        error = data["response"].get("error")
    if isinstance(error, str) and error:
        return ErrorBody(error, ours=True)
    if isinstance(error, dict):
        code = error.get("code") or error.get("type") or ""
        return ErrorBody(str(error.get("message") or ""), str(code), ours=True)
    if data.get("type") == "error":
        return ErrorBody(str(data.get("message") or ""), str(data.get("code") or ""), ours=True)
    return None


_UNAUTHORIZED: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED)
_BEHIND: Final = (HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)


def _is_local(host: str) -> bool:
    """Whether a gateway accepts this host in any configuration."""
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith((".localhost", ".local", ".internal"))
    return address.is_loopback or address.is_private or address.is_unspecified


def diagnose_response(response: FullResponse, address: GatewayAddress) -> Diagnosis:  # noqa: PLR0911 - likewise
    """Tell why an answer is none."""
    status, body = response.status, response.body
    said = parse_error_body(body)
    words = f": {said.message}" if said.message else ""
    location = response.headers.get("Location")
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        base = re.sub(r"/(v1|api|health)(/.*)?\Z", "", location) or location
        return Diagnosis(
            "redirect",
            f"{address.root} sends elsewhere, to {location or 'nowhere'}, and clients do not take a question along",
            f"Use that address: {base}." if base else "",
            status,
        )
    if status in _UNAUTHORIZED or (status == HTTPStatus.FORBIDDEN and said.code not in _REMEDIES):
        return Diagnosis(
            "unauthorized",
            f"{address.root} lets nobody in without a key, or not with this one: {status}{words}",
            "The gateway itself asks for none; what stands before it does. Set BRUNIX_API_KEY, or use --header.",
            status,
        )
    if said.code == "host_not_allowed" and _is_local(address.host):
        # By this name it may always be called, and so it is called by another.
        return Diagnosis(said.code, said.message, "A proxy sends it another name: nginx needs " + _HOST_TODO, status)
    if said.code in _REMEDIES:
        remedy = _REMEDIES[said.code].format(host=address.host)
        return Diagnosis(said.code, said.message or said.code, remedy, status)
    if b"plain HTTP request was sent to HTTPS port" in body:
        return tls_diagnosis(address)
    if said.ours:
        return Diagnosis(said.code or f"http_{status}", said.message or f"status {status}", "", status)
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return Diagnosis(
            "proxy_body_limit",
            f"something before the gateway takes no body as large as this: 413{words}",
            "In nginx: client_max_body_size 5m.",
            status,
        )
    if status in _BEHIND:
        return Diagnosis(
            "proxy_without_gateway",
            f"something before the gateway answers in its place: {status}{words}",
            "The proxy does not reach the gateway, or does not wait long enough for it: see its log.",
            status,
        )
    return Diagnosis(
        "not_the_gateway",
        f"{address.root} answers {status}{words}",
        "Is it the gateway that is there? `brunix doctor` looks.",
        status,
    )
