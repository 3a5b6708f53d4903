"""The full-text index: SQLite FTS5 in memory."""

import math
import sqlite3
import threading
import weakref
from collections.abc import Iterable, Sequence
from typing import Final, Self

from brunix_twisted.embedded.chunks import Chunk
from brunix_twisted.embedded.tokenizer import FTS5_TOKENIZER, stem

# BM25 weights of a chunk's headings, prose and code. The index only selects candidates, which are ranked again, so
# these weights have little influence.
_COLUMN_WEIGHTS: Final = (2.0, 1.0, 0.2)

# Maximum number of words in one search: SQLite limits the depth of an expression.
MAX_QUERY_TERMS: Final = 64


class SearchUnavailableError(Exception):
    """This Python's SQLite was built without FTS5."""


class Index:
    """A full-text index of chunks. Thread-safe.

    All threads share one connection, because an in-memory database belongs to its connection, and a lock protects it.
    A search holds the lock for a fraction of a millisecond with a few hundred chunks, and for some milliseconds with
    tens of thousands.
    """

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        """Index the chunks. Their positions in the sequence become their numbers.

        Raises SearchUnavailableError if SQLite lacks FTS5.
        """
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        # An index that is replaced while calls still search it is closed when the last of them has ended.
        self._close = weakref.finalize(self, self._connection.close)
        try:
            self._connection.execute(
                "CREATE VIRTUAL TABLE chunks USING fts5("
                f"headings, prose, code, content = '', tokenize = '{FTS5_TOKENIZER}')"
            )
        except sqlite3.OperationalError as error:
            self._connection.close()
            raise SearchUnavailableError(str(error)) from error
        self._connection.execute("CREATE VIRTUAL TABLE vocabulary USING fts5vocab(chunks, row)")
        self._connection.execute("BEGIN")
        self._connection.executemany(
            "INSERT INTO chunks (rowid, headings, prose, code) VALUES (?, ?, ?, ?)",
            ((number, chunk.headings, chunk.prose, chunk.code) for number, chunk in enumerate(chunks)),
        )
        self._connection.execute("COMMIT")
        vocabulary = self._connection.execute("SELECT term, doc, cnt FROM vocabulary").fetchall()
        self._document_frequencies: dict[str, int] = {term: count for term, count, _ in vocabulary}
        self._size = len(chunks)
        self.mean_length: Final = sum(count for _, _, count in vocabulary) / max(1, self._size)

    def __enter__(self) -> Self:
        """Return the index."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the index."""
        self.close()

    def close(self) -> None:
        """Free the database. Do not search afterwards."""
        with self._lock:
            self._close()

    def idf(self, word: str) -> float:
        """Return the square root of a word's inverse document frequency in BM25, at least 0.

        With the full value, one rare word would outweigh all other words of a question; the root was measured to find
        more.
        """
        return self.idf_of([stem(word)])

    def idf_of(self, stems: Iterable[str]) -> float:
        """Return the same for the most frequent of several stems; without any, the maximum."""
        count = max((self._document_frequencies.get(each, 0) for each in stems), default=0)
        return math.sqrt(math.log(1 + (self._size - count + 0.5) / (count + 0.5)))

    def has_term(self, word: str) -> bool:
        """Return whether any chunk contains the word."""
        return stem(word) in self._document_frequencies

    def search(self, words: Iterable[str], limit: int) -> list[int]:
        """Return the numbers of the chunks that contain any of the words, best first by BM25.

        FTS5's query syntax inside a word has no effect.
        """
        quoted = ('"' + word.replace('"', '""').replace("\0", " ") + '"' for word in list(words)[:MAX_QUERY_TERMS])
        expression = " OR ".join(quoted).encode("utf-8", "replace").decode()
        if not expression:
            return []
        with self._lock:
            rows = self._connection.execute(
                "SELECT rowid FROM chunks WHERE chunks MATCH ? ORDER BY bm25(chunks, ?, ?, ?), rowid LIMIT ?",
                (expression, *_COLUMN_WEIGHTS, limit),
            )
            return [int(number) for (number,) in rows]
