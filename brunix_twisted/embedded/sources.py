"""The sources of an answer as data, for its trailing metadata: a client can then link them."""

import json
import re
from collections.abc import Collection, Iterator
from typing import Final
from urllib.parse import quote

import attrs

from brunix_twisted.embedded.passages import anchor

# The gateway has the same name: it shares no code with the engine.
METADATA: Final = "brunix-sources-bin"

# gRPC rejects responses with more than 8 KiB of metadata by default.
_MAX_BYTES: Final = 4096
_MAX_CITED_CHARACTERS: Final = 200

# A paragraph that cites, after a number if a model wrote the answer; see answers.citation() and writing.Source.name.
_CITATION: Final = re.compile(
    r"^(?:\[\d+\] )?— (?P<name>`(?P<file>[^`\n]+)`(?:, (?P<headings>[^\n]+?))?, (?:line|page|paragraph)s? \d[\d, –]*)$",
    re.MULTILINE,
)


@attrs.frozen
class Source:
    """One source, and where in the answer's text its citation is, in characters."""

    url: str
    title: str
    start: int
    end: int
    cited_text: str
    """The quotation, truncated; empty for an answer in the words of a language model."""


def sources_of(text: str, files: Collection[str], base_url: str) -> list[Source]:
    """
    Return the sources that an answer cites, in order.

    :param files: the answer's documents. A citation of another file is text that a document or a model contains.
    :param base_url: the address of the documents, to which a file's name is appended; may be empty.
    """
    return list(_sources(text, files, base_url))


def _sources(text: str, files: Collection[str], base_url: str) -> Iterator[Source]:
    after_previous = 0
    for found in _CITATION.finditer(text):
        if found["file"] not in files:
            continue
        is_written = text[found.start()] == "["
        cited = "" if is_written else text[after_previous : found.start()].strip()[:_MAX_CITED_CHARACTERS]
        after_previous = found.end()
        headings = found["headings"] or ""
        fragment = f"#{quote(anchor(headings.split(' › ')[-1]))}" if headings else ""  # noqa: RUF001 - as cited
        url = f"{base_url}{quote(found['file'])}{fragment}"
        yield Source(url, found["name"].replace("`", ""), found.start(), found.end(), cited)


def metadata(sources: list[Source]) -> tuple[tuple[str, bytes], ...]:
    """Return the trailing metadata of an answer; empty without sources. Leaves out what is too much for it."""
    for kept in (sources, [attrs.evolve(source, cited_text="") for source in sources]):
        encoded = json.dumps([attrs.asdict(source) for source in kept], ensure_ascii=False).encode()
        if len(encoded) <= _MAX_BYTES:
            return ((METADATA, encoded),) if kept else ()
    return metadata(kept[:-1])
