"""The state of one process, in its memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from typing import Final

import attrs

from brunix_twisted.state import SessionEntry, StateLimits, StoredResponse

BODY_OVERHEAD_BYTES: Final = 1024
"""What a stored body counts in addition to its length: the memory of its entry and its ids, rounded up."""


@attrs.define
class _Session:
    entry: SessionEntry
    keys: Collection[bytes]
    written_s: float


@attrs.define
class _Response:
    response: StoredResponse
    stored_s: float


class MemoryStore:
    """
    Keeps everything in memory; see :class:`brunix_twisted.state.StateStore`.

    Every call costs amortised O(1) for each key.
    """

    def __init__(self, seconds: Callable[[], float], limits: StateLimits) -> None:
        """
        Start empty.

        :param seconds: returns the time on any clock.
        """
        self._seconds = seconds
        self._limits = limits
        # Each in the order of writing. An OrderedDict removes its first item in O(1); a dict does not.
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._responses: OrderedDict[str, _Response] = OrderedDict()
        # A key usually leads to one session. A set for each would take several times the memory.
        self._session_ids: dict[bytes, str | dict[str, None]] = {}
        self._body_bytes: OrderedDict[str, int] = OrderedDict()
        self._stored_bytes = 0

    def __len__(self) -> int:
        """Return the number of sessions."""
        return len(self._sessions)

    async def find(self, keys: Sequence[bytes], limit: int) -> list[SessionEntry]:
        """Return the sessions that were written with any of the keys."""
        self._expire()
        found: dict[str, SessionEntry] = {}
        for key in keys:
            ids = self._session_ids.get(key, ())
            for session_id in [ids] if isinstance(ids, str) else list(ids)[: -limit - 1 : -1]:
                session = self._sessions[session_id]
                # Checked again: after a clock was set back, the order by age does not hold.
                if not self._is_old(session.written_s):
                    found[session_id] = session.entry
        if len(found) > 1:
            return sorted(found.values(), key=lambda entry: self._sessions[entry.session_id].written_s, reverse=True)
        return list(found.values())

    async def get(self, session_id: str) -> SessionEntry | None:
        """Return a session."""
        session = self._sessions.get(session_id)
        return None if session is None or self._is_old(session.written_s) else session.entry

    async def put(self, session_id: str, record: bytes, keys: Collection[bytes], *, version: int, held: bool) -> bool:
        """Write a session, unless it has been written since it was read."""
        existing = await self.get(session_id)
        if version != (0 if existing is None else existing.version):
            return False
        self._forget(session_id)
        entry = SessionEntry(session_id, record, version + 1, held)
        self._sessions[session_id] = _Session(entry, keys, self._seconds())
        for key in keys:
            ids = self._session_ids.setdefault(key, session_id)
            if isinstance(ids, dict):
                ids[session_id] = None
            elif ids != session_id:
                self._session_ids[key] = {ids: None, session_id: None}
        self._expire()
        while len(self._sessions) > self._limits.max_sessions:
            self._forget(next(iter(self._sessions)))
        return True

    def _forget(self, session_id: str) -> None:
        session = self._sessions.pop(session_id, None)
        for key in () if session is None else session.keys:
            ids = self._session_ids.get(key)
            if isinstance(ids, dict):
                del ids[session_id]
                if len(ids) == 1:
                    self._session_ids[key] = next(iter(ids))
            elif ids == session_id:
                del self._session_ids[key]

    def session_ids(self) -> list[str]:
        """Return the ids of all sessions, the latest last."""
        return list(self._sessions)

    def pop(self, session_id: str) -> Collection[bytes]:
        """Remove a session; return its keys."""
        session = self._sessions.get(session_id)
        self._forget(session_id)
        return () if session is None else session.keys

    async def put_response(self, response_id: str, response: StoredResponse) -> None:
        """Store a response."""
        limits = self._limits
        self._expire()
        self._forget_response(response_id)
        body_bytes = response.body_bytes
        size_bytes = 0 if body_bytes is None else len(body_bytes) + BODY_OVERHEAD_BYTES
        if size_bytes > limits.max_bytes or not limits.max_bodies:
            response, size_bytes = attrs.evolve(response, body_bytes=None), 0
        self._responses[response_id] = _Response(response, self._seconds())
        if size_bytes:
            self._body_bytes[response_id] = size_bytes
            self._stored_bytes += size_bytes
        while len(self._body_bytes) > limits.max_bodies or self._stored_bytes > limits.max_bytes:
            self._drop_body(next(iter(self._body_bytes)))
        while len(self._responses) > limits.max_sessions:
            self._forget_response(next(iter(self._responses)))

    async def get_response(self, response_id: str) -> StoredResponse | None:
        """Return a response."""
        stored = self._responses.get(response_id)
        return None if stored is None or self._is_old(stored.stored_s) else stored.response

    async def delete_response(self, response_id: str) -> None:
        """Remove a response."""
        self._forget_response(response_id)

    def _forget_response(self, response_id: str) -> None:
        self._drop_body(response_id)
        self._responses.pop(response_id, None)

    def _drop_body(self, response_id: str) -> None:
        if response_id in self._body_bytes:
            self._stored_bytes -= self._body_bytes.pop(response_id)
            stored = self._responses[response_id]
            stored.response = attrs.evolve(stored.response, body_bytes=None)

    def _expire(self) -> None:
        while self._sessions:
            session_id, session = next(iter(self._sessions.items()))
            if not self._is_old(session.written_s):
                break
            self._forget(session_id)
        while self._responses:
            response_id, stored = next(iter(self._responses.items()))
            if not self._is_old(stored.stored_s):
                break
            self._forget_response(response_id)

    def _is_old(self, written_s: float) -> bool:
        return self._seconds() - written_s > self._limits.max_age_s

    async def start(self) -> None:
        """Do nothing."""

    async def check(self) -> None:
        """Do nothing: memory always works."""

    async def close(self) -> None:
        """Do nothing."""
