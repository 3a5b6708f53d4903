import sqlite3
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brunix_twisted.embedded.chunks import Part, parts_of
from brunix_twisted.embedded.index import Index, SearchUnavailableError
from brunix_twisted.embedded.passages import Passage
from brunix_twisted.embedded.retrieval import Retriever
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


def parts_of_all(passages: tuple[Passage, ...]) -> list[Part]:
    return [part for passage in passages for part in parts_of(passage)]


@pytest.mark.parametrize("word", HOSTILE)
def test_nothing_that_is_asked_is_obeyed(retriever: Retriever, word: str) -> None:
    """A question with quotation marks or operators in it would end in an error instead of an answer."""
    retriever.find({word: 1.0, "tar": 1.0}, 3)
    assert retriever.find({"tar": 1.0}, 3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(max_size=20), max_size=8))
def test_any_words_can_be_searched(retriever: Retriever, some: list[str]) -> None:
    """Some question would end in an error instead of an answer."""
    retriever.find(dict.fromkeys(some, 1.0), 3)


def test_a_very_long_question_is_searched(passages: tuple[Passage, ...]) -> None:
    """Somebody who pastes a page into the chat would get an error."""
    with Index(parts_of_all(passages)) as index:
        assert index.search(["cron", *(f"word{number}" for number in range(5000))], 3)


def test_no_words_find_nothing(passages: tuple[Passage, ...]) -> None:
    """A question of stop words alone would end in an error."""
    with Index(parts_of_all(passages)) as index:
        assert index.search([], 3) == []


def test_forms_accents_and_headings_find(passages: tuple[Passage, ...]) -> None:
    """A question would have to use the very words of the documents."""
    with Index(parts_of_all(passages)) as index:
        for word, heading in (("stashes", "Stashing"), ("cafe", "Latin-1"), ("checkpointing", "Checkpoints")):
            [number, *_] = index.search([word], 3)
            assert parts_of_all(passages)[number].passage.headings[-1] == heading


def test_rare_words_weigh_more(passages: tuple[Passage, ...]) -> None:
    """Common words would decide what is found."""
    with Index(parts_of_all(passages)) as index:
        assert index.rarity("unheard") > index.rarity("anacron") > index.rarity("server") > 0
        assert index.knows("anacron")
        assert not index.knows("unheard")


def found(retriever: Retriever, weights: dict[str, float]) -> list[tuple[Passage, float, float]]:
    return [(each.passage, each.score, each.confidence) for each in retriever.find(weights, 1)]


def test_many_threads_search_at_once(retriever: Retriever) -> None:
    """Two people who ask at the same time would get errors, or each other's passages."""
    questions = [{"anacron": 1.0}, {"checkpoint": 1.0}, {"bisect": 1.0}, {"sighup": 1.0}]
    expected = [found(retriever, weights) for weights in questions]
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


def test_a_python_without_full_text_search_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine would stop with a traceback about a missing module of SQLite's."""

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
