"""
Stop sequences, maximum length, and the token estimate.

The engine supports neither stop sequences nor a maximum length; :class:`OutputLimiter` applies them. The result depends
only on the complete text, not on how the engine splits it into messages.
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
    Estimate the tokens of a text, for ``usage``, ``eval_count`` and ``max_tokens``.

    One token for every four bytes of UTF-8, rounded up. The engine does not report how it splits text, so an exact
    count is not available; this estimate is fast, and callers can reproduce it. Count a complete text, not its chunks:
    rounding up each chunk would give a larger number.
    """
    return _tokens(_size_bytes(text))


def _tokens(size_bytes: int) -> int:
    return -(-size_bytes // BYTES_PER_TOKEN)


def _size_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


class OutputLimiter:
    """
    Truncates one text at the caller's limits.

    The rules apply to the complete text, not to single feeds:

    - A *stop* ends the text before the leftmost stop sequence.
    - The *length* ends it after the last character (code point) that fits into ``max_tokens`` tokens, but only if more
      text follows: a text that ends exactly there is not truncated.
    - The earlier of the two applies. If a stop sequence begins exactly at the length, ``stop`` applies: the text is the
      same, and ``stop`` says that nothing is missing. So a stop sequence may begin before the length and end after it;
      to find out, the limiter needs no more text than the longest stop sequence has.

    The limiter returns text as early as possible: it holds back only the longest suffix that may begin a stop
    sequence. Memory grows with the length of the stop sequences, which the caller of this class must limit.

    :param limits: ``max_tokens`` is 0 or more; 0 truncates any text.
    """

    __slots__ = ("_held", "_max_bytes", "_size_bytes", "_stops", "_unlimited", "finish_reason", "stop")

    finish_reason: Literal["stop", "length"] | None
    """
    Why the text was truncated, set by the feed (or the flush) that makes it certain. None: not truncated so far.

    Once it is set, both methods return "", and the engine call can be cancelled.
    """

    stop: str | None
    """The stop sequence that ended the text. Of several with the same start, the one that is complete first."""

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
        """The result of :func:`count_tokens` for all text returned so far, joined."""
        return _tokens(self._size_bytes)

    def feed(self, text: str) -> str:
        """Add the engine's next text; return what can be sent now."""
        if self._unlimited:
            self._size_bytes += _size_bytes(text)
            return text
        if self.finish_reason is not None:
            return ""
        searched = len(self._held)
        text = self._held + text
        return self._release(text, len(text) if self._stops is None else self._stops.search(text, searched))

    def flush(self) -> str:
        """End the text; return what was held back and belongs to it."""
        return "" if self.finish_reason is not None else self._release(self._held, len(self._held))

    def _release(self, text: str, pending: int) -> str:
        """
        Return the beginning of ``text`` that is certain, and hold back the rest.

        :param text: everything that was not returned yet.
        :param pending: index in it of the leftmost stop sequence that more text could complete; its length if none.
        """
        stops = self._stops
        found = None if stops is None else stops.found
        end = pending if found is None else min(found, pending)
        length_end = self._length_cut(text)
        if length_end < end:
            self.finish_reason = "length"
            end = length_end
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
        """Return the index at which ``text`` exceeds the length; its length if it does not."""
        if self._max_bytes is None:
            return len(text)
        room_bytes = self._max_bytes - self._size_bytes
        # Only the bytes of a character across the limit are incomplete, and so ignored.
        return len(text.encode()[:room_bytes].decode(errors="ignore"))


class _StopSearch:
    """
    Searches for all stop sequences at once, with the Aho-Corasick algorithm (1975).

    A state is the longest suffix of the text read so far that is a prefix of a stop sequence; state 0 is the empty one.
    This takes one step per character, regardless of the length and overlap of the stop sequences. Comparing the text
    held back with each of them would take quadratic time on text such as a long row of dashes.
    """

    __slots__ = ("_depth", "_fallback", "_first", "_next", "_state", "_stop_length", "found", "met")

    found: int | None
    """Index of the leftmost complete stop sequence so far, in the text of the last search."""
    met: str | None
    """That stop sequence."""

    def __init__(self, stops: Iterable[str]) -> None:
        self.found = self.met = None
        self._state = 0
        self._next: list[dict[str, int]] = [{}]
        # For each state: its length, and the length of the longest stop sequence that ends in it (or 0).
        self._depth, self._stop_length = [0], [0]
        for stop in stops:
            state = 0
            for character in stop:
                if character not in self._next[state]:
                    self._next[state][character] = len(self._next)
                    self._next.append({})
                    self._depth.append(self._depth[state] + 1)
                    self._stop_length.append(0)
                state = self._next[state][character]
            self._stop_length[state] = len(stop)
        # For each state: the next shorter suffix to try if no transition matches. Breadth first: shorter ones first.
        self._fallback = [0] * len(self._next)
        queue = deque(self._next[0].values())
        while queue:
            state = queue.popleft()
            for character, longer in self._next[state].items():
                self._fallback[longer] = shorter = self._step(self._fallback[state], character)
                self._stop_length[longer] = self._stop_length[longer] or self._stop_length[shorter]
                queue.append(longer)
        self._first = re.compile("[" + "".join(map(re.escape, sorted(self._next[0]))) + "]")

    def _step(self, state: int, character: str) -> int:
        while state and character not in self._next[state]:
            state = self._fallback[state]
        return self._next[state].get(character, 0)

    def search(self, text: str, start: int) -> int:
        """
        Search from ``start``; the text before it was searched already.

        Return the index of the leftmost stop sequence that more text could complete, or the text's length. If
        ``found`` is not greater, it is final: no later text can change it.
        """
        position, state = start, self._state
        while position < len(text):
            if not state:
                first = self._first.search(text, position)
                if first is None:
                    position = len(text)
                    break
                position = first.start()
            state = self._step(state, text[position])
            position += 1
            if self._stop_length[state]:
                begin = position - self._stop_length[state]
                if self.found is None or begin < self.found:
                    self.found, self.met = begin, text[begin:position]
            if self.found is not None and self.found <= position - self._depth[state]:
                break
        self._state = state
        return position - self._depth[state]
