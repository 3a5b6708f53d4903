"""Select what an answer quotes from a passage that was found."""

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Final

from brunix_twisted.embedded.chunks import IndexedChunk, Segment, frequencies
from brunix_twisted.embedded.query import Query
from brunix_twisted.embedded.question import Intent
from brunix_twisted.embedded.ranking import dated_segment, definition

# A text up to this length is quoted whole: shortening it would lose more than it saves.
_MAX_WHOLE_TEXT_CHARACTERS: Final = 500

# A further sentence is quoted if it covers this share of the question with terms that the sentences before it lack.
_MIN_NEW_COVERAGE: Final = 0.15
_MAX_SENTENCES: Final = 3

# A further row is quoted if it covers this fraction of what the best row covers.
_MIN_ROW_COVERAGE: Final = 0.8
_MAX_ROWS: Final = 3

# A table that a colon introduces is quoted whole up to this number of rows.
_MAX_WHOLE_TABLE_ROWS: Final = 6


def select_segments(indexed: IndexedChunk, query: Query, intent: Intent) -> list[Segment]:
    """Select the segments to quote from the passage of a chunk, in the passage's order."""
    if indexed.chunk.row:
        return _rows(indexed, query, intent)
    text = [segment for segment in indexed.segments if segment.block.kind != "code"]
    # The heading has said what a section is about: its sentences need to answer the rest of the question.
    selected = _sentences(text, query.without(indexed.heading_terms), intent) if text else list(indexed.segments[:1])
    segments = indexed.passage_segments
    positions = {segment.position for segment in selected}
    for segment in selected:
        positions.update(_required_context(segments, segment.position, query))
    if intent.wants_code and not any(segments[position].block.kind == "code" for position in positions):
        positions.update(_code(segments, selected, query))
    return [segments[position] for position in sorted(positions)]


def _rows(indexed: IndexedChunk, query: Query, intent: Intent) -> list[Segment]:
    """Select the table row that was found, and rows that cover nearly as much of the question."""
    (best,) = indexed.segments
    # All rows share the terms of the header, so these do not distinguish them.
    if intent.newest:
        return [best]
    header = frequencies(best.block.header)
    remaining = query.without(header)

    def row_coverage(row: Segment) -> float:
        return remaining.coverage(row.frequencies)

    minimum = _MIN_ROW_COVERAGE * row_coverage(best)
    table = [row for row in indexed.passage_segments if row is not best and row.block.header == best.block.header]
    others = [row for row in table if row_coverage(row) >= minimum > 0]
    others.sort(key=lambda row: (-row_coverage(row), row.position))
    return sorted((best, *others[: _MAX_ROWS - 1]), key=lambda row: row.position)


def _sentences(text: Sequence[Segment], query: Query, intent: Intent) -> list[Segment]:
    """Select sentences and list items: all of a short text; of a long one the best, and others that add something."""

    def best(remaining: Query) -> Segment:
        # Prefer the earlier of equals: a section introduces its subject first.
        return max(text, key=lambda segment: (remaining.coverage(segment.frequencies), -segment.position))

    candidate = best(query)
    if intent.newest and (newest := dated_segment(text, intent)):
        return [each for each in text if each.block is newest.block]
    if sum(len(segment.text) for segment in text) <= _MAX_WHOLE_TEXT_CHARACTERS:
        return [each for each in text if each is candidate or not _introduces_unrelated_code(each, text, query)]
    selected: list[Segment] = []
    if intent.subject and (defined := definition(text, intent.subject)):
        selected.append(defined)
        candidate = best(query.without(defined.frequencies))
    remaining = query
    while len(selected) < _MAX_SENTENCES and (
        not selected or remaining.coverage(candidate.frequencies) >= _MIN_NEW_COVERAGE
    ):
        selected.append(candidate)
        remaining = remaining.without(candidate.frequencies)
        candidate = best(remaining)
    # The sentence after the best one often contains the answer.
    first = selected[0]
    following = [each for each in text if each.position == first.position + 1 and each.block is first.block]
    return selected + [segment for segment in following if segment not in selected]


def _introduces_unrelated_code(segment: Segment, text: Sequence[Segment], query: Query) -> bool:
    """Return whether a segment is a paragraph such as "In another shell:" that has no terms of the question."""
    is_paragraph = segment.block.kind == "prose" and segment.text == segment.block.text
    return (
        is_paragraph
        and segment.text.endswith(":")
        and not query.coverage(segment.frequencies)
        and all(each.position != segment.position + 1 for each in text)
    )


def _required_context(segments: Sequence[Segment], position: int, query: Query) -> Iterator[int]:
    """Return the positions of what a segment needs to be understood: what it introduces, or what introduces it."""
    segment = segments[position]
    if segment.text.endswith(":"):
        yield from _introduced(segments, position, query)
    before = position - 1
    while segment.block.kind == "item" and before >= 0 and segments[before].block.kind == "item":
        before -= 1
    if before >= 0 and segments[before].text.endswith(":"):
        yield before
        listed = [each.text for each in takewhile(lambda each: each.block.kind == "item", segments[before + 1 :])]
        if sum(map(len, listed)) <= _MAX_WHOLE_TEXT_CHARACTERS:
            yield from range(before + 1, before + 1 + len(listed))


def _introduced(segments: Sequence[Segment], position: int, query: Query) -> Iterator[int]:
    """Return the positions of what follows a colon: a list, code, a short table, or the best rows of a long table."""
    after = segments[position + 1 :]
    if not after or after[0].block.kind not in ("item", "row"):
        yield from (segment.position for segment in after[:1])
        return
    introduced = list(takewhile(lambda segment: segment.block.kind == after[0].block.kind, after))
    if after[0].block.kind == "row" and len(introduced) > _MAX_WHOLE_TABLE_ROWS:
        introduced.sort(key=lambda segment: (-query.coverage(segment.frequencies), segment.position))
        introduced = introduced[:_MAX_ROWS]
    yield from (segment.position for segment in introduced)


def _code(segments: Sequence[Segment], selected: Sequence[Segment], query: Query) -> Iterator[int]:
    """Return the position of the code next to the best selected segment that has any, after it if possible.

    If none has any, return the first code of the section: how to do something is often shown once, at its end.
    """
    for segment in sorted(selected, key=lambda segment: -query.coverage(segment.frequencies)):
        for position in (segment.position + 1, segment.position - 1):
            if 0 <= position < len(segments) and segments[position].block.kind == "code":
                yield position
                return
    first = next((segment.position for segment in segments if segment.block.kind == "code"), None)
    if first is not None:
        yield first
