import sqlite3

from hypothesis import given
from hypothesis import strategies as st

from brunix_twisted.embedded.passages import Passage
from brunix_twisted.embedded.stemming import stem
from brunix_twisted.embedded.tokenizer import words

SUFFIXES = (
    "",
    *("s", "es", "ies", "sses", "ed", "eed", "ing", "y", "e", "ll", "ational", "tional", "izer", "logi", "bli", "alli"),
    *("entli", "ousli", "ization", "ator", "iveness", "aliti", "biliti", "icate", "ative", "alize", "ical", "ful"),
    *("ness", "ance", "able", "ement", "ment", "ent", "sion", "tion", "ism", "ate", "ous", "ive", "ize"),
)


def stems_of_sqlite(some: set[str]) -> dict[str, str]:
    """Stem words with FTS5 itself: each alone in a row, read back from the index's vocabulary."""
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("CREATE VIRTUAL TABLE t USING fts5(x, tokenize = 'porter unicode61 remove_diacritics 2')")
        connection.execute("CREATE VIRTUAL TABLE v USING fts5vocab(t, instance)")
        numbered = dict(enumerate(sorted(some)))
        connection.executemany("INSERT INTO t (rowid, x) VALUES (?, ?)", numbered.items())
        return {numbered[row]: term for term, row in connection.execute("SELECT term, doc FROM v")}
    finally:
        connection.close()


def test_the_words_of_the_documents_have_the_stems_of_the_index(passages: tuple[Passage, ...]) -> None:
    """A word that finds a passage would not count inside it, and answers would be held back."""
    some = {word for passage in passages for word in words(passage.body)}
    assert stems_of_sqlite(some) == {word: stem(word) for word in some}


@given(st.sets(st.builds(str.__add__, st.text("abcdeilnostyz", min_size=1, max_size=8), st.sampled_from(SUFFIXES))))
def test_any_word_has_the_stem_of_the_index(some: set[str]) -> None:
    """A rare ending would part what is found from what is quoted."""
    assert stems_of_sqlite(some) == {word: stem(word) for word in some}


def test_inflected_forms() -> None:
    """All forms of a word have the same stem."""
    assert len({stem(word) for word in ("connect", "connects", "connected", "connecting", "connection")}) == 1


def test_words() -> None:
    """Words are in lower case and without accents."""
    assert words("Café, ÜBER_maß 2%") == ["cafe", "uber", "maß", "2"]
