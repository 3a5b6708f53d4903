"""The network path to the gateway: DNS, addresses, TLS, and the proxies in the environment."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

import attrs

from brunix_twisted.cli.address import GatewayAddress, redacted
from brunix_twisted.cli.diagnosis import EXPECTED, Diagnosis, DiagnosisError, diagnose_exception
from brunix_twisted.cli.doctor.findings import Finding
from brunix_twisted.cli.http_client import Connection, Target
from brunix_twisted.cli.sockets import ResolvedAddress, connect, resolve

_MAX_ADDRESSES: Final = 4
_MIN_CERTIFICATE_DAYS: Final = 14


@attrs.frozen
class ConnectAttempt:
    """The result of connecting to one of the host's addresses."""

    resolved: ResolvedAddress
    took_s: float
    diagnosis: Diagnosis | None = None
    server: str = ""
    """The parts of its response that identify the server."""


def look_up(target: Target, timeout_s: float) -> list[ResolvedAddress]:
    """
    Look up the addresses, without duplicates.

    :raises DiagnosisError: the lookup failed.
    """
    where = target.address
    try:
        return list(dict.fromkeys(resolve(where.host, where.port, timeout_s)))
    except EXPECTED as error:
        raise DiagnosisError(diagnose_exception(error, where)) from error


def measure_addresses(target: Target, addresses: Sequence[ResolvedAddress], timeout_s: float) -> list[ConnectAttempt]:
    """Connect to each address; if there are several, compare the servers."""
    attempts = []
    for resolved in addresses[:_MAX_ADDRESSES]:
        started_s = time.monotonic()
        try:
            connect(resolved, timeout_s).close()
        except EXPECTED as error:
            diagnosis = diagnose_exception(error, target.address)
            attempts.append(ConnectAttempt(resolved, time.monotonic() - started_s, diagnosis))
            continue
        took_s = time.monotonic() - started_s
        server = ""
        if len(addresses) > 1:
            with suppress(*EXPECTED), Connection(target, resolved) as connection:
                response = connection.request("GET", "/health/live", timeout_s=timeout_s)
                server = f"{response.status} {response.headers.get('Server')} {response.read(200).body!r}"
        attempts.append(ConnectAttempt(resolved, took_s, None, server))
    return attempts


def check_addresses(where: GatewayAddress, attempts: Sequence[ConnectAttempt]) -> list[Finding]:
    """Check which of the host's addresses are reachable."""
    reachable = [each for each in attempts if each.diagnosis is None]
    unreachable = [each for each in attempts if each.diagnosis is not None]
    if not reachable:
        diagnosis = attempts[0].diagnosis or Diagnosis("unreachable", f"{where.root} cannot be reached")
        tried = "" if len(attempts) == 1 else f" (tried: {_addresses(attempts, ', ')})"
        figures: dict[str, Any] = {"kind": diagnosis.kind}
        return [Finding("address", "problem", diagnosis.message + tried, "", diagnosis.remedy, figures)]
    figures = {
        "addresses": [
            {
                "address": each.resolved.address,
                "connect_ms": round(each.took_s * 1000, 2),
                "trouble": each.diagnosis.kind if each.diagnosis else None,
            }
            for each in attempts
        ]
    }
    names = _addresses(reachable)
    if unreachable:
        missing = _addresses(unreachable)
        is_first = attempts[0].diagnosis is not None
        todo = f"Remove {missing} from the host's DNS records, or let a server listen there."
        if where.host == "localhost":
            todo = (
                f"Use {attrs.evolve(where, host=reachable[0].resolved.address)} in clients, or let the gateway listen "
                f"on both: PROXY_LISTEN='tcp6:{where.port}:interface=\\:\\:'."
            )
        return [
            Finding(
                "address",
                "warning" if is_first else "note",
                f"{where.host} also resolves to {missing}, which does not respond; {names} does",
                f"A client that tries only {missing} does not find the gateway"
                f"{', and it is the first address' if is_first else ''}. One that tries all may lose time.",
                todo,
                figures,
            )
        ]
    if len({each.server for each in reachable}) > 1:
        return [
            Finding(
                "address",
                "problem",
                f"{where.host} resolves to {names}, where different servers respond",
                "Which server a client reaches depends on the client.",
                "Use the IP address instead of the name, or stop the other server.",
                figures,
            )
        ]
    says = f"{names} accepts connections after {reachable[0].took_s * 1000:.1f} ms"
    return [Finding("address", "ok", says, figures=figures)]


def _addresses(attempts: Sequence[ConnectAttempt], separator: str = " and ") -> str:
    return separator.join(each.resolved.address for each in attempts)


@attrs.frozen
class TlsDetails:
    """The TLS version and the server's certificate."""

    version: str
    issuer: str
    days_left: float


def measure_tls(target: Target, timeout_s: float) -> TlsDetails:
    """
    Connect with TLS.

    :raises DiagnosisError: the connection or the handshake failed.
    """
    try:
        with Connection(target) as connection:
            connection.open(timeout_s)
            tls = connection.socket
            assert isinstance(tls, ssl.SSLSocket)  # noqa: S101 - it is an https:// address
            certificate = tls.getpeercert() or {}
            issuer = _pairs(certificate.get("issuer", ()))
            expires_s = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
            return TlsDetails(
                tls.version() or "TLS",
                str(issuer.get("organizationName") or issuer.get("commonName") or "an unnamed issuer"),
                (expires_s - time.time()) / 86_400,
            )
    except EXPECTED as error:
        raise DiagnosisError(diagnose_exception(error, target.address)) from error


def _pairs(name: Any) -> dict[str, str]:  # noqa: ANN401 - the ssl module's form of a name
    return {key: value for part in name for key, value in part}


def check_tls(tls: TlsDetails) -> Finding:
    """Check how long the certificate is still valid."""
    figures = {"version": tls.version, "issuer": tls.issuer, "days_left": round(tls.days_left, 1)}
    if tls.days_left < _MIN_CERTIFICATE_DAYS:
        return Finding(
            "tls",
            "warning",
            f"the certificate expires in {tls.days_left:.1f} days",
            "After that, clients can no longer connect.",
            "Renew it, and check why it was not renewed automatically.",
            figures,
        )
    says = f"{tls.version}; the certificate was issued by {tls.issuer} and is valid for {tls.days_left:.0f} days"
    return Finding("tls", "ok", says, figures=figures)


def speaks_tls(target: Target, resolved: ResolvedAddress, timeout_s: float) -> bool:
    """Whether the server completes a TLS handshake. No data is sent, so the certificate does not matter."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with connect(resolved, timeout_s) as connection:
            connection.settimeout(timeout_s)
            with context.wrap_socket(connection, server_hostname=target.address.host):
                return True
    except OSError:
        return False


@attrs.frozen
class ProxyCheck:
    """A proxy from the environment that other clients would use for this address."""

    variable: str
    proxy: str
    """Without its password."""
    works: bool | None
    """Whether the gateway is reachable through it; None if this was not tried."""
    result: str = ""
    """The status line of the response, or the error."""


def proxy_for(where: GatewayAddress, environment: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the variable that names a proxy for an address, and the proxy; None if clients connect directly."""
    excepted = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    for part in (part.strip().lower() for part in excepted.split(",")):
        if part == "*" or (part and _is_excepted(where, part)):
            return None
    for name in (f"{where.scheme}_proxy", "all_proxy"):
        for variable in (name, name.upper()):
            if proxy := environment.get(variable, "").strip():
                return variable, proxy
    return None


def _is_excepted(where: GatewayAddress, part: str) -> bool:
    host, _, port = part.rpartition(":")
    if host and port.isdigit() and "]" not in port and ":" not in host.strip("[]"):
        return host == where.host and int(port) == where.port
    name = part.strip("[]").lstrip("*").lstrip(".")
    return where.host == name or where.host.endswith(f".{name}")


def measure_proxy(target: Target, variable: str, proxy: str, timeout_s: float) -> ProxyCheck:
    """Request the gateway through the proxy, as other clients do."""
    where = target.address
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return ProxyCheck(variable, "an invalid address", works=False)
    public = f"{parts.scheme}://{host}" + (f":{port}" if port else "")
    if parts.scheme != "http" or not host:
        return ProxyCheck(variable, public, None)
    authority = f"{f'[{where.host}]' if ':' in where.host else where.host}:{where.port}"
    head = (
        f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"
        if where.secure
        else f"GET {where.root}/health/live HTTP/1.1\r\nHost: {where.authority}\r\nConnection: close\r\n\r\n"
    )
    try:
        resolved = resolve(host, port or 80, timeout_s)[0]
        with connect(resolved, timeout_s) as connection:
            connection.settimeout(timeout_s)
            connection.sendall(head.encode("ascii"))
            status_line = connection.recv(4096).split(b"\r\n", 1)[0].decode("latin-1")
    except OSError as error:
        return ProxyCheck(variable, public, works=False, result=getattr(error, "strerror", None) or str(error))
    return ProxyCheck(variable, public, " 200" in status_line, status_line)


def check_proxy(where: GatewayAddress, seen: ProxyCheck | None) -> Finding:
    """Check whether other clients on this machine would use a proxy. This command connects directly."""
    if seen is None:
        return Finding("proxies", "ok", "the environment sets no proxy for this address")
    figures = {"variable": seen.variable, "proxy": seen.proxy, "works": seen.works}
    todo = f"Where clients run, add {where.host} to NO_PROXY: NO_PROXY={where.host}."
    if seen.works:
        return Finding(
            "proxies",
            "note",
            f"{seen.variable} is set: many clients use the proxy {seen.proxy}, which reaches the gateway",
            "This command connects directly. The checks below do not show whether that proxy buffers streams.",
            todo,
            figures,
        )
    result = "which was not tried" if seen.works is None else f"which fails: {seen.result or 'no response'}"
    return Finding(
        "proxies",
        "warning",
        f"{seen.variable} is set: many clients use the proxy {seen.proxy}, {result}",
        "Python packages, curl and many other clients follow the variable. This command connects directly.",
        todo,
        figures,
    )


def check_corrections(given: str, where: GatewayAddress, corrections: Sequence[str]) -> list[Finding]:
    """Report what was corrected in the address."""
    if not corrections:
        return []
    return [
        Finding(
            "url",
            "note",
            f"the address was corrected to {where.root}",
            " ".join(corrections),
            f"Clients of OpenAI's API use {where.root}/v1, those of Ollama's and Anthropic's use {where.root}.",
            {"given": redacted(given), "url": where.root},
        )
    ]


def without_tls(target: Target) -> Target:
    """Return the same server with plain HTTP."""
    return attrs.evolve(target, address=attrs.evolve(target.address, scheme="http"))
