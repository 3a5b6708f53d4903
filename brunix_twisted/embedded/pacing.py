"""Cutting an answer into tokens, and giving each its time."""

import re
import time
from collections.abc import Callable, Iterator
from typing import Final

import attrs

_TOKEN: Final = re.compile(r"\s*\S+\s*|\s+")


def tokens(text: str) -> list[str]:
    """Cut a text into words, each with the white space around it; joined they are the text."""
    return _TOKEN.findall(text)


@attrs.frozen
class Pace:
    """How fast tokens are sent, in tokens a second; 0 is as fast as they are read."""

    tokens_per_second: float
    clock: Callable[[], float] = time.monotonic

    def spread(self, text: str, wait: Callable[[float], bool]) -> Iterator[str]:
        """Give the tokens of a text, each when it is due, the first at once.

        Every token is due at a time counted from the first, so that a late one does not make the next one later.
        ``wait`` is given seconds to wait and tells whether the call has ended meanwhile: then no more tokens come.
        """
        start = self.clock()
        for place, token in enumerate(tokens(text)):
            if self.tokens_per_second:
                delay_s = start + place / self.tokens_per_second - self.clock()
                if delay_s > 0 and wait(delay_s):
                    return
            yield token
