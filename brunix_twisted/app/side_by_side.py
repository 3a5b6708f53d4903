"""The engine and the gateway side by side: start both, stop both when either ends, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.process import reapAllProcesses

from brunix_twisted.app import linux
from brunix_twisted.app.launcher import TERMINAL
from brunix_twisted.app.plan import Plan
from brunix_twisted.app.process_group import ProcessGroup
from brunix_twisted.app.signals import STOP, SignalPipe

CLEAN: Final = 0
FAILED: Final = 1
UNCLEAN: Final = 2

_LAUNCHER: Final = str(Path(__file__).with_name("launcher.py"))
_POLL_S: Final = 0.1
"""How often to look whether a group is empty: nothing reports that."""
_KILLED_S: Final = 1.0
"""How long SIGKILL may take."""


class SideBySide:
    """One run of the two."""

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401 - what a reactor is, no type says
        signals: SignalPipe,
        plan: Plan,
        descriptors: Collection[int],
        say: Callable[[str], object],
    ) -> None:
        """
        Start nothing yet.

        :param signals: what this process receives from now on.
        :param descriptors: the open files that the commands inherit.
        :param say: writes one line to the log; must not block.
        """
        self._reactor = reactor
        self._signals = signals
        self._plan = plan
        self._descriptors = {number: number for number in descriptors}
        self._say = say
        self._stops: list[signal.Signals] = []
        """The signals that asked to stop."""
        self._engine, self._gateway, self._health = self._groups = [
            ProcessGroup(name, self._ended) for name in ("engine", "gateway", "health check")
        ]
        self._is_stopping = False
        self._event: Deferred[None] | None = None
        self._before: set[int] = set()
        """Children that this process had from the start."""
        self._asked: set[int] = set()
        """Adopted processes that have received SIGTERM."""

    async def run(self) -> int:
        """Run both until one ends or a signal asks to stop. Return the exit status."""
        # A shell that has become this process may have left children; they are not ours to stop.
        self._before = linux.children()
        linux.adopt_orphans()
        self._signals.received = self._received
        self._reactor.addReader(self._signals)
        self._signals.doRead()
        if self._stops:
            self._say(f"{self._stops[0].name}: stopped before anything was started")
            return CLEAN
        self._say(self._plan.summary)
        for group, words in zip(self._groups, (self._plan.engine, self._plan.gateway, self._plan.health), strict=True):
            self._start(group, words)
        await self._wait(lambda: bool(self._stops or self._engine.end or self._gateway.end))
        self._is_stopping = True
        self._health.signal(signal.SIGTERM)
        status = await self._drain() if self._stops else self._fail()
        await self._wait(self._is_stopped, self._plan.kill_grace_s, max_stops=2)
        status = self._judge(status)
        await self._wait(self._is_killed, _KILLED_S)
        if not self._is_empty():
            groups = [group.pid for group in self._groups if not group.is_gone]
            self._say(f"not gone after SIGKILL: the process groups {groups}, the processes {sorted(self._strays())}")
        if status == CLEAN:
            self._say("stopped")
        return status

    def _start(self, group: ProcessGroup, words: Sequence[str]) -> None:
        hangup = "nohup" if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else "hup"
        command = [sys.executable, "-I", "-S", _LAUNCHER, str(os.getpid()), hangup, *words]
        # What a terminal sends until the launcher has left its foreground group is for this process alone.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, TERMINAL)
        try:
            self._reactor.spawnProcess(
                group, command[0], command, env=self._plan.environment, childFDs=self._descriptors
            )
        except OSError as error:
            group.not_started(error)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    async def _drain(self) -> int:
        """Let the gateway end its answers, for which it needs the engine; then ask the engine to stop."""
        self._gateway.signal(signal.SIGTERM)
        self._say(f"{self._stops[0].name}: stopping the gateway, then the engine")
        # Without the engine, no answer can end.
        await self._wait(lambda: self._gateway.is_gone or bool(self._engine.end), self._plan.drain_grace_s, max_stops=1)
        self._engine.signal(signal.SIGTERM)
        return CLEAN

    def _fail(self) -> int:
        """Ask everything to stop."""
        for group in (self._gateway, self._engine):
            group.signal(signal.SIGTERM)
            if group.end:
                self._say(f"the {group.name} {group.end}: stopping everything")
        return FAILED

    def _judge(self, status: int) -> int:
        """Report what did not stop as asked, and return the exit status. A failure stays one."""
        for group in (self._gateway, self._engine):
            if not group.is_gone:
                self._say(f"the {group.name}, or a process that it started, did not stop: killing it")
            elif status != FAILED and not group.is_clean:
                self._say(f"the {group.name} {group.end} when asked to stop")
            else:
                continue
            status = status or UNCLEAN
        if strays := self._strays():
            self._say(f"processes that left their groups did not stop: killing {' '.join(map(str, sorted(strays)))}")
            status = status or UNCLEAN
        return status

    def _received(self, number: int) -> None:
        """Note a signal."""
        if number == signal.SIGCHLD:
            reapAllProcesses()
            linux.reap_orphans(self._running())
        elif number in STOP:
            self._stops.append(signal.Signals(number))
        self._wake()

    def _ended(self, group: ProcessGroup) -> None:
        """Note that a command has ended."""
        if group is self._health and not self._is_stopping and not (group.is_clean):
            self._say(f"the health check {group.end}, so no message will say when the gateway is up; both keep running")
        self._wake()

    def _wake(self) -> None:
        event, self._event = self._event, None
        if event is not None:
            event.callback(None)

    async def _wait(
        self, is_over: Callable[[], bool], grace_s: float | None = None, max_stops: int = sys.maxsize
    ) -> None:
        """
        Wait until a condition is met.

        :param grace_s: how long at most.
        :param max_stops: how many signals may ask to stop, in total; one more ends the wait.
        """
        deadline_s = None if grace_s is None else self._reactor.seconds() + grace_s
        while not is_over() and len(self._stops) <= max_stops:
            self._event = event = Deferred[None]()
            poll = None
            if deadline_s is not None:
                rest_s = deadline_s - self._reactor.seconds()
                if rest_s <= 0:
                    return
                poll = self._reactor.callLater(min(rest_s, _POLL_S), self._wake)
            await event
            if poll is not None and poll.active():
                poll.cancel()

    def _is_empty(self) -> bool:
        return all(group.is_gone for group in self._groups) and not self._strays()

    def _is_stopped(self) -> bool:
        # A process is adopted only when its parent has ended.
        for pid in self._strays() - self._asked:
            _signal_stray(pid, signal.SIGTERM)
            self._asked.add(pid)
        return self._is_empty()

    def _is_killed(self) -> bool:
        for group in self._groups:
            group.signal(signal.SIGKILL)
        for pid in self._strays():
            _signal_stray(pid, signal.SIGKILL)
        return self._is_empty()

    def _running(self) -> set[int]:
        return {group.pid for group in self._groups if group.is_running and group.pid is not None}

    def _strays(self) -> set[int]:
        """Return the pids of adopted processes outside the groups."""
        groups = {group.pid for group in self._groups if not group.is_gone}
        return {pid for pid in linux.children() - self._before - self._running() if _group_of(pid) not in groups}


def _signal_stray(pid: int, number: signal.Signals) -> None:
    group = _group_of(pid)
    with suppress(ProcessLookupError, PermissionError):
        if group in {None, os.getpgrp()}:
            os.kill(pid, number)
        else:
            os.killpg(group, number)


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None
