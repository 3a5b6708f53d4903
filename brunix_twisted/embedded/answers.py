"""Compose an answer from quotations, each with its source."""

from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from brunix_twisted.embedded.chunks import Segment
from brunix_twisted.embedded.passages import Passage
from brunix_twisted.embedded.quoting import select_segments
from brunix_twisted.embedded.retrieval import Retriever, SearchHit, coverage

# Minimum confidence of the best passage. Chosen by measuring questions that a set of documents answers and questions
# that it does not answer; tests/embedded/test_threshold.py repeats the measurement.
CONFIDENCE_THRESHOLD: Final = 0.42

# Maximum number of passages in one answer. A second or third passage must contain a sentence that covers this share of
# the question, counting only terms that the passages before it do not contain.
_MAX_PASSAGES: Final = 3
_MIN_NEW_COVERAGE: Final = 0.25

# A second or third passage must not make the answer longer than this.
_MAX_ANSWER_CHARACTERS: Final = 700

NO_ANSWER: Final = "The documents do not answer this question: no passage in them matches it closely enough."


@attrs.frozen
class Answer:
    """An answer in Markdown, and the passages that it quotes, best first.

    ``quotations`` is the quoted text of each passage, without citations.
    """

    text: str
    passages: tuple[Passage, ...]
    quotations: tuple[str, ...]

    @property
    def answered(self) -> bool:
        """Whether the documents answer the question."""
        return bool(self.passages)


def is_answered(hits: Sequence[SearchHit]) -> bool:
    """Return whether the best hit matches the question closely enough to be quoted."""
    return bool(hits) and hits[0].confidence >= CONFIDENCE_THRESHOLD


def answer(retriever: Retriever, weights: Mapping[str, float], *, wants_code: bool) -> Answer:
    """Answer a question, given as words with weights. Thread-safe."""
    hits = retriever.find(weights, _MAX_PASSAGES)
    if not is_answered(hits):
        return Answer(NO_ANSWER, (), ())
    remaining = retriever.term_shares(weights)
    quoted: list[tuple[Passage, list[Segment]]] = []
    text = ""
    for hit in hits:
        segments = select_segments(hit.indexed, remaining, wants_code=wants_code)
        quotation = f"{_markdown(segments)}\n\n{citation(hit.passage, segments)}"
        if quoted:
            is_new = max(coverage(remaining, segment.frequencies) for segment in segments) >= _MIN_NEW_COVERAGE
            is_long = len(text) + len(quotation) > _MAX_ANSWER_CHARACTERS
            if not is_new or is_long or hit.confidence < CONFIDENCE_THRESHOLD:
                continue
        text += f"\n\n{quotation}" if text else quotation
        quoted.append((hit.passage, segments))
        remaining = {term: share for term, share in remaining.items() if term not in hit.indexed.frequencies}
    return Answer(
        text=text,
        passages=tuple(passage for passage, _ in quoted),
        quotations=tuple(_markdown(segments) for _, segments in quoted),
    )


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
