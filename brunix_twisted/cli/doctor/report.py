"""The findings as a person reads them, and as a program does."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Final, TextIO

import attrs

from brunix_twisted import __version__
from brunix_twisted.cli.doctor.findings import Finding, status
from brunix_twisted.cli.terminal import coloured, strip_controls

_WIDTH: Final = 100
_LEVEL: Final = 9
_CHECK: Final = 13
_WORDS: Final = {"problem": ("problem", "problems"), "warning": ("warning", "warnings"), "note": ("note", "notes")}


def block(finding: Finding, stream: TextIO, environment: Mapping[str, str], width: int = _WIDTH) -> str:
    """Write one finding."""
    level = coloured(f"{finding.level:{_LEVEL}}", finding.level, stream, environment)
    indent = " " * (_LEVEL + _CHECK)
    lines = _wrapped(finding.says, width) or [""]
    written = [f"{level}{finding.check:{_CHECK}}{lines[0]}", *(indent + line for line in lines[1:])]
    for text in (finding.means, finding.todo):
        written += [indent + line for line in _wrapped(text, width)]
    return "\n".join(written) + "\n"


def _wrapped(text: str, width: int) -> list[str]:
    indent = _LEVEL + _CHECK
    # What is to be copied, an address or a setting, stays in one piece.
    return textwrap.wrap(text, max(30, width - indent), break_long_words=False, break_on_hyphens=False)


def heading(root: str) -> str:
    """Say whom the findings are about."""
    return f"brunix doctor {__version__} at {root}\n\n"


def summary(_: str, findings: Sequence[Finding], questions: int, took_s: float) -> str:
    """Write the last line."""
    counts = []
    for level, (one, several) in _WORDS.items():
        if count := sum(finding.level == level for finding in findings):
            counts.append(f"{count} {one if count == 1 else several}")
    found = ", ".join(counts) or "everything is well"
    asked = {0: "nothing", 1: "1 question"}.get(questions, f"{questions} questions")
    return f"\n{found[0].upper()}{found[1:]}. The engine was asked {asked}; it took {took_s:.1f} s.\n"


def as_json(root: str, findings: Sequence[Finding], questions: int, took_s: float) -> str:
    """Write everything as one JSON object."""
    data: dict[str, Any] = {
        "url": root,
        "doctor": __version__,
        "questions": questions,
        "took_s": round(took_s, 3),
        "status": status(findings),
        "findings": [attrs.asdict(finding) for finding in findings],
    }
    return json.dumps(data, ensure_ascii=False, indent=2) + "\n"


def clean(finding: Finding, stream: TextIO) -> Finding:
    """Take away what a terminal would obey, in all that a server may have had a hand in."""
    return attrs.evolve(
        finding,
        says=strip_controls(finding.says, stream),
        means=strip_controls(finding.means, stream),
        todo=strip_controls(finding.todo, stream),
    )
