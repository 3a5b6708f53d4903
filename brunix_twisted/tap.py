"""``twistd brunix``: from the command line and the environment to a service."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar, cast

from twisted.application.service import IService
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.python.usage import Options as BaseOptions

from brunix_twisted.reactors import Reactor
from brunix_twisted.service import GatewayService, StartError
from brunix_twisted.settings import SettingError, Settings, table


class Options(BaseOptions):
    """One option for each setting; what is not given comes from the environment."""

    longdesc = "Serves the Brunix Assistance Engine to clients of OpenAI's and Ollama's HTTP APIs."
    optParameters: ClassVar[list[list[str | None]]] = [
        [row.option, None, None, f"{row.meaning} [${row.variable}, default: {row.default or 'none'}]"]
        for _, row in table()
    ]


def makeService(options: Mapping[str, str | None]) -> IService:
    """
    Make the gateway's service, as twistd asks for it. Nothing is started.

    :raises StartError: a setting is not allowed.
    """
    from twisted.internet import reactor  # noqa: PLC0415 - importing it installs one, and which is twistd's to choose

    try:
        settings = Settings.read(os.environ, options)
        _check_reactor(reactor, settings)
        endpoint = _endpoint(reactor, settings.listen)
    except SettingError as error:
        raise StartError(f"twistd brunix: {error}") from None
    return GatewayService(cast("Reactor", reactor), settings, endpoint)


def _check_reactor(reactor: object, settings: Settings) -> None:
    if settings.engine_client == "aio" and not isinstance(reactor, AsyncioSelectorReactor):
        raise SettingError("PROXY_ENGINE_CLIENT", "aio", "blocking, or aio with twistd --reactor=asyncio")


def _endpoint(reactor: Any, description: str) -> IStreamServerEndpoint:  # noqa: ANN401 - what the module is, no type says
    try:
        return cast("IStreamServerEndpoint", serverFromString(reactor, description))
    # Each kind of endpoint is read by code of its own, plugins among them, and fails in its own way.
    except Exception as fault:
        allowed = next(row.rule.allowed for _, row in table() if row.variable == "PROXY_LISTEN")
        raise SettingError("PROXY_LISTEN", description, f"{allowed} ({fault})") from fault
