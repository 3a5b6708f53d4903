"""Compose an answer from quotations, each with its source."""

from collections.abc import Sequence
from typing import Final

import attrs

from brunix_twisted.embedded.chunks import Segment
from brunix_twisted.embedded.passages import Passage
from brunix_twisted.embedded.query import Query
from brunix_twisted.embedded.question import Intent
from brunix_twisted.embedded.quoting import select_segments
from brunix_twisted.embedded.retrieval import SearchHit

# Minimum confidence of the best passage. Chosen by measuring questions that a set of documents answers and questions
# that it does not answer; tests/embedded/test_threshold.py repeats the measurement.
CONFIDENCE_THRESHOLD: Final = 0.48

# Maximum number of passages in one answer. A second or third passage must contain a sentence that covers this share of
# the question, counting only terms that the passages before it do not contain.
_MAX_PASSAGES: Final = 3
_MIN_NEW_COVERAGE: Final = 0.25

# A passage whose score is at least this share of the best is quoted too, if the best does not cover the question, or
# lacks the code that the question asks for.
_CLOSE_SCORE: Final = 0.85
_COVERED: Final = 1.0

# A second or third passage must not make the answer longer than this.
_MAX_ANSWER_CHARACTERS: Final = 700

# A refusal names sections with at least this confidence.
_MIN_NEAR_CONFIDENCE: Final = 0.1
_MAX_HEADINGS: Final = 3

NO_ANSWER: Final = "The documents do not answer this question: no passage in them matches it closely enough."


@attrs.frozen
class Answer:
    """An answer in Markdown, and the passages that it quotes, best first.

    ``quotations`` is the quoted text of each passage, without citations.
    """

    text: str
    passages: tuple[Passage, ...]
    quotations: tuple[str, ...]
    is_small_talk: bool = False

    @property
    def answered(self) -> bool:
        """Whether the documents answer the question."""
        return bool(self.passages)


def is_answered(hits: Sequence[SearchHit]) -> bool:
    """Return whether the best hit matches the question closely enough to be quoted."""
    return bool(hits) and hits[0].confidence >= CONFIDENCE_THRESHOLD


def refusal(hits: Sequence[SearchHit]) -> str:
    """Say that the documents do not answer, and name the headings that are nearest to the question."""
    near = dict.fromkeys(_name(hit.passage) for hit in hits if hit.confidence >= _MIN_NEAR_CONFIDENCE)
    names = list(near)[:_MAX_HEADINGS]
    return (
        f"{NO_ANSWER} The nearest sections are:\n\n" + "\n".join(f"- {name}" for name in names) if names else NO_ANSWER
    )


def small_talk(document_count: int, sample_questions: Sequence[str], *, is_thanks: bool) -> Answer:
    """Say in one sentence what the engine does, and offer questions that it answers."""
    documents = "one document" if document_count == 1 else f"{document_count} documents"
    text = f"I answer questions by quoting from {documents}, and name the source of each quotation."
    if is_thanks:
        text = f"You are welcome. {text}"
    if sample_questions:
        text += " You can ask, for example:\n\n" + "\n".join(f"- {question}" for question in sample_questions)
    return Answer(text, (), (), is_small_talk=True)


def _name(passage: Passage) -> str:
    headings = " › ".join(passage.headings)  # noqa: RUF001 - as in citation()
    return f"{headings} (`{passage.source}`)" if headings else f"`{passage.source}`"


def answer(hits: Sequence[SearchHit], query: Query, intent: Intent) -> Answer:
    """Answer a question from the passages that were found, best first. Thread-safe."""
    if not is_answered(hits):
        return Answer(refusal(hits), (), ())
    remaining = query
    quoted: list[tuple[Passage, list[Segment]]] = []
    text = ""
    is_covered = False
    for hit in hits[:_MAX_PASSAGES]:
        segments = select_segments(hit.indexed, remaining if quoted else query, intent)
        quotation = f"{_markdown(segments)}\n\n{citation(hit.passage, segments)}"
        if quoted:
            is_new = max(remaining.coverage(segment.frequencies) for segment in segments) >= _MIN_NEW_COVERAGE
            is_long = len(text) + len(quotation) > _MAX_ANSWER_CHARACTERS
            adds_code = intent.wants_code and _has_code(segments) and not any(_has_code(each) for _, each in quoted)
            is_close = hit.score >= _CLOSE_SCORE * hits[0].score and (adds_code or not is_covered)
            if not (is_new or is_close) or is_long or hit.confidence < CONFIDENCE_THRESHOLD:
                continue
        else:
            is_covered = hit.confidence >= _COVERED
        text += f"\n\n{quotation}" if text else quotation
        quoted.append((hit.passage, segments))
        remaining = remaining.without(hit.indexed.frequencies)
    return Answer(
        text=text,
        passages=tuple(passage for passage, _ in quoted),
        quotations=tuple(_markdown(segments) for _, segments in quoted),
    )


def _has_code(segments: Sequence[Segment]) -> bool:
    return any(segment.block.kind == "code" for segment in segments)


def citation(passage: Passage, segments: Sequence[Segment]) -> str:
    """Name the source of a quotation: file, headings and lines."""
    headings = " › ".join(passage.headings)  # noqa: RUF001 - ">" would start a quotation in Markdown
    return "— " + ", ".join(filter(None, (f"`{passage.source}`", headings, _lines(segments, passage.unit))))


def _lines(segments: Sequence[Segment], unit: str) -> str:
    """Name the lines, pages or paragraphs of some segments; adjacent segments become one range."""
    ranges: list[tuple[int, int]] = []
    for before, segment in zip((None, *segments), segments, strict=False):
        first, last = segment.block.first_line, segment.block.last_line
        if before and (segment.block is before.block or segment.position == before.position + 1):
            ranges[-1] = (ranges[-1][0], last)
        else:
            ranges.append((first, last))
    text = ", ".join(f"{first}" if first == last else f"{first}–{last}" for first, last in ranges)
    return f"{unit} {text}" if text.isdecimal() else f"{unit}s {text}"


def _markdown(segments: Sequence[Segment]) -> str:
    """Join segments as Markdown: the sentences of a paragraph on one line, list items and table rows one per line."""
    text = ""
    for before, segment in zip((None, *segments), segments, strict=False):
        block = segment.block
        if before and block is before.block:
            # Mark sentences that are left out, as in any quotation.
            text += " " if segment.position == before.position + 1 else " … "
        elif (
            before
            and block.kind in ("item", "row")
            and (block.kind, block.header) == (before.block.kind, before.block.header)
        ):
            text += "\n"
        else:
            text += "\n\n" if before else ""
            text += f"{block.header}\n" if block.header else ""
        text += segment.text
    return text
