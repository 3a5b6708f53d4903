"""Questions and selections of up to a megabyte."""

import base64
from typing import TYPE_CHECKING

import pytest

from brunix_twisted._pb import brunix_pb2
from brunix_twisted.embedded.assistant import Assistant
from brunix_twisted.embedded.history import SessionHistory
from brunix_twisted.embedded.index import MAX_QUERY_TERMS
from brunix_twisted.embedded.question import MAX_CHARACTERS, considered
from brunix_twisted.embedded.retrieval import Retriever

if TYPE_CHECKING:
    from served_engine import Served

MEGABYTE = 1_000_000

# Each of these is slow with some way of reading it: repeated beginnings and openings for a regular expression that
# searches for their ends, distinct words for the stemmer, distinct combining characters for the removal of accents.
TEXTS = {
    "repeated words": "what ",
    "repeated beginnings": "how do ",
    "openings": "<file ``` [ ( { \" '",
    "spaces": " ",
    "lines": "\n",
    "one word": "a",
    "digits and full stops": "1.",
    "dashes": "-",
    "accents": "".join(f"a{chr(number)}" for number in range(0x300, 0x370)),
    "letters that become many": "\ufdfa",
    "SQL": "SELECT id, name FROM users WHERE status = 'open' AND created > now() - interval '1 day';\n",
    "log": "2026-03-01T12:00:00Z ERROR worker-7 connection reset by peer (ECONNRESET) at 10.0.0.7:5432\n",
}


def megabyte(kind: str) -> str:
    return (TEXTS[kind] * (MEGABYTE // len(TEXTS[kind]) + 1))[:MEGABYTE]


def distinct_words() -> str:
    return " ".join(f"word{number}" for number in range(110_000))[:MEGABYTE]


@pytest.mark.parametrize("kind", TEXTS)
def test_megabyte(served: "Served", kind: str) -> None:
    """A question next to a megabyte of text is answered, whatever the text is."""
    question = "What does git stash do?"
    assert served.ask(f"{question}\n{megabyte(kind)}\n{question}")


def test_megabyte_of_distinct_words(served: "Served") -> None:
    """A megabyte of distinct words is answered."""
    assert served.ask(distinct_words())


@pytest.mark.parametrize("kind", TEXTS)
def test_megabyte_is_selected(served: "Served", kind: str) -> None:
    """A question about a selection of a megabyte is answered."""
    selected = base64.b64encode(megabyte(kind).encode()).decode()
    request = brunix_pb2.AgentRequest(query="What is this?", selected_text=selected)
    assert [message.is_final for message in served.stub.AskAgent(request, timeout=20)] == [True]


def test_long_texts_are_shortened() -> None:
    """The beginning and the end of a long text are read, and as much of any longer one."""
    assert considered("short") == "short"
    text = considered(f"first {megabyte('one word')} last")
    assert text.startswith("first a")
    assert text.endswith("a last")
    assert len(text) == len(considered(f"first {megabyte('one word') * 2} last")) == MAX_CHARACTERS + 1


def test_number_of_terms_is_limited(retriever: Retriever) -> None:
    """A question with many distinct words searches for, and remembers, a limited number of them."""
    turn = Assistant(retriever, SessionHistory()).reply(distinct_words(), "s").turn
    assert len(turn.terms) <= MAX_QUERY_TERMS
