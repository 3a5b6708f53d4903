"""
A guard around a store, so that no answer ever waits or fails because of it.

While the store works, every call is the store's, and ends within 50 ms. After the first failure all calls are done in
memory, until the store works again. What a conversation may lose by that is its session. No session is given twice: it
is either in the store or in memory, and a claim that the store did not confirm in time is not a claim.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import attrs
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from brunix_twisted.runtime.reactors import Reactor
from brunix_twisted.state import (
    BUCKETS_S,
    SessionEntry,
    StateReadings,
    StateStore,
    StateUnavailableError,
    StoredResponse,
)
from brunix_twisted.state.memory import MemoryStore

T = TypeVar("T")

CALL_S: Final = 0.04
"""How long a call may take. With the grace below, it ends within 50 ms."""
_GRACE_S: Final = 0.01
_GRACE_ITERATIONS: Final = 2
_START_S: Final = 5.0
_MAX_START_WAIT_S: Final = 1.0
"""How long calls wait for the store to start. In a new process, opening a file or a connection takes its time."""
_CLOSE_S: Final = 2.0
_MIN_PROBE_S: Final = 0.01
_MAX_PROBE_S: Final = 2.0
_STEADY_S: Final = 10.0
"""A store that fails again sooner than this is probed less often."""
_LOG_S: Final = 60.0
_MAX_REMEMBERED: Final = 10_000

_log: Final = Logger("brunix.gateway")


@attrs.frozen
class _Write:
    record: bytes
    keys: Collection[bytes]
    version: int


class GuardedStore:
    """Calls a store, or memory instead; see :class:`brunix_twisted.state.StateStore`. No method fails but check."""

    def __init__(self, reactor: Reactor, store: StateStore, fallback: MemoryStore) -> None:
        """
        Do nothing yet.

        :param fallback: an empty store, which this object alone uses.
        """
        self._reactor = reactor
        self._store = store
        self._fallback = fallback
        self._is_up = True
        self._reason = ""
        self._is_closed = False
        self._waiting: list[Deferred[None]] | None = None
        """The calls that wait for the store to start; None if calls do not wait for it."""
        self._failures = 0
        self._durations = [0] * (len(BUCKETS_S) + 1)
        self._total_s = 0.0
        self._probe: IDelayedCall | None = None
        self._probe_s = _MIN_PROBE_S
        self._up_since_s = -_STEADY_S
        self._report: IDelayedCall | None = None
        self._reported_s = -_LOG_S
        self._reported_up = True
        self._writing: dict[str, Deferred[None]] = {}
        """By session, fires when the last of its writes has ended."""
        self._written_late: OrderedDict[str, int] = OrderedDict()
        """Sessions in memory that the store has as well, with their version there."""
        self._unsaved: OrderedDict[str, _Write] = OrderedDict()
        """Ends of answers in sessions of the store, to be written when it works again."""
        self._undeleted: OrderedDict[str, None] = OrderedDict()
        """Responses to be removed from the store when it works again."""

    @property
    def readings(self) -> StateReadings:
        """How the store has worked until now."""
        return StateReadings(self._is_up, self._failures, tuple(self._durations), self._total_s)

    async def find(self, keys: Sequence[bytes], limit: int) -> list[SessionEntry]:
        """Return the sessions that were written with any of the keys."""
        return await self._either(lambda store: store.find(keys, limit))

    async def get(self, session_id: str) -> SessionEntry | None:
        """Return a session."""
        local = await self._fallback.get(session_id)
        return local or await self._either(lambda store: store.get(session_id))

    async def put(self, session_id: str, record: bytes, keys: Collection[bytes], *, version: int, held: bool) -> bool:
        """Write a session, unless it has been written since it was read."""
        write = _Write(record, keys, version)
        return await self._in_order(session_id, lambda: self._put(session_id, write, held=held))

    async def _in_order(self, session_id: str, write: Callable[[], Awaitable[T]]) -> T:
        """Write a session after the writes before it, whose outcome decides where the session is."""
        before, done = self._writing.get(session_id), Deferred[None]()
        self._writing[session_id] = done
        if before is not None:
            await before
        try:
            return await write()
        finally:
            if self._writing[session_id] is done:
                del self._writing[session_id]
            done.callback(None)

    async def _put(self, session_id: str, write: _Write, *, held: bool) -> bool:
        if await self._fallback.get(session_id) is not None:
            written = await self._put_into(self._fallback, session_id, write, held=held)
            if written and not held and self._is_up:
                await self._move(session_id)
            return written
        try:
            written = await self._call(
                lambda: self._put_into(self._store, session_id, write, held=held),
                late=lambda written: self._put_late(session_id, write, written=written, held=held),
            )
        except StateUnavailableError:
            if write.version == 0:
                return await self._put_into(self._fallback, session_id, write, held=held)
            if not held:
                _remember(self._unsaved, session_id, write)
            return False
        self._unsaved.pop(session_id, None)
        return written

    @staticmethod
    async def _put_into(store: StateStore, session_id: str, write: _Write, *, held: bool) -> bool:
        return await store.put(session_id, write.record, write.keys, version=write.version, held=held)

    def _put_late(self, session_id: str, write: _Write, *, written: bool, held: bool) -> None:
        """Undo what the caller no longer expects: the store has written it, after memory has answered."""
        if not written:
            return
        if write.version == 0:
            _remember(self._written_late, session_id, 1)
        elif held:
            _remember(self._unsaved, session_id, attrs.evolve(write, version=write.version + 1))
            self._catch_up()
        else:
            self._unsaved.pop(session_id, None)

    async def _move(self, session_id: str) -> None:
        """Move a session from memory to the store, unless this process answers in it."""
        entry = await self._fallback.get(session_id)
        if entry is None or entry.held:
            return
        # First, so that it is never in both. If the store fails now, the session is lost.
        keys = self._fallback.pop(session_id)
        write = _Write(entry.record, keys, self._written_late.pop(session_id, 0))
        await self._ignore(lambda: self._put_into(self._store, session_id, write, held=False))

    async def _save(self, session_id: str) -> None:
        if (write := self._unsaved.get(session_id)) is None:
            return
        # If it fails, it stays for the next time. If another process has written the session since, this is void.
        if await self._ignore(lambda: self._put_into(self._store, session_id, write, held=False)):
            self._unsaved.pop(session_id, None)

    def _catch_up(self) -> None:
        """Write to the store what it has missed."""

        async def run() -> None:
            for session_id in list(self._unsaved):
                if self._is_up:
                    await self._in_order(session_id, partial(self._save, session_id))
            for session_id in self._fallback.session_ids():
                if self._is_up:
                    await self._in_order(session_id, partial(self._move, session_id))
            for response_id in list(self._undeleted):
                if self._is_up:
                    await self._delete_response(response_id)

        ensureDeferred(run())

    async def put_response(self, response_id: str, response: StoredResponse) -> None:
        """Store a response."""
        await self._either(lambda store: store.put_response(response_id, response))

    async def get_response(self, response_id: str) -> StoredResponse | None:
        """Return a response."""
        if response_id in self._undeleted:
            return None
        local = await self._fallback.get_response(response_id)
        return local or await self._either(lambda store: store.get_response(response_id))

    async def delete_response(self, response_id: str) -> None:
        """Remove a response; from a store that does not work, as soon as it does."""
        await self._fallback.delete_response(response_id)
        await self._delete_response(response_id)

    async def _delete_response(self, response_id: str) -> None:
        if await self._ignore(lambda: self._store.delete_response(response_id)):
            self._undeleted.pop(response_id, None)
        else:
            _remember(self._undeleted, response_id, None)

    async def _either(self, call: Callable[[StateStore], Awaitable[T]]) -> T:
        try:
            return await self._call(lambda: call(self._store))
        except StateUnavailableError:
            return await call(self._fallback)

    async def _ignore(self, call: Callable[[], Awaitable[object]]) -> bool:
        """Call the store; return whether it did not fail."""
        try:
            await self._call(call)
        except StateUnavailableError:
            return False
        return True

    async def _call(self, call: Callable[[], Awaitable[T]], late: Callable[[T], object] | None = None) -> T:
        """
        Call the store.

        :param late: is called with the result of a call that succeeds after its time.
        :raises StateUnavailableError: it failed, or took too long, or has failed before.
        """
        if self._waiting is not None:
            self._waiting.append(Deferred())
            await self._waiting[-1]
        if not self._is_up:
            self._failures += 1
            raise StateUnavailableError(self._reason)
        began_s = self._reactor.seconds()
        try:
            result = await self._within(CALL_S, call, late)
        except StateUnavailableError as error:
            self._failures += 1
            self._down(str(error))
            raise
        took_s = self._reactor.seconds() - began_s
        self._durations[bisect_left(BUCKETS_S, took_s)] += 1
        self._total_s += took_s
        return result

    async def _within(
        self, limit_s: float, call: Callable[[], Awaitable[T]], late: Callable[[T], object] | None = None
    ) -> T:
        outcome = Deferred[T]()

        def time_out(iterations: int) -> None:
            if iterations:
                timer[0] = self._reactor.callLater(0, time_out, iterations - 1)
            else:
                outcome.errback(Failure(StateUnavailableError(f"no answer within {limit_s * 1000:.0f} ms")))

        # If it was the reactor that took so long, the call may not have been sent yet, or its answer not read.
        def soon() -> None:
            is_late = self._reactor.seconds() > due_s + _GRACE_S
            timer[0] = self._reactor.callLater(_GRACE_S if is_late else 0, time_out, _GRACE_ITERATIONS)

        due_s = self._reactor.seconds() + limit_s
        timer = [self._reactor.callLater(limit_s, soon)]

        def ended(result: Any) -> None:  # noqa: ANN401 - of T, or a Failure
            if not outcome.called:
                timer[0].cancel()
                outcome.callback(result)
            elif late is not None and not isinstance(result, Failure):
                late(result)

        ensureDeferred(_guarded(call)).addBoth(ended)
        return await outcome

    def _down(self, reason: str) -> None:
        self._reason = reason
        if not self._is_up or self._is_closed:
            return
        self._is_up = False
        is_steady = self._reactor.seconds() - self._up_since_s >= _STEADY_S
        self._probe_s = _MIN_PROBE_S if is_steady else min(2 * self._probe_s, _MAX_PROBE_S)
        self._probe_later()
        self._report_soon()

    def _probe_later(self) -> None:
        if not self._is_closed:
            self._probe = self._reactor.callLater(self._probe_s, lambda: ensureDeferred(self._try_again()))

    async def _try_again(self) -> None:
        try:
            await self._within(CALL_S, self._store.check)
        except StateUnavailableError as error:
            self._reason = str(error)
            self._probe_s = min(2 * self._probe_s, _MAX_PROBE_S)
            self._probe_later()
            return
        if self._is_closed:
            return
        self._is_up = True
        self._up_since_s = self._reactor.seconds()
        self._report_soon()
        self._catch_up()

    def _report_soon(self) -> None:
        """Log whether the store works, now or one minute after the previous line."""
        if self._report is None and not self._is_closed:
            wait_s = self._reported_s + _LOG_S - self._reactor.seconds()
            if wait_s > 0:
                self._report = self._reactor.callLater(wait_s, self._log_state)
            else:
                self._log_state()

    def _log_state(self) -> None:
        self._report = None
        if self._is_up and self._reported_up:
            return
        self._reported_up, self._reported_s = self._is_up, self._reactor.seconds()
        if self._is_up:
            _log.info("The state store works again.")
            return
        _log.warn(
            "The state store does not work: {reason}. Conversations continue in memory; some start a new session.",
            reason=self._reason.rstrip("."),
        )
        self._report = self._reactor.callLater(_LOG_S, self._log_state)

    async def start(self) -> None:
        """Start the store. If it cannot be used yet, continue in memory."""
        self._waiting = []
        timer = self._reactor.callLater(_MAX_START_WAIT_S, self._call_now)
        try:
            await self._within(_START_S, self._store.start)
        except StateUnavailableError as error:
            self._down(str(error))
        finally:
            if timer.active():
                timer.cancel()
                self._call_now()

    def _call_now(self) -> None:
        waiting, self._waiting = self._waiting or (), None
        for started in waiting:
            started.callback(None)

    async def check(self) -> None:
        """
        Return if the store works.

        :raises StateUnavailableError: it does not, and calls are done in memory.
        """
        await self._call(self._store.check)

    async def close(self) -> None:
        """Close the store. A second call does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        for timer in (self._probe, self._report):
            if timer is not None and timer.active():
                timer.cancel()
        await DeferredList(list(self._writing.values()))
        try:
            await self._within(_CLOSE_S, self._store.close)
        except StateUnavailableError as error:
            _log.warn("The state store did not close: {reason}", reason=str(error))


async def _guarded(call: Callable[[], Awaitable[T]]) -> T:
    """Make any exception a StateUnavailableError: an error in a store must not become an answer's."""
    try:
        return await call()
    except StateUnavailableError:
        raise
    except Exception as error:
        raise StateUnavailableError(f"{type(error).__name__}: {error}") from error


def _remember(items: OrderedDict[str, T], name: str, item: T) -> None:
    """Add an item, and forget the oldest of too many."""
    items[name] = item
    if len(items) > _MAX_REMEMBERED:
        items.popitem(last=False)
