"""
State that can outlive a process: sessions by conversation, and responses by id.

A store knows nothing about conversations. It keeps a record for each session, which it does not read, and finds the
records by keys. Claims are optimistic: a record is replaced only if it is still at the version that was read. So one
caller gets a session that several want, in whatever process they are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, Protocol

import attrs


class StateUnavailableError(Exception):
    """The store cannot be used now; the message says why, for an operator."""


@attrs.frozen
class StateLimits:
    """How much a store keeps, and for how long."""

    max_sessions: int
    """Maximum number of sessions, and of responses; the oldest is removed first."""
    max_age_s: float
    """How long a session is kept after it was last used, and a response after it was stored."""
    max_bodies: int
    """Maximum number of response bodies, of the latest responses."""
    max_bytes: int
    """Maximum size of all bodies. The oldest is removed first; a larger body is not stored."""


@attrs.frozen
class SessionEntry:
    """A session as a store has it."""

    session_id: str
    record: bytes
    version: int
    """How often the record was written, from 1."""
    held: bool
    """Whether a process that is alive answers a question in the session."""


@attrs.frozen
class StoredResponse:
    """A response of ``/v1/responses``."""

    session_id: str
    caller: bytes
    """Who may use it; see :func:`brunix_twisted.api.caller.caller_of`."""
    body_bytes: bytes | None
    """The body to retrieve; None if it is not stored, or no longer."""


BUCKETS_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05)
"""Upper bounds of the durations of calls that are counted separately."""


@attrs.frozen
class StateReadings:
    """How a store has worked until now, for metrics."""

    is_up: bool
    failures: int
    """Calls that the store did not serve."""
    durations: tuple[int, ...]
    """Numbers of the calls that it did serve, by duration: up to each of BUCKETS_S, and longer."""
    total_s: float
    """Sum of the durations."""


class StateStore(Protocol):
    """
    A store of sessions and responses.

    All methods belong to the reactor's thread and do not block it. Every method that is a coroutine may raise
    StateUnavailableError. An expired session or response counts as absent.
    """

    async def find(self, keys: Sequence[bytes], limit: int) -> list[SessionEntry]:
        """
        Return the sessions that were written with any of the keys, each once, the latest first.

        :param limit: maximum number of sessions for each key; the latest are returned.
        """

    async def get(self, session_id: str) -> SessionEntry | None:
        """Return a session; None if it is not kept."""

    async def put(self, session_id: str, record: bytes, keys: Collection[bytes], *, version: int, held: bool) -> bool:
        """
        Write a session, unless it has been written since it was read.

        :param keys: all keys of the session; earlier ones no longer lead to it.
        :param version: the version that was read; 0 if there was none. The new version is one more.
        :param held: whether this process now answers a question in the session. When the process dies, the session
            stops being held after some seconds.
        :returns: whether it was written.
        """

    async def put_response(self, response_id: str, response: StoredResponse) -> None:
        """Store a response."""

    async def get_response(self, response_id: str) -> StoredResponse | None:
        """Return a response; None if it is not stored."""

    async def delete_response(self, response_id: str) -> None:
        """Remove a response, if it is stored."""

    async def start(self) -> None:
        """
        Connect or open. Call it once, before all other methods, and not before a fork.

        :raises StateUnavailableError: the store cannot be used. The others may still succeed later if it is
            only unreachable now.
        """

    async def check(self) -> None:
        """
        Return if the store works.

        :raises StateUnavailableError: it does not.
        """

    async def close(self) -> None:
        """Stop using the store, after the calls in progress. A second call does nothing."""
