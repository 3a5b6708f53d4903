"""Stores answers by their ids, to continue their engine sessions and to retrieve them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import attrs

BODY_OVERHEAD_BYTES: Final = 1024
"""What a stored body counts in addition to its length: the memory of its entry and its ids, rounded up."""


@attrs.define
class _Kept:
    session_id: str | None
    body_bytes: bytes | None
    kept_s: float


class ResponseStore:
    """
    Stores answers by their unguessable ids.

    All methods belong to the reactor's thread. Every call costs amortised O(1).

    :param seconds: returns the time on any clock.
    :param max_answers: maximum number of answers; the oldest is removed first.
    :param max_bodies: maximum number of bodies, of the latest answers.
    :param max_bytes: maximum memory of the bodies. The oldest is removed first; a larger body is not stored.
    :param max_age_s: how long an answer is stored, in seconds. It should not exceed the time for which the engine keeps
        a session.
    """

    def __init__(
        self, seconds: Callable[[], float], *, max_answers: int, max_bodies: int, max_bytes: int, max_age_s: float
    ) -> None:
        self._seconds = seconds
        self._max_answers = max_answers
        self._max_bodies = max_bodies
        self._max_bytes = max_bytes
        self._stored_bytes = 0
        self._max_age_s = max_age_s
        # In the order of storing.
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._bodies: OrderedDict[str, int] = OrderedDict()
        self._of_session: dict[str, set[str]] = {}

    def __len__(self) -> int:
        """Return the number of stored answers."""
        return len(self._kept)

    def keep(self, answer_id: str, session_id: str, body_bytes: bytes | None) -> None:
        """
        Store a complete answer.

        :param session_id: its engine session.
        :param body_bytes: the body to retrieve; None if the client asked not to store it.
        """
        self._expire()
        stored_bytes = 0 if body_bytes is None else len(body_bytes) + BODY_OVERHEAD_BYTES
        if stored_bytes > self._max_bytes:
            body_bytes = None
        self._kept[answer_id] = _Kept(session_id, body_bytes, self._seconds())
        self._of_session.setdefault(session_id, set()).add(answer_id)
        if body_bytes is not None:
            self._bodies[answer_id] = stored_bytes
            self._stored_bytes += stored_bytes
        while len(self._bodies) > self._max_bodies or self._stored_bytes > self._max_bytes:
            self._drop_body(next(iter(self._bodies)))
        while len(self._kept) > self._max_answers:
            self.forget(next(iter(self._kept)))

    def session_of(self, answer_id: str) -> str | None:
        """Return the engine session that continues this answer; None if the answer is unknown or has expired."""
        self._expire()
        kept = self._kept.get(answer_id)
        return None if kept is None else kept.session_id

    def body_of(self, answer_id: str) -> bytes | None:
        """Return the body of an answer; None if it is not stored or has expired."""
        self._expire()
        kept = self._kept.get(answer_id)
        return None if kept is None else kept.body_bytes

    def forget(self, answer_id: str) -> None:
        """Remove an answer, if it is stored."""
        self._drop_body(answer_id)
        kept = self._kept.pop(answer_id, None)
        if kept is not None and kept.session_id is not None:
            answer_ids = self._of_session[kept.session_id]
            answer_ids.discard(answer_id)
            if not answer_ids:
                del self._of_session[kept.session_id]

    def _drop_body(self, answer_id: str) -> None:
        if answer_id in self._bodies:
            self._stored_bytes -= self._bodies.pop(answer_id)
            self._kept[answer_id].body_bytes = None

    def part(self, session_id: str) -> None:
        """Detach an engine session that another client has claimed: no stored answer leads to it any more."""
        for answer_id in self._of_session.pop(session_id, ()):
            self._kept[answer_id].session_id = None

    def _expire(self) -> None:
        now_s = self._seconds()
        while self._kept:
            answer_id, kept = next(iter(self._kept.items()))
            if now_s - kept.kept_s <= self._max_age_s:
                return
            self.forget(answer_id)
