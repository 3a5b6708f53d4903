"""What makes a chunk a good answer besides its words: it defines something, contains an amount, or is the newest."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from brunix_twisted.embedded.chunks import IndexedChunk, Segment
from brunix_twisted.embedded.passages import Passage
from brunix_twisted.embedded.query import Query
from brunix_twisted.embedded.question import Intent
from brunix_twisted.embedded.recency import Key, date_in, version_in
from brunix_twisted.embedded.tokenizer import STOP_WORDS, stems, words

_AMOUNT: Final = re.compile(
    r"\d|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|twelve|once|twice|daily|weekly|monthly|yearly|every"
    r"|unlimited|never|always|immediately|free)\b",
    re.IGNORECASE,
)
# What is added to the match of a heading that contains a name in the question.
_NAMED: Final = 0.6

_HISTORIES: Final = frozenset(
    {"changelog", "changes", "history", "news", "release-notes", "release_notes", "releases", "whatsnew"}
)

_ARTICLES: Final = frozenset({"a", "an", "the", "el", "la", "un", "una", "los", "las"})
_COPULAS: Final = frozenset(
    "is are means mean stands describes refers denotes lets represents contains es son significa".split()  # noqa: SIM905
)


def defines(indexed: IndexedChunk, subject: Sequence[str]) -> float:
    """Return how well a chunk defines a subject, given as stems: 1 if one of its sentences says what it is."""
    prose = [segment for segment in indexed.segments if segment.block.kind != "row"]
    best = max((_is_definition(segment.text, subject) for segment in prose), default=0.0)
    if best:
        return best
    if indexed.chunk.row:
        cells = [cell for cell in indexed.chunk.row.content.split("|") if cell.strip()]
        return 0.7 if cells and _same(stems(cells[0]), subject) else 0.0
    headings = indexed.chunk.passage.headings
    if headings and _same(stems(headings[-1]), subject):
        return 0.8
    if headings and set(subject) <= set(stems(headings[-1])):
        return 0.2
    return 0.0


def definition(segments: Sequence[Segment], subject: Sequence[str]) -> Segment | None:
    """Return the first sentence that says what the subject is."""
    stemmed = tuple(stems(" ".join(subject)))
    best = max(segments, key=lambda segment: _is_definition(segment.text, stemmed), default=None)
    return best if best and _is_definition(best.text, stemmed) else None


def _is_definition(text: str, subject: Sequence[str]) -> float:
    """Return 1 for a sentence such as "Loom is a language", less for "Loom is small", and 0 for others."""
    in_order = words(text[:200])
    while in_order and in_order[0] in _ARTICLES:
        in_order = in_order[1:]
    length = len(subject)
    if len(in_order) <= length or not subject:
        return 0.0
    if set(stems(" ".join(in_order[:length]))) != set(subject):
        return 0.0
    rest = in_order[length : length + 3]
    if _COPULAS.isdisjoint(rest[:2]):
        return 0.0
    return 1.0 if not _ARTICLES.isdisjoint(rest) or rest[:1] in (["means"], ["mean"], ["stands"]) else 0.6


def _same(terms: Sequence[str], subject: Sequence[str]) -> bool:
    return set(terms) - _ARTICLES == set(subject)


def heading_match(indexed: IndexedChunk, query: Query) -> float:
    """Return how well a chunk's heading, or the path of its headings, matches the question."""
    forms = {form for concept in query.concepts for form in concept.forms}
    named = any(concept.is_name and concept.presence(indexed.heading_terms) == 1.0 for concept in query.concepts)
    return max(_match(query, forms, indexed.heading_terms), _match(query, forms, indexed.path_terms)) + _NAMED * named


def _match(query: Query, forms: Collection[str], heading: Mapping[str, float]) -> float:
    """Multiply the coverage of the question and the coverage of the heading."""
    terms = [term for term in heading if term not in STOP_WORDS] or list(heading)
    return query.coverage(heading) * sum(term in forms for term in terms) / max(1, len(terms))


def has_amount(indexed: IndexedChunk, query: Query) -> bool:
    """Return whether the sentence that covers most of the question contains an amount."""
    segments = indexed.segments
    best = max(segments, key=lambda segment: query.coverage(segment.frequencies), default=None)
    return best is not None and bool(_AMOUNT.search(best.text))


def recency(indexed: IndexedChunk, intent: Intent) -> Key:
    """Return the date or version of a chunk: of its heading, or else the newest, or oldest, in its text."""
    headings = indexed.chunk.passage.headings
    find = version_in if intent.names_version else date_in
    for key in (find(headings[-1]) if headings else (), _of_segments(indexed, intent, find)):
        if key:
            return key
    other = date_in if intent.names_version else version_in
    return other(headings[-1]) if headings else ()


def is_history(passage: Passage) -> bool:
    """Return whether a passage is from a changelog, which mentions everything and explains little."""
    stem_of_name = passage.source.rsplit("/", 1)[-1].partition(".")[0].lower()
    return stem_of_name in _HISTORIES or any(map(version_in, passage.headings[-2:]))


def dated_segment(segments: Sequence[Segment], intent: Intent) -> Segment | None:
    """Return the segment with the newest, or oldest, version or date."""
    find = version_in if intent.names_version else date_in
    dated = [(key, -segment.position, segment) for segment in segments if (key := find(segment.text))]
    if not dated:
        return None
    pick = max if intent.newest > 0 else min
    return pick(dated, key=lambda each: each[:2])[2]


def _of_segments(indexed: IndexedChunk, intent: Intent, find: Callable[[str], Key]) -> Key:
    keys = [key for segment in indexed.segments if (key := find(segment.text))]
    return (max(keys) if intent.newest > 0 else min(keys)) if keys else ()
