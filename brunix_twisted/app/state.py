"""The state of one gateway process: its store, the secret of its digests, and whether it works."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Final, cast

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IReactorTime

from brunix_twisted.config.settings import Settings
from brunix_twisted.runtime.reactors import Reactor
from brunix_twisted.state import StateReadings, StateStore, StateUnavailableError
from brunix_twisted.state.guarded import GuardedStore
from brunix_twisted.state.memory import MemoryStore
from brunix_twisted.state.secret import digest_key, read_secret, secret_path
from brunix_twisted.state.selection import StateSetup, limits_of_state, new_store, set_up_state
from brunix_twisted.state.sqlite_database import examine

# /health answers within one second. The check waits for a store that is starting.
_CHECK_TIMEOUT_S: Final = 0.8
# --check waits longer: for a connection over a network.
_CONNECT_TIMEOUT_S: Final = 5.0


class State:
    """Owns the store. Nothing is opened, and no file is created, before :meth:`start` or the first use."""

    def __init__(self, reactor: Reactor, settings: Settings, setup: Callable[[], StateSetup | None]) -> None:
        """
        Open nothing yet.

        :param setup: returns what several processes share; None if there is only this process.
        """
        self._reactor = reactor
        self._settings = settings
        self._given_setup = setup
        self._is_used = False

    @cached_property
    def _setup(self) -> StateSetup:
        return self._given_setup() or set_up_state(self._settings)

    @cached_property
    def key(self) -> bytes:
        """The key of the digests under which conversations are kept."""
        return digest_key(self._setup.secret)

    @cached_property
    def store(self) -> StateStore:
        """The store."""
        self._is_used = True
        store = new_store(self._reactor, self._settings, self._setup)
        if isinstance(store, MemoryStore):
            return store
        return GuardedStore(self._reactor, store, MemoryStore(self._reactor.seconds, limits_of_state(self._settings)))

    @property
    def readings(self) -> StateReadings | None:
        """How the store has worked until now; None for the process's own memory."""
        return self.store.readings if isinstance(self.store, GuardedStore) else None

    @property
    def is_shared(self) -> bool:
        """Whether other processes may use the same state."""
        return not isinstance(self.store, MemoryStore)

    def is_working(self) -> bool:
        """Return whether the latest call was served by the store, and not by memory instead."""
        return self.readings is None or self.readings.is_up

    def start(self) -> None:
        """Open the store. If that fails, it logs why, and tries again later."""
        ensureDeferred(self.store.start())

    def fault(self) -> Deferred[str | None]:
        """Check the store; fires with None if it works, and otherwise with the reason. Never fails."""
        return ensureDeferred(fault_of(self._reactor, self.store, _CHECK_TIMEOUT_S))

    async def close(self) -> None:
        """Close the store."""
        if self._is_used:
            await self.store.close()


async def fault_of(reactor: Reactor, store: StateStore, timeout_s: float) -> str | None:
    """Return why a store does not work; None if it does."""
    try:
        await ensureDeferred(store.check()).addTimeout(timeout_s, cast("IReactorTime", reactor))
    except StateUnavailableError as error:
        return str(error)
    except DeferredTimeout:
        return f"The state did not respond within {timeout_s:g} s."
    return None


async def report_of_state(reactor: Reactor, settings: Settings) -> tuple[str, str | None]:
    """
    Describe the state for ``--check``, without creating a file: where it is, and why it cannot be used, if it cannot.

    Files are examined on the reactor's thread, which does nothing else then.
    """
    state = settings.state
    if state.kind == "sqlite":
        path = Path(state.path)
        return f"the database {path}", _examine(path, with_secret=settings.state_secret is None)
    if state.kind == "redis":
        store = new_store(reactor, settings, StateSetup(""))
        try:
            await ensureDeferred(store.start()).addTimeout(_CONNECT_TIMEOUT_S, cast("IReactorTime", reactor))
            return "Redis", await fault_of(reactor, store, _CONNECT_TIMEOUT_S)
        except StateUnavailableError as error:
            return "Redis", str(error)
        except DeferredTimeout:
            return "Redis", f"Redis did not respond within {_CONNECT_TIMEOUT_S:g} s."
        finally:
            await store.close()
    if state.kind == "auto" and settings.processes > 1:
        return "a private database of the processes, until the gateway stops", None
    return "in memory, until the gateway stops", None


def _examine(path: Path, *, with_secret: bool) -> str | None:
    try:
        examine(path)
        if with_secret:
            read_secret(secret_path(path))
    except FileNotFoundError:
        # It is created at the start.
        return None
    except StateUnavailableError as error:
        return str(error)
    return None
