"""
Tells systemd how the gateway fares: what sd_notify(3) and sd_watchdog_enabled(3) describe, without their library.

A message is one datagram, lines of ``NAME=value``, to the socket that ``NOTIFY_SOCKET`` names. Where nobody has set
that variable, nobody wants to be told.
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

from brunix_twisted.runtime.listening import StartError
from brunix_twisted.runtime.reactors import Reactor
from brunix_twisted.runtime.shutdown import run_steps

# systemd empties its socket all the time; one that is full for so long belongs to a systemd that hangs.
_SEND_TIMEOUT_S: Final = 1.0


class Notifier:
    """The socket of whoever supervises this process."""

    _log = Logger()

    def __init__(self, path: str, watchdog_s: float | None = None) -> None:
        """
        Prepare to tell; nothing is sent yet.

        :param path: of the socket; with an ``@`` in front, its name in Linux's abstract namespace.
        :param watchdog_s: who is not heard of for so long is taken to hang, and is restarted; None: nobody watches.
        """
        self._path = path
        self.watchdog_s = watchdog_s

    @classmethod
    def read(cls, environment: Mapping[str, str], pid: int) -> Notifier | None:
        """
        Find out from the environment who wants to be told; None: nobody.

        :param pid: of this process, since a watchdog may be meant for another that has this one's environment.
        """
        path = environment.get("NOTIFY_SOCKET", "")
        if not path:
            return None
        watchdog_us = environment.get("WATCHDOG_USEC", "")
        watched = environment.get("WATCHDOG_PID", str(pid)) == str(pid) and watchdog_us.isdecimal()
        return cls(path, int(watchdog_us) / 1_000_000 if watched and int(watchdog_us) else None)

    def tell(self, **told: str | int) -> None:
        """Send one message, without waiting. If it cannot be sent, the log says so, and the gateway goes on."""
        message = "\n".join(f"{name}={' '.join(str(value).split())}" for name, value in told.items()).encode()
        names = ", ".join(told)
        try:
            self._send(message, 0)
        except BlockingIOError:
            # systemd is busy or stopped. The reactor must not wait for it.
            try:
                Thread(target=self._send_slowly, args=(message, names), daemon=True).start()
            except RuntimeError as fault:
                self._complain(names, str(fault))
        except OSError as fault:
            self._complain(names, fault.strerror or str(fault))

    def _send_slowly(self, message: bytes, names: str) -> None:
        try:
            self._send(message, _SEND_TIMEOUT_S)
        except OSError as fault:
            self._complain(names, fault.strerror or str(fault))

    def _send(self, message: bytes, timeout_s: float) -> None:
        address = f"\0{self._path[1:]}" if self._path.startswith("@") else self._path
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(timeout_s)
            sender.sendto(message, address)

    def _complain(self, names: str, fault: str) -> None:
        self._log.warn(
            "systemd was not told {told} at NOTIFY_SOCKET={path}: {fault}",
            told=names,
            path=self._path,
            fault=fault,
        )


class _Serving(Protocol):
    """What is asked of a gateway's service, beside that it is one."""

    ready: Deferred[IAddress]


class NotifyingService(Service):
    """A gateway's service, and in step with it what systemd is told."""

    def __init__(
        self,
        reactor: Reactor,
        notifier: Notifier,
        service: _Serving,
        check_engine: Callable[[], Deferred[str]],
        stop_s: float,
    ) -> None:
        """
        Run a service.

        :param stop_s: how long its end may take.
        :param try_engine: fires with a few words on what came of it, whatever that is; never fails.
        """
        self._reactor = reactor
        self._notifier = notifier
        self._service = service
        self._inner = cast("IService", service)
        self._try_engine = check_engine
        self._stop_s = stop_s
        self._stopping = False
        # What the reactor does not get to while it is blocked: so the watchdog sees that.
        self._alive = LoopingCall(notifier.tell, WATCHDOG=1)
        self._alive.clock = cast("IReactorTime", reactor)

    def privilegedStartService(self) -> None:
        """Start what may need a privilege."""
        self._inner.privilegedStartService()

    def startService(self) -> None:
        """Start, and say so once the port listens and the engine has been tried."""
        super().startService()
        self._notifier.tell(STATUS="Starting")
        self._inner.startService()
        ensureDeferred(self._announce())

    async def _announce(self) -> None:
        try:
            address = await self._service.ready
        except StartError:
            return  # the gateway ends for it, and its log says why
        # Tried, and no more: a gateway may well be there before its engine.
        engine = await self._try_engine()
        if self._stopping:
            return
        self._notifier.tell(READY=1, STATUS=f"Serving on {where(address)}; {engine}")
        if self._notifier.watchdog_s is not None:
            # Twice as often as need be: one message may be late.
            self._alive.start(self._notifier.watchdog_s / 2)

    def stopService(self) -> Deferred[None]:
        """Say that the end begins, and how long it may take, whatever the unit says; then end."""
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        super().stopService()
        self._stopping = True
        await run_steps(
            ("tell systemd", self._tell_of_stop),
            ("stop the gateway", self._inner.stopService),
            ("end the watchdog's messages", self._end_watchdog),
        )

    def _tell_of_stop(self) -> None:
        self._notifier.tell(
            STOPPING=1,
            EXTEND_TIMEOUT_USEC=int(self._stop_s * 1_000_000),
            STATUS="Letting the answers under way end",
        )

    def _end_watchdog(self) -> None:
        if self._alive.running:
            self._alive.stop()


def where(address: IAddress) -> str:
    """Spell an address as people do."""
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    if host is not None:
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    name = getattr(address, "name", None)
    return name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(address)
