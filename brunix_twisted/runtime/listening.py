"""Listening on an endpoint, whether its ``listen`` succeeds at once or takes its time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from brunix_twisted.runtime.shutdown import run_steps

_log: Final = Logger()


class StartError(SystemExit, Exception):
    """
    The gateway cannot start; its message is the one line to print.

    It is both so that twistd does everything right: an Exception it reports from a daemon to the shell that started
    it, and removes the pid file; a SystemExit ends the process with the message alone, without a traceback.
    """


class Listener:
    """
    Listens once on one endpoint.

    Twisted's own endpoints listen at once. One from a plugin may need seconds, to fetch a certificate say, and may
    succeed after the gateway has begun to stop: such a port is closed as soon as it opens.
    """

    port: IListeningPort | None = None
    """The open port."""
    has_started: bool = False

    def __init__(self, endpoint: IStreamServerEndpoint, variable: str, description: str) -> None:
        """
        Prepare to listen.

        :param variable: the setting that has chosen the endpoint, for error messages.
        :param description: that setting's value.
        """
        self._endpoint = endpoint
        self._variable = variable
        self._description = description
        self._is_stopped = False

    def start(self, factory: IProtocolFactory, opened: Callable[[IListeningPort], object]) -> Deferred[None]:
        """
        Ask the endpoint to listen, and call ``opened`` with the port once it does.

        The Deferred fires after ``opened`` has returned, and fails with StartError if the endpoint refuses later than
        at once. It never fires if the listener is stopped before.

        :raises StartError: the endpoint refuses at once.
        """
        self.has_started = True
        result: Deferred[None] = Deferred()
        refusals: list[StartError] = []

        def listens(port: IListeningPort) -> None:
            self.port = port
            if self._is_stopped:
                ensureDeferred(self._close())
                return
            opened(port)
            result.callback(None)

        def refused(failure: Failure) -> None:
            if self._is_stopped:
                return
            ensureDeferred(self._close())
            message = f"twistd brunix: {self._variable} is {self._description!r}: {failure.getErrorMessage()}"
            refusals.append(StartError(message))
            if is_late:
                result.errback(refusals[0])

        is_late = False
        listening = maybeDeferred(self._endpoint.listen, factory)
        listening.addCallback(listens).addErrback(refused)
        if refusals:
            raise refusals[0]
        is_late = True
        if self.port is None:
            _log.info("Waiting for {variable}={value} to listen", variable=self._variable, value=self._description)
        return result

    def stop(self) -> Deferred[None]:
        """Close the port, now or as soon as it opens. Fires when an open port is closed; never fails."""
        self._is_stopped = True
        return ensureDeferred(self._close())

    async def _close(self) -> None:
        port, self.port = self.port, None
        if port is not None:
            await run_steps((f"close the port of {self._variable}", port.stopListening))
