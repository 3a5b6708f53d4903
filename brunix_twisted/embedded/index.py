"""The full-text index: SQLite FTS5 in memory."""

import math
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from typing import Final, Self

from brunix_twisted.embedded.passages import Passage
from brunix_twisted.embedded.stemming import stem

# What a word is worth in a document's title, in the headings above a passage, and in the passage itself. Measured: a
# title that counts as much as the text lifts all of its document's passages and none above the others.
_WEIGHTS: Final = (0.2, 2.0, 1.0)

# A question longer than this, in words, is searched by its first ones: SQLite bounds the depth of an expression, and
# nobody's question is about more things.
MOST_WORDS: Final = 64


class SearchUnavailableError(Exception):
    """This Python's SQLite was built without FTS5."""


class Index:
    """Passages by their words. Any thread may call any method.

    There is one connection, and a lock around it: the database lives in memory and belongs to the connection, and a
    question holds it for a fraction of a millisecond over a few hundred passages, for some milliseconds over tens of
    thousands.
    """

    def __init__(self, passages: Sequence[Passage]) -> None:
        """Index the passages; their places in the sequence are their numbers from now on.

        Raises SearchUnavailableError when SQLite has no FTS5.
        """
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        try:
            self._connection.execute(
                "CREATE VIRTUAL TABLE passages USING fts5("
                "title, headings, body, content = '', tokenize = 'porter unicode61 remove_diacritics 2')"
            )
        except sqlite3.OperationalError as error:
            self._connection.close()
            raise SearchUnavailableError(str(error)) from error
        self._connection.execute("CREATE VIRTUAL TABLE vocabulary USING fts5vocab(passages, row)")
        self._connection.execute("BEGIN")
        self._connection.executemany(
            "INSERT INTO passages (rowid, title, headings, body) VALUES (?, ?, ?, ?)",
            (
                (number, passage.title, "\n".join(passage.headings), passage.body)
                for number, passage in enumerate(passages)
            ),
        )
        self._connection.execute("COMMIT")
        self._passages_with: dict[str, int] = dict(
            self._connection.execute("SELECT term, doc FROM vocabulary").fetchall()
        )
        self._size = len(passages)

    def __enter__(self) -> Self:
        """Give the index itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Free the database. No search may follow."""
        with self._lock:
            self._connection.close()

    def rarity(self, word: str) -> float:
        """Weigh a word by how few passages have it, as BM25 does: 0 and up. One that none has weighs the most."""
        count = self._passages_with.get(stem(word), 0)
        return math.log(1 + (self._size - count + 0.5) / (count + 0.5))

    def knows(self, word: str) -> bool:
        """Tell whether any passage has the word."""
        return stem(word) in self._passages_with

    def search(self, words: Iterable[str], limit: int) -> list[tuple[int, float]]:
        """Find the passages that have any of the words: their numbers and BM25 scores (above 0), the best first.

        A word is letters and digits of any script; anything else in it is searched for and never obeyed.
        """
        quoted = ('"' + word.replace('"', '""').replace("\0", " ") + '"' for word in list(words)[:MOST_WORDS])
        expression = " OR ".join(quoted).encode("utf-8", "replace").decode()
        if not expression:
            return []
        with self._lock:
            rows = self._connection.execute(
                "SELECT rowid, -bm25(passages, ?, ?, ?) AS score FROM passages "
                "WHERE passages MATCH ? ORDER BY score DESC, rowid LIMIT ?",
                (*_WEIGHTS, expression, limit),
            )
            return [(int(number), float(score)) for number, score in rows]
