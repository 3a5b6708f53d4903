"""The answers that can be named later by their ids: to go on in their engine session, or to have them again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import attrs

BODY_OVERHEAD_BYTES: Final = 1024
"""What a stored body counts beyond its length: the memory of its entry and its ids, rounded up."""


@attrs.define
class _Kept:
    session_id: str | None
    body_bytes: bytes | None
    kept_s: float


class ResponseStore:
    """
    Keeps answers by their ids, which nobody can guess: whoever knows one has been given it.

    To be called by one thread, the reactor's. Every call costs O(1) amortised.

    :param seconds: the time on any clock.
    :param most: how many are kept; the one kept longest goes first.
    :param most_bodies: of how many of those, the latest, the body is kept too.
    :param max_bytes: how much memory the bodies may take. The oldest go first; one that is larger is not kept.
    :param max_age_s: how long one is kept, in seconds. It should be no longer than the engine keeps a session.
    """

    def __init__(
        self, seconds: Callable[[], float], *, most: int, most_bodies: int, max_bytes: int, max_age_s: float
    ) -> None:
        self._seconds = seconds
        self._most = most
        self._most_bodies = most_bodies
        self._max_bytes = max_bytes
        self._stored_bytes = 0
        self._max_age_s = max_age_s
        # Both in the order of keeping.
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._bodies: OrderedDict[str, int] = OrderedDict()
        self._of_session: dict[str, set[str]] = {}

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._kept)

    def keep(self, answer_id: str, session_id: str, body_bytes: bytes | None) -> None:
        """
        Keep an answer that is complete.

        :param session_id: the engine session that it was given in.
        :param body_bytes: as it is had again; None where its caller wanted it not to be kept.
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
        while len(self._bodies) > self._most_bodies or self._stored_bytes > self._max_bytes:
            self._drop_body(next(iter(self._bodies)))
        while len(self._kept) > self._most:
            self.forget(next(iter(self._kept)))

    def session_of(self, answer_id: str) -> str | None:
        """The engine session that goes on from this answer; None: the answer is unknown, or no longer known."""
        self._expire()
        kept = self._kept.get(answer_id)
        return None if kept is None else kept.session_id

    def body_of(self, answer_id: str) -> bytes | None:
        """The answer itself; None: it is not kept, or no longer."""
        self._expire()
        kept = self._kept.get(answer_id)
        return None if kept is None else kept.body_bytes

    def forget(self, answer_id: str) -> None:
        """Keep an answer no longer, if it is kept."""
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
        """Tell that an engine session is another caller's from now on: no answer given in it leads there any more."""
        for answer_id in self._of_session.pop(session_id, ()):
            self._kept[answer_id].session_id = None

    def _expire(self) -> None:
        now_s = self._seconds()
        while self._kept:
            answer_id, kept = next(iter(self._kept.items()))
            if now_s - kept.kept_s <= self._max_age_s:
                return
            self.forget(answer_id)
