"""Split texts into words and stems, as the full-text index does, and select the content terms of a question."""

import re
import sqlite3
import threading
import unicodedata
from collections.abc import Iterable
from typing import Final

FTS5_TOKENIZER: Final = "porter unicode61 remove_diacritics 2"
"""The tokenizer of the index. The stems come from it too, so that a term that finds a chunk also counts in it."""

_WORD: Final = re.compile(r"[^\W_]+")

_MAX_CACHED_STEMS: Final = 50_000

# Words that occur in questions about any subject. "off", "up", "down", "without" and similar words are not in the list,
# because they are often essential to a question.
STOP_WORDS: Final = frozenset(
    """
    a about after afterwards all along already also although am among an and any anybody anyone anything are as at
    be because becuase been being but by can cannot cannt cant come comes could d did didn do does doesn doesnt
    doing don done dont each either else ever every exactly example explain for from get gets give given go goes
    going got had happen happens has hasnt have having he hello help her here hers hey hi him his how however hows
    hte hwo i if im in instead into is isn isnt it its itself ive just know let like ll m made make makes many may
    me mean means might mine more much must my not now of on one ones only or other others ought our ours out own
    per please possible quite rather re really s same say says see seem seems shall she should show so some somebody
    someone something still such sure t teh tell than thanks that thats the their theirs them then there these they
    thing things this those though to too toward upon us use used uses using ve very waht want wants was wasn way
    ways we were what whatever whats when where wheres whether which while who whom whose whta why wich will with
    won wont work works would yet you your yours yourself
    """.split()  # noqa: SIM905 - as a list it would be two hundred lines
)


class Stemmer:
    """Stem words with SQLite, and cache the stems. Thread-safe.

    Python splits a text into words, because SQLite returns only about 150 terms per millisecond, and a search ranks
    the 3,000 terms of up to 60 chunks.
    """

    def __init__(self) -> None:
        """Start with an empty cache; connect to SQLite on first use."""
        self._stems: dict[str, str] = {}
        # All threads share one connection, because an in-memory database belongs to its connection. The lock allows
        # only one of them to use it at a time, as sqlite3 requires.
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def stems(self, words: list[str]) -> list[str]:
        """Return the stem of each word. Ask SQLite once for all that are not cached."""
        if not words:
            return []
        with self._lock:
            if unknown := set(words).difference(self._stems):
                if len(self._stems) + len(unknown) > _MAX_CACHED_STEMS:
                    self._stems.clear()
                    unknown = set(words)
                self._stems.update(self._ask_sqlite(unknown))
            return [self._stems[word] for word in words]

    def _ask_sqlite(self, words: Iterable[str]) -> dict[str, str]:
        numbered = dict(enumerate(words))
        connection = self._connection = self._connection or _connect()
        connection.execute("BEGIN")
        try:
            connection.executemany(
                "INSERT INTO words (rowid, word) VALUES (?, ?)",
                ((number, word.encode("utf-8", "replace").decode()) for number, word in numbered.items()),
            )
            rows = connection.execute("SELECT doc, term FROM stems").fetchall()
        finally:
            connection.execute("ROLLBACK")
        # A word without letters or digits known to SQLite has no stem: it stands for itself.
        return {word: word for word in numbered.values()} | {numbered[number]: stem for number, stem in rows}


def _connect() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
    connection.execute(f"CREATE VIRTUAL TABLE words USING fts5(word, tokenize = '{FTS5_TOKENIZER}')")
    connection.execute("CREATE VIRTUAL TABLE stems USING fts5vocab(words, instance)")
    return connection


_STEMMER: Final = Stemmer()


def words(text: str) -> list[str]:
    """Split a text into words as the index does: letters and digits, in lower case, without accents."""
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text)
        for character in set(text):
            if unicodedata.category(character) == "Mn":
                text = text.replace(character, "")
    return _WORD.findall(text.lower())


def stem(word: str) -> str:
    """Return the stem of a word of lower-case letters and digits. Thread-safe."""
    return _STEMMER.stems([word])[0]


def stems(text: str) -> list[str]:
    """Return the stem of every word of a text, in order, including stop words. Thread-safe."""
    return _STEMMER.stems(words(text))


def content_terms(text: str) -> tuple[str, ...]:
    """Return the words that say what a question is about, in order: no stop words, and each stem once."""
    by_stem: dict[str, str] = {}
    content = [word for word in words(text) if word not in STOP_WORDS]
    for word, stem_of_word in zip(content, _STEMMER.stems(content), strict=True):
        by_stem.setdefault(stem_of_word, word)
    return tuple(by_stem.values())
