import sqlite3
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brunix_twisted.embedded.chunks import Chunk, chunks_of
from brunix_twisted.embedded.index import Index, SearchUnavailableError
from brunix_twisted.embedded.passages import Passage
from brunix_twisted.embedded.retrieval import Retriever
from searches import find
from threads import Threads

HOSTILE = (
    '"',
    '""',
    "'",
    "*",
    "a*",
    "NEAR(",
    "NEAR(tar zip, 2)",
    "AND",
    "OR OR",
    "NOT",
    "title:tar",
    "{title headings}: x",
    "-cron",
    "^cron",
    "(",
    ")",
    "+",
    "\\",
    ";",
    "'; DROP TABLE passages; --",
    "\0",
    "\ud800",
    "",
    " ",
    "。",
    "日本語",
    "🦊",
)


def chunks_of_all(passages: tuple[Passage, ...]) -> list[Chunk]:
    return [chunk for passage in passages for chunk in chunks_of(passage)]


@pytest.mark.parametrize("word", HOSTILE)
def test_query_syntax_has_no_effect(retriever: Retriever, word: str) -> None:
    """Quotation marks and operators in a word are searched for, not interpreted."""
    find(retriever, [word, "tar"])
    assert find(retriever, ["tar"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(max_size=20), max_size=8))
def test_any_word(retriever: Retriever, some: list[str]) -> None:
    """No word makes a search fail."""
    find(retriever, some)


def test_long_question(passages: tuple[Passage, ...]) -> None:
    """A question of thousands of words is searched."""
    with Index(chunks_of_all(passages)) as index:
        assert index.search(["cron", *(f"word{number}" for number in range(5000))], 3)


def test_no_words(passages: tuple[Passage, ...]) -> None:
    """A search without words finds nothing."""
    with Index(chunks_of_all(passages)) as index:
        assert index.search([], 3) == []


def test_inflected_forms_and_accents(passages: tuple[Passage, ...]) -> None:
    """Other forms of a word, words without accents and words of headings are found."""
    with Index(chunks_of_all(passages)) as index:
        for word, heading in (("stashes", "Stashing"), ("cafe", "Latin-1"), ("checkpointing", "Checkpoints")):
            [number, *_] = index.search([word], 3)
            assert chunks_of_all(passages)[number].passage.headings[-1] == heading


def test_idf(passages: tuple[Passage, ...]) -> None:
    """Rare words weigh more than common words."""
    with Index(chunks_of_all(passages)) as index:
        assert index.idf("unheard") > index.idf("anacron") > index.idf("server") > 0
        assert index.has_term("anacron")
        assert not index.has_term("unheard")


def found(retriever: Retriever, word: str) -> list[tuple[Passage, float, float]]:
    return [(each.passage, each.score, each.confidence) for each in find(retriever, [word], 1)]


def test_threads(retriever: Retriever) -> None:
    """Several threads can search at the same time, and each gets its own result."""
    questions = ["anacron", "checkpoint", "bisect", "sighup"]
    expected = [found(retriever, word) for word in questions]
    together = threading.Barrier(8)
    wrong: list[object] = []

    def ask(number: int) -> None:
        together.wait()
        for turn in range(50):
            which = (number + turn) % len(questions)
            try:
                answer = found(retriever, questions[which])
            except sqlite3.Error as error:
                wrong.append(error)
                return
            if answer != expected[which]:
                wrong.append(answer)

    with Threads() as threads:
        for number in range(8):
            threads.start(ask, number)
    assert wrong == []


def test_sqlite_without_fts5(monkeypatch: pytest.MonkeyPatch) -> None:
    """An SQLite without FTS5 is reported as such."""

    class WithoutFts5(sqlite3.Connection):
        def execute(self, sql: str, *parameters: object) -> sqlite3.Cursor:
            del sql, parameters
            raise sqlite3.OperationalError("no such module: fts5")

    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda *arguments, **named: connect(*arguments, **named, factory=WithoutFts5)
    )
    with pytest.raises(SearchUnavailableError):
        Index(())
