"""State in a database file, which processes on one machine share and which survives restarts."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Generic, TypeVar, cast

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from brunix_twisted.runtime.reactors import Reactor
from brunix_twisted.runtime.workers import Workers
from brunix_twisted.state import SessionEntry, StateLimits, StateUnavailableError, StoredResponse
from brunix_twisted.state.sqlite_database import DatabaseFile, checkpoint

_T = TypeVar("_T")

ANNOUNCE_S: Final = 5.0
"""How often a process announces that it lives; a third of the time after which it counts as dead."""

# Writes between two checkpoints. They write to the disk, so fewer are better; a checkpoint takes longer after more.
_CHECKPOINT_WRITES: Final = 250
# Calls that wait for the thread. More mean that the disk hangs.
_MAX_WAITING: Final = 1000
# Maximum time to close the file.
_CLOSE_S: Final = 2.0


@attrs.define(eq=False)
class _Job(Generic[_T]):
    """A call that waits for the thread, or runs on it."""

    work: Callable[[], _T]
    undo: Callable[[], object] | None
    result: Deferred[_T] = attrs.field(init=False)
    is_cancelled: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.result = Deferred(self._cancel)

    def _cancel(self, _: object) -> None:
        self.is_cancelled = True

    def run(self) -> _T | None:
        """Call the function, unless the job has been cancelled."""
        return None if self.is_cancelled else self.work()


class SqliteStore:
    """
    Keeps everything in a file; see :class:`brunix_twisted.state.StateStore`.

    One thread runs all calls, in order. A call that is cancelled before its turn does not run. A claim that is
    cancelled while it runs is undone.
    """

    def __init__(
        self,
        reactor: Reactor,
        path: Path,
        limits: StateLimits,
        seconds: Callable[[], float] = time.time,
        *,
        durable: bool = True,
    ) -> None:
        """
        Open nothing yet.

        :param seconds: returns the time on a clock that all processes share and that survives restarts.
        :param durable: whether the file must survive a crash of the operating system.
        """
        self._reactor = reactor
        self._path = path
        self._durable = durable
        self._database = DatabaseFile(path, limits, seconds, durable=durable)
        self._thread = Workers(1, "state")
        self._checkpoints = Workers(1, "checkpoint")
        self._is_checkpointing = False
        self._writes = 0
        self._waiting = 0
        self._is_announcing = False
        self._next_announcement: IDelayedCall | None = None
        self._is_closed = False

    async def find(self, keys: Sequence[bytes], limit: int) -> list[SessionEntry]:
        """Return the sessions that were written with any of the keys."""
        return await self._call(partial(self._database.find, keys, limit))

    async def get(self, session_id: str) -> SessionEntry | None:
        """Return a session."""
        return await self._call(partial(self._database.get, session_id))

    async def put(self, session_id: str, record: bytes, keys: Collection[bytes], *, version: int, held: bool) -> bool:
        """Write a session, unless it has been written since it was read."""
        put = partial(self._database.put, session_id, record, keys, version, held=held)
        undo = partial(self._database.release, session_id, version + 1) if held else None
        return await self._write(put, undo)

    async def put_response(self, response_id: str, response: StoredResponse) -> None:
        """Store a response."""
        await self._write(partial(self._database.put_response, response_id, response))

    async def get_response(self, response_id: str) -> StoredResponse | None:
        """Return a response."""
        return await self._call(partial(self._database.get_response, response_id))

    async def delete_response(self, response_id: str) -> None:
        """Remove a response."""
        await self._write(partial(self._database.delete_response, response_id))

    async def start(self) -> None:
        """Open the file, and create it if it is missing. It may be called again if it has failed."""
        if not self._is_announcing:
            self._is_announcing = True
            self._announce_later()
        await self._call(self._database.open)

    async def check(self) -> None:
        """Return if the file can be written."""
        await self._call(self._database.announce)

    async def close(self) -> None:
        """Stop using the file."""
        if self._is_closed:
            return
        closing = self._call(self._database.close)
        self._is_closed = True
        if self._next_announcement is not None:
            self._next_announcement.cancel()
            self._next_announcement = None
        try:
            await closing.addTimeout(_CLOSE_S, cast("IReactorTime", self._reactor))
        finally:
            self._thread.stop()
            self._checkpoints.stop()

    def _announce_later(self) -> None:
        if not self._is_closed:
            self._next_announcement = self._reactor.callLater(ANNOUNCE_S, self._announce)

    def _announce(self) -> None:
        self._next_announcement = None
        # The next call that fails reports why.
        self._call(self._database.announce).addErrback(lambda _: None).addCallback(lambda _: self._announce_later())

    def _write(self, work: Callable[[], _T], undo: Callable[[], object] | None = None) -> Deferred[_T]:
        self._writes += 1
        if self._writes >= _CHECKPOINT_WRITES and not self._is_checkpointing:
            self._writes = 0
            self._checkpoint()
        return self._call(work, undo)

    def _checkpoint(self) -> None:
        def done(*_: object) -> None:
            self._is_checkpointing = False

        self._is_checkpointing = True
        try:
            self._checkpoints.callInThreadWithCallback(done, partial(checkpoint, self._path, durable=self._durable))
        except RuntimeError:  # no thread can be started now
            done()

    def _call(self, work: Callable[[], _T], undo: Callable[[], object] | None = None) -> Deferred[_T]:
        """
        Run a function on the thread.

        :param undo: called on the thread if the function returned True after the Deferred was cancelled.
        """
        job = _Job(work, undo)
        refusal = self._refusal()
        if refusal is None:
            try:
                self._thread.callInThreadWithCallback(partial(self._reactor.callFromThread, self._ended, job), job.run)
            except RuntimeError as error:
                refusal = f"No thread can be started for the state database {self._path}: {error}"
        if refusal is None:
            self._waiting += 1
        else:
            job.result.errback(Failure(StateUnavailableError(refusal)))
        return job.result

    def _ended(self, job: _Job[Any], succeeded: bool, value: Any) -> None:  # noqa: ANN401, FBT001 - of a thread pool
        self._waiting -= 1
        if job.is_cancelled:
            if job.undo is not None and value is True:
                self._call(job.undo).addErrback(lambda _: None)
        elif succeeded:
            job.result.callback(value)
        else:
            job.result.errback(value)

    def _refusal(self) -> str | None:
        """Return why no call can be made now."""
        if self._is_closed:
            return f"The state database {self._path} is closed."
        if self._waiting >= _MAX_WAITING:
            return f"The state database {self._path} does not respond. Check the disk that it is on."
        return None
