import sqlite3
import threading
from collections import Counter
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brunix_twisted.embedded import tokenizer
from brunix_twisted.embedded.chunks import chunks_of
from brunix_twisted.embedded.passages import Passage
from brunix_twisted.embedded.tokenizer import FTS5_TOKENIZER, Stemmer, content_terms, stem, stems, words
from threads import Threads


def test_terms_are_those_of_the_index(passages: tuple[Passage, ...]) -> None:
    """The documents have the same terms here as in the full-text index, equally often."""
    texts = [chunk.text for passage in passages for chunk in chunks_of(passage)]
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"CREATE VIRTUAL TABLE t USING fts5(x, tokenize = '{FTS5_TOKENIZER}')")
        connection.execute("CREATE VIRTUAL TABLE v USING fts5vocab(t, row)")
        connection.executemany("INSERT INTO t (x) VALUES (?)", ((text,) for text in texts))
        indexed = dict(connection.execute("SELECT term, cnt FROM v"))
    assert Counter(term for text in texts for term in stems(text)) == indexed


def test_inflected_forms() -> None:
    """All forms of a word have the same stem."""
    assert set(stems("connect connects connected connecting connection")) == {"connect"}
    assert [stem(word) for word in ("go", "proxies", "x" * 65 + "ing")] == ["go", "proxi", "x" * 65 + "ing"]


def test_words() -> None:
    """Words are in lower case and without accents."""
    assert words("Café, ÜBER_maß 2%") == ["cafe", "uber", "maß", "2"]


def test_content_terms() -> None:
    """Stop words are left out, and each stem is returned once, as the first of its words."""
    assert content_terms("How do the workers work with a worker, and which workers?") == ("workers",)


@given(st.text())
def test_any_text_has_stems(text: str) -> None:
    """Every word has a stem, also if SQLite does not know its letters."""
    assert len(stems(text)) == len(words(text))


@pytest.mark.parametrize("word", ["", " ", "\0", "\ud800", "🦊"])
def test_not_a_word(word: str) -> None:
    """A text that SQLite finds no word in is its own stem."""
    assert stem(word) == word


def test_full_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stems are correct when the cache is full, and it does not grow further."""
    monkeypatch.setattr(tokenizer, "_MAX_CACHED_STEMS", 3)
    stemmer = Stemmer()
    for _ in range(2):
        for word in ("ports", "hosts", "names", "paths"):
            assert stemmer.stems([word, "lamps"]) == [word.removesuffix("s"), "lamp"]
    assert len(stemmer._stems) <= 3  # noqa: SLF001 - the cache


def test_threads() -> None:
    """Several threads can stem at the same time, and each gets its own result."""
    stemmer = Stemmer()
    together = threading.Barrier(8)
    wrong: list[list[str]] = []

    def use(number: int) -> None:
        together.wait()
        for each in range(200):
            name = f"t{number}n{each}"
            found = stemmer.stems([f"{name}running", "threads", f"{name}es"])
            if found != [f"{name}run", "thread", f"{name}e"]:
                wrong.append(found)

    with Threads() as threads:
        for number in range(8):
            threads.start(use, number)
    assert wrong == []
