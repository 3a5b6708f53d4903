"""Split an answer into tokens and send them at a given rate."""

import re
import time
from collections.abc import Callable, Iterator
from typing import Final

import attrs

_TOKEN: Final = re.compile(r"\s*\S+\s*|\s+")


def tokens(text: str) -> list[str]:
    """Split a text into words with the white space around them; joined, they are the text."""
    return _TOKEN.findall(text)


@attrs.frozen
class Pace:
    """The rate at which tokens are sent; 0 means without delay."""

    tokens_per_second: float
    clock: Callable[[], float] = time.monotonic

    def stream(self, text: str, wait: Callable[[float], bool]) -> Iterator[str]:
        """Yield the tokens of a text when they are due, the first immediately.

        All due times are counted from the first token, so a delayed token does not delay the next one. ``wait`` waits
        for a number of seconds and returns whether the call has ended; if it has, no more tokens are sent.
        """
        start_s = self.clock()
        for index, token in enumerate(tokens(text)):
            if self.tokens_per_second:
                delay_s = start_s + index / self.tokens_per_second - self.clock()
                if delay_s > 0 and wait(delay_s):
                    return
            yield token
