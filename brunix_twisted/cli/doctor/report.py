"""Print the findings as text or as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Final, TextIO

import attrs

from brunix_twisted import __version__
from brunix_twisted.cli.doctor.findings import Finding, exit_status
from brunix_twisted.cli.terminal import coloured, strip_controls

_WIDTH: Final = 100
_LEVEL_WIDTH: Final = 9
_CHECK_WIDTH: Final = 13
_INDENT: Final = " " * (_LEVEL_WIDTH + _CHECK_WIDTH)
_PLURALS: Final = {"problem": ("problem", "problems"), "warning": ("warning", "warnings"), "note": ("note", "notes")}


def block(finding: Finding, stream: TextIO, environment: Mapping[str, str]) -> str:
    """Format one finding."""
    level = coloured(f"{finding.level:{_LEVEL_WIDTH}}", finding.level, stream, environment)
    first, *more = _wrapped(finding.says) or [""]
    more += [line for text in (finding.means, finding.todo) for line in _wrapped(text)]
    return "\n".join([f"{level}{finding.check:{_CHECK_WIDTH}}{first}", *(_INDENT + line for line in more)]) + "\n"


def _wrapped(text: str) -> list[str]:
    # Addresses and settings stay in one piece, so that they can be copied.
    return textwrap.wrap(text, _WIDTH - len(_INDENT), break_long_words=False, break_on_hyphens=False)


def heading(root: str) -> str:
    """Format the first line."""
    return f"brunix doctor {__version__} at {root}\n\n"


def summary(_: str, findings: Sequence[Finding], questions: int, took_s: float) -> str:
    """Format the last line."""
    counts = []
    for level, (one, several) in _PLURALS.items():
        if count := sum(finding.level == level for finding in findings):
            counts.append(f"{count} {one if count == 1 else several}")
    found = ", ".join(counts) or "No problems"
    asked = "1 question" if questions == 1 else f"{questions or 'no'} questions"
    return f"\n{found}. The engine received {asked}. The checks took {took_s:.1f} s.\n"


def as_json(root: str, findings: Sequence[Finding], questions: int, took_s: float) -> str:
    """Format everything as one JSON object."""
    report: dict[str, Any] = {
        "url": root,
        "doctor": __version__,
        "questions": questions,
        "took_s": round(took_s, 3),
        "status": exit_status(findings),
        "findings": [attrs.asdict(finding) for finding in findings],
    }
    return json.dumps(report, ensure_ascii=False, indent=2) + "\n"


def clean(finding: Finding, stream: TextIO) -> Finding:
    """Remove control characters from all text that a server may have influenced, if the stream is a terminal."""
    return attrs.evolve(
        finding,
        says=strip_controls(finding.says, stream),
        means=strip_controls(finding.means, stream),
        todo=strip_controls(finding.todo, stream),
    )
