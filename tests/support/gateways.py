"""A gateway that serves within the test's own process, and a client that talks to it over real sockets."""

from __future__ import annotations

import json
from typing import Any, cast

import attrs
import treq
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.threads import deferToThread
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.iweb import IResponse

from brunix_twisted.app.service import GatewayService
from brunix_twisted.config.settings import Settings
from brunix_twisted.engine import Call
from brunix_twisted.engine.aio import AioCall
from brunix_twisted.engine.blocking import BlockingCall
from brunix_twisted.runtime.reactors import Reactor


@attrs.frozen
class Reply:
    """A whole HTTP response."""

    status: int
    headers: dict[str, str]
    """By lower-case name."""
    body: bytes

    def json(self) -> Any:  # noqa: ANN401 - whatever JSON holds
        return json.loads(self.body)


@attrs.frozen
class RunningGateway:
    """A gateway that serves, and a client of it over real sockets."""

    service: GatewayService
    url: str
    pool: HTTPConnectionPool

    async def send(self, method: str, path: str, **arguments: Any) -> IResponse:  # noqa: ANN401 - treq's arguments
        """Send a request and return once its response's headers are there."""
        agent = Agent(reactor, pool=self.pool)
        response: IResponse = await treq.request(method, self.url + path, agent=agent, unbuffered=True, **arguments)
        return response

    async def ask(self, method: str, path: str, **arguments: Any) -> Reply:  # noqa: ANN401 - treq's arguments
        """Send a request and read the whole response."""
        response = await self.send(method, path, **arguments)
        body = await treq.content(response)
        headers = {
            name.decode().lower(): b", ".join(values).decode() for name, values in response.headers.getAllRawHeaders()
        }
        return Reply(response.code, headers, body)


ENGINE_CLIENT = "aio" if isinstance(reactor, AsyncioSelectorReactor) else "blocking"
"""The client that these tests are run with; the one without threads needs pytest --reactor=asyncio."""


def waiting_bytes(call: Call) -> int:
    """How much of an answer waits for its client; it shows in nothing else."""
    if isinstance(call, AioCall):
        return call._texts.bytes  # noqa: SLF001 - as said
    assert isinstance(call, BlockingCall)
    assert call._text_queue is not None  # noqa: SLF001 - likewise
    return call._text_queue._texts.bytes  # noqa: SLF001 - likewise


async def run_gateway(**settings: Any) -> RunningGateway:  # noqa: ANN401 - as in Settings
    """Start a gateway on a free port of the loopback interface."""
    settings.setdefault("engine_client", ENGINE_CLIENT)
    # A busy machine can take longer than the usual second for a connection, and a health check is not retried.
    settings.setdefault("grpc_connect_timeout_s", 30.0)
    endpoint = serverFromString(reactor, "tcp:0:interface=127.0.0.1")
    service = GatewayService(cast("Reactor", reactor), Settings(**settings), endpoint)
    service.startService()
    pool = HTTPConnectionPool(reactor)
    return RunningGateway(service, f"http://127.0.0.1:{cast('IPv4Address', service.port.getHost()).port}", pool)


async def stop_gateway(gateway: RunningGateway) -> None:
    await gateway.pool.closeCachedConnections()
    await gateway.service.stopService()


async def in_thread(function: Any, *arguments: Any) -> Any:  # noqa: ANN401 - any function
    """Wait for something that blocks without blocking the reactor."""
    return await deferToThread(function, *arguments)
