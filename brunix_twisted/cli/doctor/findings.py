"""What a check found, as a value. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import attrs

Level = Literal["ok", "note", "warning", "problem"]
"""
``ok``: as it should be; ``note``: to be known, or not to be seen from here; ``warning``: some clients will have
trouble; ``problem``: it does not work, or not as it is meant to.
"""


@attrs.frozen
class Finding:
    """One thing that is so."""

    check: str
    """A word for the check, the same in every release."""
    level: Level
    says: str
    """What was found, in half a sentence."""
    means: str = ""
    """What comes of it, in whole sentences; empty where nothing does."""
    todo: str = ""
    """What to do about it, in whole sentences."""
    figures: Mapping[str, Any] = attrs.field(factory=dict)
    """What was measured, for programs; units stand in the names."""


def status(findings: Iterable[Finding]) -> int:
    """Give the exit status: whether anything is a problem."""
    return int(any(finding.level == "problem" for finding in findings))
