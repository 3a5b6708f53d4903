"""The golden file: questions with known answers, one JSON object per line."""

import json
from collections import Counter
from pathlib import Path
from typing import Final, Literal, get_args

import attrs

from brunix_twisted.embedded.passages import Passage

Expectation = Literal["answer", "refusal", "small talk"]


@attrs.frozen
class GoldenQuestion:
    """A question, the key fact of its answer, and where the answer is: ``file`` or ``file#anchor``.

    ``after`` are questions that are asked before it in the same session. ``expect`` says what the engine should do:
    answer from the source, say that the documents do not answer it, or reply to small talk.
    """

    id: str
    category: str
    question: str
    answer: str = ""
    source: str = ""
    after: tuple[str, ...] = ()
    expect: Expectation = "answer"

    def is_answered_by(self, passage: Passage) -> bool:
        """Return whether a passage is in the source's file and, if the source has an anchor, under that heading."""
        source, _, anchor = self.source.partition("#")
        return passage.source == source and (not anchor or anchor in passage.anchors)


_REQUIRED: Final = frozenset({"id", "category", "question"})
_ORDER: Final = ("id", "category", "question", "answer", "source")
_WITH_ANSWER: Final = frozenset(_ORDER)


def read_golden(path: Path) -> tuple[GoldenQuestion, ...]:
    """Read a golden file; skip empty lines.

    Raises OSError if it cannot be read, and ValueError with the line number if a line is invalid.
    """
    questions = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if line.strip():
            try:
                questions.append(_question(line))
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
    duplicates = [each for each, count in Counter(question.id for question in questions).items() if count > 1]
    if duplicates:
        raise ValueError(f"duplicate id {duplicates[0]!r}")
    if not questions:
        raise ValueError("it contains no questions")
    return tuple(questions)


def _question(line: str) -> GoldenQuestion:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError("not a JSON object") from error
    if not isinstance(fields, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - the caller adds the line's number to a ValueError
    after, expect = fields.pop("after", []), fields.pop("expect", "answer")
    if expect not in get_args(Expectation):
        raise ValueError(f"expect must be one of {', '.join(get_args(Expectation))}")
    if not isinstance(after, list) or not all(isinstance(each, str) for each in after):
        raise ValueError("after must be a list of questions")
    required = _WITH_ANSWER if expect == "answer" else _REQUIRED
    if set(fields) != required:
        raise ValueError(f"the fields must be {', '.join(each for each in _ORDER if each in required)}")
    for name, value in fields.items():
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{name} must be a non-empty string")
        value.encode()  # JSON can contain a lone surrogate, which gRPC cannot send
    return GoldenQuestion(**fields, after=tuple(after), expect=expect)
