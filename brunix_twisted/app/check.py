"""
Whether the gateway would serve here: ``twistd brunix --check``.

It reads the settings, listens for a moment, asks the engine for its health and says what it found. Nothing is left
behind: no process, no file, no port.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime, IStreamServerEndpoint
from twisted.internet.protocol import Factory

from brunix_twisted.app.service import limits_of, tls_of
from brunix_twisted.config.settings import Settings, table
from brunix_twisted.config.unknown_variables import unknown
from brunix_twisted.engine.health import HealthResult, check_engine, remedy
from brunix_twisted.engine.proxies import proxy_for
from brunix_twisted.runtime.reactors import Reactor

ENGINE_TIMEOUT_S: Final = 5.0
"""An engine that takes longer to say how it is has no answers to give either."""


LISTEN_TIMEOUT_S: Final = 30.0
"""How long an endpoint may take until it listens; Twisted's own take no time."""


def tell(line: str) -> None:
    """Print a line."""
    print(line, flush=True)  # noqa: T201 - what the command is run for


class _Nobody(Factory):
    """Answers nobody in the moment in which it listens."""

    noisy = False


def chosen(settings: Settings, environment: Mapping[str, str], options: Mapping[str, str | None]) -> list[str]:
    """Write a line for each setting that is not at its default, in the words in which it was given."""
    defaults = Settings()
    lines = []
    for name, row in table():
        if getattr(settings, name) == getattr(defaults, name):
            continue
        text = options.get(row.option)
        source = f"--{row.option}" if text is not None else "environment"
        given = environment.get(row.variable, "") if text is None else text
        default = repr(row.default) if row.default else "empty"
        lines.append(f"{row.variable} is {given!r} ({source}; default: {default})")
    return lines


async def check(
    reactor: Reactor,
    settings: Settings,
    endpoint: IStreamServerEndpoint | None,
    environment: Mapping[str, str],
    options: Mapping[str, str | None],
) -> bool:
    """
    Print line by line what was found, and return whether the gateway would serve.

    :param endpoint: where it would listen; None: on a socket of systemd's, which is not here.
    :param environment: what the settings were read from, with the options.
    """
    given = chosen(settings, environment, options)
    tell(f"settings: {len(given) or 'none'} not at the default")
    for line in given:
        tell(f"  {line}")
    for sentence in unknown(environment):
        tell(f"  {sentence}")
    listens = await _listens(reactor, settings, endpoint)
    tls = tls_of(settings)
    limits = limits_of(settings)
    result = await check_engine(reactor, settings.grpc_target, tls, ENGINE_TIMEOUT_S, limits)
    how = "without TLS" if tls is None else "over TLS"
    if result.unhealthy_reason is None:
        tell(f"engine: {settings.grpc_target} is well, asked {how}; it took {result.took_s * 1000:.0f} ms")
    else:
        tell(f"engine: {settings.grpc_target}, asked {how}: {result.unhealthy_reason}")
        if todo := remedy(result, tls):
            tell(f"  {todo}.")
        if result.detail:
            tell(f"  gRPC says: {result.detail}")
    if (proxy := proxy_for(settings.grpc_target, environment)) is not None:
        tell(f"  The connection goes through the proxy {proxy}; no_proxy can except the engine's host.")
    if not listens:
        tell("The gateway would not start.")
    elif result.unhealthy_reason is not None:
        tell("The gateway would start, and answer questions with an error until the engine is well.")
    else:
        tell("The gateway is ready to start.")
    return listens and result.unhealthy_reason is None


async def _listens(reactor: Reactor, settings: Settings, endpoint: IStreamServerEndpoint | None) -> bool:
    if endpoint is None:
        tell(f"listening: {settings.listen} is for systemd to listen on, and was not tried")
        return True
    try:
        # An endpoint from a plugin may take its time, and even fail to end.
        clock = cast("IReactorTime", reactor)
        port = await maybeDeferred(endpoint.listen, _Nobody()).addTimeout(LISTEN_TIMEOUT_S, clock)
    except DeferredTimeout:
        tell(f"listening: PROXY_LISTEN is {settings.listen!r}: it did not listen within {LISTEN_TIMEOUT_S:g} s")
        return False
    # Each kind of endpoint fails in its own way.
    except Exception as fault:  # noqa: BLE001 - see above
        tell(f"listening: PROXY_LISTEN is {settings.listen!r}: {fault}")
        if "already in use" in str(fault):
            tell("  Another program listens there, or the gateway itself if it runs already.")
        return False
    await maybeDeferred(port.stopListening)
    tell(f"listening: {settings.listen} is free")
    return True


def words(result: HealthResult, settings: Settings) -> str:
    """Tell a trial in half a sentence, for a status that anyone on the machine may read."""
    engine = f"at the start the engine at {settings.grpc_target} was"
    return f"{engine} well" if result.unhealthy_reason is None else f"{engine} not well: {result.unhealthy_reason}"


def engine_in_words(reactor: Reactor, settings: Settings) -> Deferred[str]:
    """Try the engine; fires with half a sentence, and never fails."""
    tried = check_engine(reactor, settings.grpc_target, tls_of(settings), ENGINE_TIMEOUT_S, limits_of(settings))
    return tried.addCallback(words, settings)
