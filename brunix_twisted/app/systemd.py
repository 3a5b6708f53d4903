"""
Report the gateway's state to systemd: sd_notify(3) and sd_watchdog_enabled(3), without libsystemd.

A message is one datagram with lines of ``NAME=value``, sent to the socket in ``NOTIFY_SOCKET``. Without that variable,
nothing is sent.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from threading import Thread
from typing import Final, Protocol, cast

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from brunix_twisted.config.addresses import authority
from brunix_twisted.errors import StartError
from brunix_twisted.runtime.reactors import Reactor
from brunix_twisted.runtime.shutdown import run_steps

_log = Logger("brunix.gateway")

# systemd reads its socket continuously; if the socket is full for this long, systemd hangs.
_SEND_TIMEOUT_S: Final = 1.0


class Notifier:
    """Sends messages to the notification socket of the process's supervisor."""

    def __init__(self, path: str, watchdog_s: float | None = None) -> None:
        """
        Prepare to send; send nothing yet.

        :param path: path of the socket; with a leading ``@``, its name in Linux's abstract namespace.
        :param watchdog_s: systemd restarts the process if it sends no keep-alive for this long; None without watchdog.
        """
        self._path = path
        self.watchdog_s = watchdog_s

    @classmethod
    def read(cls, environment: Mapping[str, str], pid: int) -> Notifier | None:
        """
        Read the environment; return None if there is no notification socket.

        :param pid: this process's id. The watchdog may apply to another process with the same environment.
        """
        path = environment.get("NOTIFY_SOCKET", "")
        if not path:
            return None
        watchdog_us = environment.get("WATCHDOG_USEC", "")
        watched = environment.get("WATCHDOG_PID", str(pid)) == str(pid) and watchdog_us.isdecimal()
        return cls(path, int(watchdog_us) / 1_000_000 if watched and int(watchdog_us) else None)

    def notify(self, **values: str | int) -> None:
        """Send one message without blocking. A failure is logged."""
        message = "\n".join(f"{name}={' '.join(str(value).split())}" for name, value in values.items()).encode()
        names = ", ".join(values)
        try:
            self._send(message, 0)
        except BlockingIOError:
            # systemd is busy or stopped. The reactor must not wait for it.
            try:
                Thread(target=self._send_blocking, args=(message, names), daemon=True).start()
            except RuntimeError as fault:
                self._log_failure(names, str(fault))
        except OSError as fault:
            self._log_failure(names, fault.strerror or str(fault))

    def _send_blocking(self, message: bytes, names: str) -> None:
        try:
            self._send(message, _SEND_TIMEOUT_S)
        except OSError as fault:
            self._log_failure(names, fault.strerror or str(fault))

    def _send(self, message: bytes, timeout_s: float) -> None:
        address = f"\0{self._path[1:]}" if self._path.startswith("@") else self._path
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(timeout_s)
            # With sendto, waiting would be a busy loop: the system calls an unconnected socket writable while systemd's
            # is full.
            sender.connect(address)
            sender.send(message)

    def _log_failure(self, names: str, fault: str) -> None:
        _log.warn(
            "Could not send {names} to systemd at NOTIFY_SOCKET={path}: {fault}",
            names=names,
            path=self._path,
            fault=fault,
        )


class _Serving(Protocol):
    """The additional attribute that the gateway's service must have."""

    ready: Deferred[IAddress]


class NotifyingService(Service):
    """Wraps the gateway's service, and reports its state to systemd."""

    def __init__(
        self,
        reactor: Reactor,
        notifier: Notifier,
        service: _Serving,
        check_engine: Callable[[], Deferred[str]],
        stop_s: float,
    ) -> None:
        """
        Wrap a service.

        :param check_engine: checks the engine; fires with a description of the result, and never fails.
        :param stop_s: maximum time to stop the service.
        """
        self._reactor = reactor
        self._notifier = notifier
        self._service = service
        self._inner = cast("IService", service)
        self._check_engine = check_engine
        self._stop_s = stop_s
        self._stopping = False
        # Runs on the reactor, so a blocked reactor sends no keep-alive.
        self._keep_alive = LoopingCall(notifier.notify, WATCHDOG=1)
        self._keep_alive.clock = cast("IReactorTime", reactor)

    def privilegedStartService(self) -> None:
        """Start the parts of the service that need privileges."""
        self._inner.privilegedStartService()

    def startService(self) -> None:
        """Start, and report READY once the port is open and the engine has been checked."""
        super().startService()
        self._notifier.notify(STATUS="Starting")
        self._inner.startService()
        ensureDeferred(self._announce())

    async def _announce(self) -> None:
        try:
            address = await self._service.ready
        except StartError:
            return  # the gateway stops, and logs why
        # READY does not depend on the result: the gateway may start before its engine.
        engine = await self._check_engine()
        if self._stopping:
            return
        self._notifier.notify(READY=1, STATUS=f"Serving on {where(address)}; {engine}")
        if self._notifier.watchdog_s is not None:
            # Twice as often as required: one message may be late.
            self._keep_alive.start(self._notifier.watchdog_s / 2)

    def stopService(self) -> Deferred[None]:
        """Report STOPPING and extend the unit's stop timeout, then stop."""
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        super().stopService()
        self._stopping = True
        await run_steps(
            ("notify systemd", self._notify_stopping),
            ("stop the gateway", self._inner.stopService),
            ("end the watchdog's keep-alives", self._stop_keep_alive),
        )

    def _notify_stopping(self) -> None:
        self._notifier.notify(
            STOPPING=1,
            EXTEND_TIMEOUT_USEC=int(self._stop_s * 1_000_000),
            STATUS="Waiting for running answers to finish",
        )

    def _stop_keep_alive(self) -> None:
        if self._keep_alive.running:
            self._keep_alive.stop()


def where(address: IAddress) -> str:
    """Return an address as ``host:port``, ``[host]:port`` or a path."""
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    if host is not None:
        return authority(host, port)
    name = getattr(address, "name", None)
    return name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(address)
