"""
Where the caller's limits end the text, and how tokens are counted.

The engine supports neither stop sequences nor a maximum length; :class:`OutputLimiter` applies them. How the engine
splits its answer into messages never changes the result: every rule here is a rule about the whole text.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from typing import Literal

from brunix_twisted.model import Limits

BYTES_PER_TOKEN = 4


def count_tokens(text: str) -> int:
    """
    The estimate that ``usage``, ``eval_count`` and ``max_tokens`` all go by.

    One token for every four bytes of UTF-8, and one for a rest of one to three bytes. The engine does not say how it
    splits text, so no exact count exists here; this one is fast, the same everywhere, and a caller can repeat it.
    Count a whole text, not its pieces: each piece would round up by itself.
    """
    return _tokens(_size_bytes(text))


def _tokens(size_bytes: int) -> int:
    return -(-size_bytes // BYTES_PER_TOKEN)


def _size_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


class OutputLimiter:
    """
    Ends one text where the caller wants it to end.

    Of the whole text, however it is split into feeds:

    - A *stop* begins where the first stop sequence begins, the leftmost of all that occur.
    - The *length* ends after the last character (code point) with which the text counts no more than ``max_tokens``
      tokens, but only when there is text beyond it: a text that ends by itself exactly there is not cut.
    - Whichever comes first ends the text. A stop that begins right at the length is met: the caller gets the same text
      either way, and ``stop`` says that nothing of the answer is missing. So a stop sequence may begin before the
      length and become whole only after it; waiting for that takes no more text than the longest stop sequence has.

    Text goes out as early as these rules permit: only the longest end of it that is the beginning of a stop sequence
    is ever held back. Memory is held for each character of the stop sequences; whoever accepts them bounds them.

    :param limits: ``max_tokens`` is 0 or more; with 0 any text at all is cut.
    """

    __slots__ = ("_held", "_max_bytes", "_size_bytes", "_stops", "_unlimited", "finish_reason", "stop")

    finish_reason: Literal["stop", "length"] | None
    """
    Why the text was cut, set by the feed (or the flush) that makes it certain. None: it was not, so far. Once set, the
    engine has nothing to say that the caller would see, and both methods return nothing more.
    """

    stop: str | None
    """The stop sequence that ended the text, once it is certain: of those that begin there, the one first complete."""

    def __init__(self, limits: Limits) -> None:
        self.finish_reason = None
        self.stop = None
        self._max_bytes = None if limits.max_tokens is None else limits.max_tokens * BYTES_PER_TOKEN
        self._stops = _StopSearch(limits.stop) if any(limits.stop) else None
        self._unlimited = self._max_bytes is None and self._stops is None
        self._size_bytes = 0
        self._held = ""

    @property
    def tokens(self) -> int:
        """What :func:`count_tokens` gives for all text handed out so far, joined."""
        return _tokens(self._size_bytes)

    def feed(self, text: str) -> str:
        """Take the engine's next text; returns what may go out now."""
        if self._unlimited:
            self._size_bytes += _size_bytes(text)
            return text
        if self.finish_reason is not None:
            return ""
        known = len(self._held)
        text = self._held + text
        return self._release(text, len(text) if self._stops is None else self._stops.search(text, known))

    def flush(self) -> str:
        """Tell that the engine has ended; returns what was held back and still belongs to the text."""
        return "" if self.finish_reason is not None else self._release(self._held, len(self._held))

    def _release(self, text: str, pending: int) -> str:
        """
        Hand out the beginning of ``text`` that is certain, and hold the rest back.

        :param text: everything that was not handed out yet.
        :param pending: where in it the leftmost stop begins that more text could make whole; its length if none.
        """
        stops = self._stops
        found = None if stops is None else stops.found
        end = pending if found is None else min(found, pending)
        over = self._length_cut(text)
        if over < end:
            self.finish_reason = "length"
            end = over
        elif stops is not None and found is not None:
            if end == found:
                self.finish_reason = "stop"
                self.stop = stops.met
            else:
                stops.found = found - end
        self._held = text[end:]
        released = text[:end]
        self._size_bytes += _size_bytes(released)
        return released

    def _length_cut(self, text: str) -> int:
        """Where ``text`` passes the length; its end if it does not."""
        if self._max_bytes is None:
            return len(text)
        room_bytes = self._max_bytes - self._size_bytes
        # The only bytes there are to ignore are those of a character that begins in the room and ends outside.
        return len(text.encode()[:room_bytes].decode(errors="ignore"))


class _StopSearch:
    """
    Looks for all stop sequences at once, with the automaton of Aho and Corasick (1975).

    A state is the longest end of the text read so far that is a beginning of some stop; state 0 is none. That costs
    one step a character, however long the stops are and however they overlap. Plain comparisons with what is held back
    would take quadratic time on text such as a long row of dashes.
    """

    __slots__ = ("_depth", "_fallback", "_first", "_next", "_state", "_whole", "found", "met")

    found: int | None
    """Where the leftmost whole stop begins so far, in the text of the last search."""
    met: str | None
    """That stop."""

    def __init__(self, stops: Iterable[str]) -> None:
        self.found = self.met = None
        self._state = 0
        self._next: list[dict[str, int]] = [{}]
        # How many characters of a stop a state has seen, and how long the longest stop is that ends in it (or 0).
        self._depth, self._whole = [0], [0]
        for stop in stops:
            state = 0
            for character in stop:
                if character not in self._next[state]:
                    self._next[state][character] = len(self._next)
                    self._next.append({})
                    self._depth.append(self._depth[state] + 1)
                    self._whole.append(0)
                state = self._next[state][character]
            self._whole[state] = len(stop)
        # The state of the longest end that is left when the longest one does not go on; short ones first.
        self._fallback = [0] * len(self._next)
        queue = deque(self._next[0].values())
        while queue:
            state = queue.popleft()
            for character, longer in self._next[state].items():
                self._fallback[longer] = shorter = self._step(self._fallback[state], character)
                self._whole[longer] = self._whole[longer] or self._whole[shorter]
                queue.append(longer)
        self._first = re.compile("[" + "".join(map(re.escape, sorted(self._next[0]))) + "]")

    def _step(self, state: int, character: str) -> int:
        while state and character not in self._next[state]:
            state = self._fallback[state]
        return self._next[state].get(character, 0)

    def search(self, text: str, start: int) -> int:
        """
        Read on from ``start``; what is before it was read already.

        Returns where the leftmost stop begins that more text could make whole, the text's length if there is none.
        When ``found`` is not beyond that, it is the leftmost stop of the whole text, whatever follows.
        """
        here, state = start, self._state
        while here < len(text):
            if not state:
                first = self._first.search(text, here)
                if first is None:
                    here = len(text)
                    break
                here = first.start()
            state = self._step(state, text[here])
            here += 1
            if self._whole[state]:
                begin = here - self._whole[state]
                if self.found is None or begin < self.found:
                    self.found, self.met = begin, text[begin:here]
            if self.found is not None and self.found <= here - self._depth[state]:
                break
        self._state = state
        return here - self._depth[state]
