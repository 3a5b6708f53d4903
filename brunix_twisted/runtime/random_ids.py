"""Unguessable ids, from the system's random numbers."""

from __future__ import annotations

import os
from secrets import token_hex
from typing import Final

_DIGITS: Final = 32
_COUNT: Final = 256

_ids: list[str] = []
# Otherwise several processes would use the same ids.
os.register_at_fork(after_in_child=_ids.clear)


def random_id() -> str:
    """
    Return 128 random bits as 32 hexadecimal digits. Call it on any thread.

    Many are read at once: a thread that asks the system lets the other threads run, and has to wait for its next turn.
    """
    try:
        return _ids.pop()
    except IndexError:
        digits = token_hex(_DIGITS // 2 * _COUNT)
        _ids.extend(digits[start : start + _DIGITS] for start in range(_DIGITS, len(digits), _DIGITS))
        return digits[:_DIGITS]
