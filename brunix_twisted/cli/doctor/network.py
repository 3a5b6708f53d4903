"""The way to the gateway: the name, the addresses, TLS, and the proxies that clients may take instead."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

import attrs

from brunix_twisted.cli.address import GatewayAddress, shown
from brunix_twisted.cli.diagnosis import (
    EXPECTED,
    Diagnosis,
    DiagnosisError,
    diagnose_exception,
)
from brunix_twisted.cli.doctor.findings import Finding
from brunix_twisted.cli.http_client import Connection, Target
from brunix_twisted.cli.sockets import ResolvedAddress, connect, resolve

_MAX_ADDRESSES: Final = 4
_SOON_DAYS: Final = 14


@attrs.frozen
class ConnectAttempt:
    """What became of connecting to one of the name's addresses."""

    resolved: ResolvedAddress
    took_s: float
    diagnosis: Diagnosis | None = None
    server: str = ""
    """Who answers there, as far as that can be told apart."""


def look_up(target: Target, timeout_s: float) -> list[ResolvedAddress]:
    """
    Find the addresses, each once.

    :raises TroubleError: there are none.
    """
    where = target.address
    try:
        return list(dict.fromkeys(resolve(where.host, where.port, timeout_s)))
    except EXPECTED as error:
        raise DiagnosisError(diagnose_exception(error, where)) from error


def measure_addresses(target: Target, addresses: Sequence[ResolvedAddress], timeout_s: float) -> list[ConnectAttempt]:
    """Connect to each address, and ask who is there."""
    attempts = []
    for resolved in addresses[:_MAX_ADDRESSES]:
        began_s = time.monotonic()
        try:
            connect(resolved, timeout_s).close()
        except EXPECTED as error:
            diagnosis = diagnose_exception(error, target.address)
            attempts.append(ConnectAttempt(resolved, time.monotonic() - began_s, diagnosis))
            continue
        took_s = time.monotonic() - began_s
        server = ""
        if len(addresses) > 1:
            with suppress(*EXPECTED), Connection(target, resolved) as connection:
                response = connection.request("GET", "/health/live", timeout_s=timeout_s)
                server = f"{response.status} {response.headers.get('Server')} {response.read(200).body!r}"
        attempts.append(ConnectAttempt(resolved, took_s, None, server))
    return attempts


def check_addresses(where: GatewayAddress, attempts: Sequence[ConnectAttempt]) -> list[Finding]:
    """Say which of the name's addresses can be reached."""
    well = [each for each in attempts if each.diagnosis is None]
    if not well:
        diagnosis = attempts[0].diagnosis or Diagnosis("unreachable", f"{where.root} cannot be reached")
        tried = ", ".join(each.resolved.address for each in attempts)
        says = diagnosis.message if len(attempts) == 1 else f"{diagnosis.message} (tried: {tried})"
        return [Finding("address", "problem", says, "", diagnosis.remedy, {"kind": diagnosis.kind})]
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
    ill = [each for each in attempts if each.diagnosis is not None]
    names = " and ".join(each.resolved.address for each in well)
    if ill:
        missing = " and ".join(each.resolved.address for each in ill)
        first = attempts[0].diagnosis is not None
        return [
            Finding(
                "address",
                "warning" if first else "note",
                f"{where.host} is {missing} too, where nothing answers; {names} does",
                f"A client that tries {missing} {'first, and ' if first else 'and '}only that finds no gateway, "
                "and one that tries all of them may lose time.",
                f"Give clients {attrs.evolve(where, host=well[0].resolved.address)}, "
                "or have the gateway listen on both: "
                f"PROXY_LISTEN='tcp6:{where.port}:interface=\\:\\:'."
                if where.host == "localhost"
                else "Take the address that does not answer out of the name's records, or let something listen there.",
                figures,
            )
        ]
    if len({each.server for each in well}) > 1:
        return [
            Finding(
                "address",
                "problem",
                f"{where.host} is {names}, and different servers answer there",
                "Which of them a client meets depends on the client.",
                "Write the address itself in place of the name, or stop the other server.",
                figures,
            )
        ]
    return [Finding("address", "ok", f"{names} answers after {well[0].took_s * 1000:.1f} ms", figures=figures)]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@attrs.frozen
class TlsDetails:
    """What TLS came to."""

    version: str
    issuer: str
    days_left: float


def measure_tls(target: Target, timeout_s: float) -> TlsDetails:
    """
    Connect with TLS.

    :raises TroubleError: that cannot be done.
    """
    try:
        with Connection(target) as connection:
            connection.open(timeout_s)
            tls = connection.socket
            assert isinstance(tls, ssl.SSLSocket)  # noqa: S101 - the address says so
            certificate = tls.getpeercert() or {}
            issuer = _pairs(certificate.get("issuer", ()))
            until_s = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
            return TlsDetails(
                tls.version() or "TLS",
                str(issuer.get("organizationName") or issuer.get("commonName") or "somebody without a name"),
                (until_s - time.time()) / 86_400,
            )
    except EXPECTED as error:
        raise DiagnosisError(diagnose_exception(error, target.address)) from error


def _pairs(name: Any) -> dict[str, str]:  # noqa: ANN401 - as ssl writes a name
    return {key: value for part in name for key, value in part}


def check_tls(tls: TlsDetails) -> Finding:
    """Say how long the certificate will do."""
    figures = {"version": tls.version, "issuer": tls.issuer, "days_left": round(tls.days_left, 1)}
    if tls.days_left < _SOON_DAYS:
        return Finding(
            "tls",
            "warning",
            f"the certificate ends in {tls.days_left:.1f} days",
            "From then on no client gets through.",
            "Renew it, and see why that does not happen by itself.",
            figures,
        )
    return Finding(
        "tls",
        "ok",
        f"{tls.version}, the certificate is {tls.issuer}'s and holds {tls.days_left:.0f} days",
        "",
        "",
        figures,
    )


def speaks_tls(target: Target, resolved: ResolvedAddress, timeout_s: float) -> bool:
    """Whether TLS is spoken there. Nothing is sent over the connection, so nobody's certificate matters."""
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
    """A proxy that clients on this machine would ask in the gateway's place."""

    variable: str
    proxy: str
    """Without a password."""
    works: bool | None
    """Whether the gateway can be reached by it; None: not tried."""
    said: str = ""


def proxy_for(where: GatewayAddress, environment: Mapping[str, str]) -> tuple[str, str] | None:
    """Find the variable that names a proxy for an address, and the proxy; None where clients go straight."""
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
    """Ask the proxy for the gateway, as a client would."""
    where = target.address
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return ProxyCheck(variable, "what is no address", works=False)
    public = f"{parts.scheme}://{host}" + (f":{port}" if port else "")
    if parts.scheme != "http" or not host:
        return ProxyCheck(variable, public, None)
    head = (
        f"CONNECT {_bracketed(where.host)}:{where.port} HTTP/1.1\r\nHost: {_bracketed(where.host)}:{where.port}\r\n\r\n"
        if where.secure
        else f"GET {where.root}/health/live HTTP/1.1\r\nHost: {where.authority}\r\nConnection: close\r\n\r\n"
    )
    try:
        resolved = resolve(host, port or 80, timeout_s)[0]
        with connect(resolved, timeout_s) as connection:
            connection.settimeout(timeout_s)
            connection.sendall(head.encode("ascii"))
            answer = connection.recv(4096).split(b"\r\n", 1)[0].decode("latin-1")
    except OSError as error:
        reason = getattr(error, "strerror", None) or str(error)
        return ProxyCheck(variable, public, works=False, said=reason)
    return ProxyCheck(variable, public, " 200" in answer, answer)


def check_proxy(where: GatewayAddress, proxy_check: ProxyCheck | None) -> Finding:
    """Say whether clients here would go another way than this command, which goes straight."""
    if proxy_check is None:
        return Finding("proxies", "ok", "no proxy is set in the environment for this address")
    figures = {"variable": proxy_check.variable, "proxy": proxy_check.proxy, "works": proxy_check.works}
    todo = f"Set NO_PROXY={where.host} where clients run, beside what it holds already."
    if proxy_check.works:
        return Finding(
            "proxies",
            "note",
            f"{proxy_check.variable} is set: many clients ask {proxy_check.proxy}, which does reach the gateway",
            "What is told below is the straight way, which this command takes; that proxy may hold streams back.",
            todo,
            figures,
        )
    outcome = (
        "which was not tried" if proxy_check.works is None else f"which fails: {proxy_check.said or 'it says nothing'}"
    )
    return Finding(
        "proxies",
        "warning",
        f"{proxy_check.variable} is set: many clients ask {proxy_check.proxy} for the gateway, {outcome}",
        "Packages for Python, curl and many others heed the variable; this command goes straight.",
        todo,
        figures,
    )


def check_corrections(given: str, where: GatewayAddress, corrections: Sequence[str]) -> list[Finding]:
    """Say how the address should have been written."""
    if not corrections:
        return []
    return [
        Finding(
            "url",
            "note",
            f"the address was read as {where.root}",
            " ".join(corrections),
            f"Clients of OpenAI's API take {where.root}/v1, those of Ollama's and Anthropic's {where.root}.",
            {"given": shown(given), "url": where.root},
        )
    ]


def plain(target: Target) -> Target:
    """Give the same server without TLS."""
    return attrs.evolve(target, address=attrs.evolve(target.address, scheme="http"))
