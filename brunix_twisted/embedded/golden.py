"""The golden file: questions whose answers are known, one JSON object a line."""

import json
from collections import Counter
from pathlib import Path

import attrs

from brunix_twisted.embedded.passages import Passage


@attrs.frozen
class GoldenQuestion:
    """A question, the key fact that an answer must have, and where it stands: a file, or ``file#anchor``."""

    id: str
    category: str
    question: str
    answer: str
    source: str

    def is_answered_by(self, passage: Passage) -> bool:
        """Tell whether a passage is where the answer stands: in that file, and under that heading if one is named."""
        source, _, anchor = self.source.partition("#")
        return passage.source == source and (not anchor or anchor in passage.anchors)


_FIELDS = tuple(field.name for field in attrs.fields(GoldenQuestion))


def read_golden(path: Path) -> tuple[GoldenQuestion, ...]:
    """Read a golden file; empty lines are passed over.

    Raises OSError when it cannot be read, and ValueError with the line's number when a line is no such question.
    """
    questions = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if line.strip():
            try:
                questions.append(_question(line))
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
    twice = [each for each, count in Counter(question.id for question in questions).items() if count > 1]
    if twice:
        raise ValueError(f"the id {twice[0]!r} stands there more than once")
    if not questions:
        raise ValueError("there is no question in it")
    return tuple(questions)


def _question(line: str) -> GoldenQuestion:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError("no JSON object") from error
    if not isinstance(fields, dict) or set(fields) != set(_FIELDS):
        raise ValueError(f"an object with just {', '.join(_FIELDS)} is wanted")
    for name, value in fields.items():
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{name} must be text, and not empty")
        value.encode()  # JSON can escape half a character, which gRPC could not carry
    return GoldenQuestion(**fields)
