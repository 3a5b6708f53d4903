"""The history of each session, used as the context of follow-ups."""

import hashlib
import threading
from collections import OrderedDict, deque
from typing import Final

import attrs

from brunix_twisted.embedded.passages import Place

# All calls without a session id share this session, as the engine's contract specifies.
DEFAULT_SESSION: Final = "default"

MAX_TURNS: Final = 16
MAX_SESSIONS: Final = 4096


@attrs.frozen
class Turn:
    """One completed question: its search terms, whether the documents answered it, and what its answer was about.

    ``subject`` are the terms of the headings of its first quotation, and ``place`` is where that was.
    ``wants_code`` says whether it was asked how to do something.
    """

    terms: tuple[str, ...]
    answered: bool
    subject: tuple[str, ...] = attrs.field(default=(), kw_only=True)
    place: Place | None = attrs.field(default=None, kw_only=True)
    wants_code: bool = attrs.field(default=False, kw_only=True)


class SessionHistory:
    """The last turns of the sessions that were used last. Thread-safe.

    Session ids are stored as digests, because an id may be as long as a message.
    """

    def __init__(self, max_turns: int = MAX_TURNS, max_sessions: int = MAX_SESSIONS) -> None:
        """Limit the turns per session and the number of sessions."""
        self._max_turns = max_turns
        self._max_sessions = max_sessions
        self._lock = threading.Lock()
        self._turns: OrderedDict[bytes, deque[Turn]] = OrderedDict()

    def turns(self, session_id: str) -> tuple[Turn, ...]:
        """Return the turns of a session, oldest first. An empty id means the session ``default``."""
        key = _key(session_id)
        with self._lock:
            if key not in self._turns:
                return ()
            self._turns.move_to_end(key)
            return tuple(self._turns[key])

    def remember(self, session_id: str, turn: Turn) -> None:
        """Add a turn to a session, creating the session if necessary."""
        key = _key(session_id)
        with self._lock:
            self._turns.setdefault(key, deque(maxlen=self._max_turns)).append(turn)
            self._turns.move_to_end(key)
            if len(self._turns) > self._max_sessions:
                self._turns.popitem(last=False)


def _key(session_id: str) -> bytes:
    return hashlib.blake2b((session_id or DEFAULT_SESSION).encode(), digest_size=16).digest()
