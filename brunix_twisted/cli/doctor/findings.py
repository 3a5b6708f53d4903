"""The result of a check as a value. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import attrs

Level = Literal["ok", "note", "warning", "problem"]
"""
``ok``: works; ``note``: worth knowing, or not measurable from here; ``warning``: some clients will have trouble;
``problem``: does not work, or not as intended.
"""


@attrs.frozen
class Finding:
    """The result of one check. The attributes are the keys of the JSON output, a public interface."""

    check: str
    """The name of the check, the same in every release."""
    level: Level
    says: str
    """What was found, as half a sentence."""
    means: str = ""
    """What it means for clients, in whole sentences; may be empty."""
    todo: str = ""
    """What to do about it, in whole sentences; may be empty."""
    figures: Mapping[str, Any] = attrs.field(factory=dict)
    """The measured values, for programs; their names contain the units."""


def exit_status(findings: Iterable[Finding]) -> int:
    """Return 1 if any finding is a problem."""
    return int(any(finding.level == "problem" for finding in findings))
