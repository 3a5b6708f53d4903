"""
``twistd brunix --check``: checks whether the gateway can start.

It reads the settings, listens for a moment, checks the engine's health and prints the results. It leaves no process,
file or open port behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IAddress, IReactorTime, IStreamServerEndpoint
from twisted.internet.protocol import Factory

from brunix_twisted.app.service import is_loopback, limits_of, tls_of
from brunix_twisted.app.state import report_of_state
from brunix_twisted.config.settings import Settings, table
from brunix_twisted.config.unknown_variables import unknown
from brunix_twisted.connect.engine_port import advice, published_target
from brunix_twisted.engine.affinity import why_not
from brunix_twisted.engine.health import HealthResult, check_engine, remedy
from brunix_twisted.engine.proxies import proxy_for
from brunix_twisted.runtime.reactors import Reactor

ENGINE_TIMEOUT_S: Final = 5.0
"""Timeout of the engine's health check."""

LISTEN_TIMEOUT_S: Final = 30.0
"""Timeout for an endpoint from a plugin to listen; Twisted's endpoints listen at once."""


def report(line: str) -> None:
    """Print a line."""
    print(line, flush=True)  # noqa: T201 - the output of a command


class _TestFactory(Factory):
    """The factory for the moment in which the endpoint is tested; it has no protocol."""

    noisy = False


def changed_settings(
    settings: Settings, environment: Mapping[str, str], options: Mapping[str, str | None]
) -> list[str]:
    """Describe each setting that differs from its default: one line with its variable, value and source."""
    defaults = Settings()
    lines = []
    for name, row in table():
        if getattr(settings, name) == getattr(defaults, name):
            continue
        text = options.get(row.option)
        source = f"--{row.option}" if text is not None else "environment"
        given = environment.get(row.variable, "") if text is None else text
        default = repr(row.default) if row.default else "empty"
        lines.append(f"{row.variable} is {row.rule.shown(given)!r} ({source}; default: {default})")
    return lines


async def check(
    reactor: Reactor,
    settings: Settings,
    endpoint: IStreamServerEndpoint | None,
    environment: Mapping[str, str],
    options: Mapping[str, str | None],
) -> bool:
    """
    Print the results line by line, and return whether the gateway can start, the engine is healthy and the state works.

    :param endpoint: where to listen; None for a socket from systemd, which cannot be tested here.
    :param environment: the source of the settings, together with the options.
    """
    changed = changed_settings(settings, environment, options)
    report(f"settings: {len(changed) or 'none'} changed from the default")
    for line in changed:
        report(f"  {line}")
    for sentence in unknown(environment):
        report(f"  {sentence}")
    listens = await _listens(reactor, settings, endpoint)
    state_works = await _state_works(reactor, settings)
    engine_works = await _engine_works(reactor, settings, environment)
    if not listens:
        report("The gateway cannot start.")
    elif not engine_works:
        report("The gateway can start, but returns errors until the engine is healthy.")
    elif not state_works:
        report("The gateway can start, but keeps conversations only in memory until the state can be used.")
    else:
        report("The gateway is ready to start.")
    return listens and engine_works and state_works


async def _engine_works(reactor: Reactor, settings: Settings, environment: Mapping[str, str]) -> bool:
    tls = tls_of(settings)
    limits = limits_of(settings)
    result = await check_engine(reactor, settings.grpc_target, tls, ENGINE_TIMEOUT_S, limits)
    how = "without TLS" if tls is None else "over TLS"
    if result.unhealthy_reason is None:
        report(f"engine: {settings.grpc_target} is healthy, {how}; the check took {result.took_s * 1000:.0f} ms")
    else:
        report(f"engine: {settings.grpc_target} is not healthy, {how}: {result.unhealthy_reason}")
        if todo := remedy(result, tls):
            report(f"  {todo}.")
        if result.detail:
            report(f"  gRPC says: {result.detail}")
        published = published_target(settings.grpc_target) if "refused" in result.detail else None
        if published is not None:
            elsewhere = await check_engine(reactor, published, tls, ENGINE_TIMEOUT_S, limits)
            if elsewhere.unhealthy_reason is None:
                report(f"  {advice(published)}.")
    if (proxy := proxy_for(settings.grpc_target, environment)) is not None:
        report(f"  The connection uses the proxy {proxy}. To bypass it, add the engine's host to no_proxy.")
    if (reason := why_not(settings.grpc_target, environment)) is not None:
        report(f"  {reason}")
    return result.unhealthy_reason is None


async def _state_works(reactor: Reactor, settings: Settings) -> bool:
    state, fault = await report_of_state(reactor, settings)
    report(f"state: {state}" if fault is None else f"state: {state} cannot be used")
    if fault is not None:
        report(f"  {fault}")
    return fault is None


async def _listens(reactor: Reactor, settings: Settings, endpoint: IStreamServerEndpoint | None) -> bool:
    if endpoint is None:
        report(f"listening: {settings.listen} was not tested: systemd opens this socket")
        return True
    try:
        # An endpoint from a plugin may take long, or never finish.
        clock = cast("IReactorTime", reactor)
        port = await maybeDeferred(endpoint.listen, _TestFactory()).addTimeout(LISTEN_TIMEOUT_S, clock)
    except DeferredTimeout:
        report(f"listening: PROXY_LISTEN is {settings.listen!r}: did not listen within {LISTEN_TIMEOUT_S:g} s")
        return False
    # An endpoint may fail with any exception.
    except Exception as fault:  # noqa: BLE001 - see above
        report(f"listening: PROXY_LISTEN is {settings.listen!r}: {fault}")
        if "already in use" in str(fault):
            report("  Another program, or a running gateway, already listens there.")
        return False
    address = port.getHost()
    await maybeDeferred(port.stopListening)
    report(f"listening: {settings.listen} is free")
    if (advice := session_advice(settings, address)) is not None:
        report(f"  {advice}")
    return True


def session_advice(settings: Settings, address: IAddress) -> str | None:
    """Return what to set if clients of this address may look like one caller; None if nothing."""
    if isinstance(address, UNIXAddress):
        proxies, can_distinguish = "PROXY_TRUSTED_PROXIES=unix", settings.trusted_proxies.unix
    else:
        proxies, can_distinguish = "PROXY_TRUSTED_PROXIES", bool(settings.trusted_proxies) or is_loopback(address)
    if can_distinguish or settings.session_match == "exact" or not settings.session_continuity:
        return None
    return (
        f"If clients reach the gateway through a proxy, they look like one caller: set {proxies}, or "
        "PROXY_SESSION_MATCH=exact if they cannot be distinguished."
    )


def engine_status(result: HealthResult, settings: Settings) -> str:
    """Describe a health check for systemd's status, which all users of the machine can read."""
    engine = f"at startup the engine at {settings.grpc_target} was"
    if result.unhealthy_reason is None:
        return f"{engine} healthy"
    return f"{engine} not healthy: {result.unhealthy_reason}"


def check_engine_status(reactor: Reactor, settings: Settings) -> Deferred[str]:
    """Check the engine's health; fires with :func:`engine_status`, and never fails."""
    checked = check_engine(reactor, settings.grpc_target, tls_of(settings), ENGINE_TIMEOUT_S, limits_of(settings))
    return checked.addCallback(engine_status, settings)
