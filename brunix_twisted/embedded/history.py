"""What was asked in each session, for the follow-up that comes next."""

import hashlib
import threading
from collections import OrderedDict, deque
from typing import Final

import attrs

# The session of everybody who names none, as the engine's contract has it.
DEFAULT_SESSION: Final = "default"

MOST_TURNS: Final = 16
MOST_SESSIONS: Final = 4096


@attrs.frozen
class Turn:
    """One question that was answered to its end: the words it was searched by, and whether the documents said any."""

    words: tuple[str, ...]
    answered: bool


class Sessions:
    """The turns of every session, the oldest forgotten first. Any thread may call any method.

    A session past the bound of sessions is forgotten whole, the one longest unused first. Only digests of the ids are
    kept: an id may be as long as a message.
    """

    def __init__(self, most_turns: int = MOST_TURNS, most_sessions: int = MOST_SESSIONS) -> None:
        """Keep at most so many turns of each session, and so many sessions."""
        self._most_turns = most_turns
        self._most_sessions = most_sessions
        self._lock = threading.Lock()
        self._turns: OrderedDict[bytes, deque[Turn]] = OrderedDict()

    def turns(self, session_id: str) -> tuple[Turn, ...]:
        """Give the turns of a session, the oldest first; an empty id is the session named ``default``."""
        key = _key(session_id)
        with self._lock:
            if key not in self._turns:
                return ()
            self._turns.move_to_end(key)
            return tuple(self._turns[key])

    def remember(self, session_id: str, turn: Turn) -> None:
        """Add a turn to a session, which begins with it if it is new."""
        key = _key(session_id)
        with self._lock:
            self._turns.setdefault(key, deque(maxlen=self._most_turns)).append(turn)
            self._turns.move_to_end(key)
            if len(self._turns) > self._most_sessions:
                self._turns.popitem(last=False)


def _key(session_id: str) -> bytes:
    return hashlib.blake2b((session_id or DEFAULT_SESSION).encode(), digest_size=16).digest()
