"""Listening on an endpoint whose ``listen`` may finish at once or later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from brunix_twisted.errors import StartError
from brunix_twisted.runtime.shutdown import run_steps

_log: Final = Logger("brunix.gateway")


class Listener:
    """
    Listens once on one endpoint.

    Twisted's endpoints listen at once. An endpoint from a plugin may need seconds, for example to fetch a certificate,
    and may succeed after the gateway has begun to stop. Then its port is closed as soon as it opens.
    """

    port: IListeningPort | None = None
    """The open port."""
    has_started: bool = False

    def __init__(self, endpoint: IStreamServerEndpoint, variable: str, description: str) -> None:
        """
        Prepare to listen.

        :param variable: the variable of the endpoint's setting, for error messages.
        :param description: the value of that setting.
        """
        self._endpoint = endpoint
        self._variable = variable
        self._description = description
        self._is_stopped = False

    def start(self, factory: IProtocolFactory, opened: Callable[[IListeningPort], object]) -> Deferred[None]:
        """
        Make the endpoint listen, and call ``opened`` with the port once it does.

        The Deferred fires after ``opened`` has returned. It fails with StartError if the endpoint fails later. It never
        fires if the listener is stopped before.

        :raises StartError: the endpoint fails at once.
        """
        self.has_started = True
        result: Deferred[None] = Deferred()
        errors: list[StartError] = []

        def listens(port: IListeningPort) -> None:
            self.port = port
            if self._is_stopped:
                ensureDeferred(self._close())
                return
            opened(port)
            result.callback(None)

        def failed(failure: Failure) -> None:
            if self._is_stopped:
                return
            ensureDeferred(self._close())
            message = f"twistd brunix: {self._variable} is {self._description!r}: {failure.getErrorMessage()}"
            errors.append(StartError(message))
            if is_late:
                result.errback(errors[0])

        is_late = False
        listening = maybeDeferred(self._endpoint.listen, factory)
        listening.addCallback(listens).addErrback(failed)
        if errors:
            raise errors[0]
        is_late = True
        if self.port is None:
            _log.info("Waiting for {variable}={value} to listen", variable=self._variable, value=self._description)
        return result

    def stop(self) -> Deferred[None]:
        """Close the port, now or as soon as it opens. Fires when it is closed; never fails."""
        self._is_stopped = True
        return ensureDeferred(self._close())

    async def _close(self) -> None:
        port, self.port = self.port, None
        if port is not None:
            await run_steps((f"close the port of {self._variable}", port.stopListening))
