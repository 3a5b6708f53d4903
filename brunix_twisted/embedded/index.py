"""The full-text index: SQLite FTS5 in memory."""

import math
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from typing import Final, Self

from brunix_twisted.embedded.chunks import Part
from brunix_twisted.embedded.stemming import stem

# What a word is worth in the headings above a part, in its prose and in its code. The index only chooses what is
# weighed again, so that little depends on it.
_WEIGHTS: Final = (2.0, 1.0, 0.2)

# A question longer than this, in words, is searched by its first ones: SQLite bounds the depth of an expression, and
# nobody's question is about more things.
MOST_WORDS: Final = 64


class SearchUnavailableError(Exception):
    """This Python's SQLite was built without FTS5."""


class Index:
    """Parts of passages by their words. Any thread may call any method.

    There is one connection, and a lock around it: the database lives in memory and belongs to the connection, and a
    question holds it for a fraction of a millisecond over a few hundred parts, for some milliseconds over tens of
    thousands.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        """Index the parts; their places in the sequence are their numbers from now on.

        Raises SearchUnavailableError when SQLite has no FTS5.
        """
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        try:
            self._connection.execute(
                "CREATE VIRTUAL TABLE parts USING fts5("
                "headings, prose, code, content = '', tokenize = 'porter unicode61 remove_diacritics 2')"
            )
        except sqlite3.OperationalError as error:
            self._connection.close()
            raise SearchUnavailableError(str(error)) from error
        self._connection.execute("CREATE VIRTUAL TABLE vocabulary USING fts5vocab(parts, row)")
        self._connection.execute("BEGIN")
        self._connection.executemany(
            "INSERT INTO parts (rowid, headings, prose, code) VALUES (?, ?, ?, ?)",
            ((number, part.headings, part.prose, part.code) for number, part in enumerate(parts)),
        )
        self._connection.execute("COMMIT")
        vocabulary = self._connection.execute("SELECT term, doc, cnt FROM vocabulary").fetchall()
        self._parts_with: dict[str, int] = {term: count for term, count, _ in vocabulary}
        self._size = len(parts)
        self.mean_length: Final = sum(count for _, _, count in vocabulary) / max(1, self._size)

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
        """Weigh a word by how few parts have it: 0 and up. One that none has weighs the most.

        It is the root of what BM25 takes. Measured: the whole of it lets one rare word of a question decide, whatever
        the others say.
        """
        count = self._parts_with.get(stem(word), 0)
        return math.sqrt(math.log(1 + (self._size - count + 0.5) / (count + 0.5)))

    def knows(self, word: str) -> bool:
        """Tell whether any part has the word."""
        return stem(word) in self._parts_with

    def search(self, words: Iterable[str], limit: int) -> list[int]:
        """Find the parts that have any of the words: their numbers, the best by BM25 first.

        A word is letters and digits of any script; anything else in it is searched for and never obeyed.
        """
        quoted = ('"' + word.replace('"', '""').replace("\0", " ") + '"' for word in list(words)[:MOST_WORDS])
        expression = " OR ".join(quoted).encode("utf-8", "replace").decode()
        if not expression:
            return []
        with self._lock:
            rows = self._connection.execute(
                "SELECT rowid FROM parts WHERE parts MATCH ? ORDER BY bm25(parts, ?, ?, ?), rowid LIMIT ?",
                (expression, *_WEIGHTS, limit),
            )
            return [int(number) for (number,) in rows]
