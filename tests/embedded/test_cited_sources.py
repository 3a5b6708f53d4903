"""The sources of an answer as data: where they are in the text, what they name, and how much of them is sent."""

import json
from typing import Any

import pytest

from brunix_twisted._pb import brunix_pb2
from brunix_twisted.embedded.sources import METADATA, Source, metadata, sources_of

TEXT = (
    "Checkpoints copy pages.\n\n— `sqlite.md`, SQLite › Write-ahead log, lines 20–21\n\n"  # noqa: RUF001 - as cited
    "It is 8.\n\n— `a b.pdf`, page 3"
)


def test_quotations() -> None:
    """Each citation is found with its position, its quotation, and a link to its heading."""
    first, second = sources_of(TEXT, {"sqlite.md", "a b.pdf"}, "https://docs.example/")
    assert first.url == "https://docs.example/sqlite.md#write-ahead-log"
    assert first.title == "sqlite.md, SQLite › Write-ahead log, lines 20–21"  # noqa: RUF001 - as cited
    assert TEXT[first.start : first.end].startswith("— `sqlite.md`")
    assert TEXT[first.start : first.end].endswith("lines 20–21")
    assert first.cited_text == "Checkpoints copy pages."
    assert (second.url, second.title, second.cited_text) == (
        "https://docs.example/a%20b.pdf",
        "a b.pdf, page 3",
        "It is 8.",
    )
    assert second.end == len(TEXT)


def test_an_answer_of_a_model() -> None:
    """Its numbered sources have no quotation."""
    text = "It copies pages [1].\n\n[1] — `sqlite.md`, SQLite, line 20"
    (source,) = sources_of(text, {"sqlite.md"}, "")
    assert (source.url, source.cited_text) == ("sqlite.md#sqlite", "")
    assert text[source.start : source.end] == "[1] — `sqlite.md`, SQLite, line 20"


def test_a_citation_in_a_document_is_text() -> None:
    """A document about citations, or a model that invents one, adds no source."""
    assert sources_of(TEXT, {"other.md"}, "") == []
    assert sources_of("See — `sqlite.md`, line 2, and more", {"sqlite.md"}, "") == []


def test_the_size_is_bounded() -> None:
    """What is too much for a call's metadata is left out: first the quotations, then the last sources."""
    many = [Source(f"file-{number}.md", "t" * 50, 0, 1, "ä" * 200) for number in range(12)]
    ((key, value),) = metadata(many)
    assert key == METADATA
    assert len(value) <= 4096
    assert [each["cited_text"] for each in json.loads(value)] == [""] * 12
    ((_, value),) = metadata(many * 10)
    kept = json.loads(value)
    assert 12 < len(kept) < 120
    assert kept[0]["url"] == "file-0.md"
    assert metadata([]) == ()


@pytest.mark.parametrize("rpc", ["AskAgent", "AskAgentStream"])
def test_over_grpc(served: Any, rpc: str) -> None:  # noqa: ANN401 - see the fixture
    """The engine sends the sources after its last message; the messages are as without them."""
    call = getattr(served.stub, rpc)(
        brunix_pb2.AgentRequest(query="How do I safely copy a live SQLite file?"), timeout=20
    )
    text = "".join(message.text for message in call)
    (value,) = [value for key, value in call.trailing_metadata() if key == METADATA]
    first, *_ = json.loads(value)
    assert text[first["start"] : first["end"]].startswith("— `sqlite.md`")
    assert first["url"].startswith("sqlite.md#")
    assert first["cited_text"]


def test_no_answer(served: Any) -> None:  # noqa: ANN401 - see the fixture
    """An answer that quotes nothing has no metadata."""
    call = served.stub.AskAgent(brunix_pb2.AgentRequest(query="xylophone quantum zebra?"), timeout=20)
    list(call)
    assert METADATA not in dict(call.trailing_metadata())
