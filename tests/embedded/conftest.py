"""Fixtures: the test documents, a retriever for them, and engines that serve it over loopback."""

import json
import logging
import queue
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from brunix_twisted._pb import brunix_pb2_grpc
from brunix_twisted.embedded.assistant import Assistant
from brunix_twisted.embedded.documents import read_documents, text_document
from brunix_twisted.embedded.golden import GoldenQuestion, read_golden
from brunix_twisted.embedded.history import SessionHistory
from brunix_twisted.embedded.pacing import Pace
from brunix_twisted.embedded.passages import Passage, passages_of, passages_of_all
from brunix_twisted.embedded.retrieval import Retriever
from brunix_twisted.embedded.server import EngineServer, ListenAddress
from brunix_twisted.embedded.servicer import Servicer
from served_engine import Served

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def corpus() -> Path:
    return HERE / "corpus"


@pytest.fixture(scope="session")
def passages(corpus: Path) -> tuple[Passage, ...]:
    return passages_of_all(read_documents(corpus))


@pytest.fixture(scope="session")
def retriever(passages: tuple[Passage, ...]) -> Iterator[Retriever]:
    retriever = Retriever(passages)
    yield retriever
    retriever.close()


@pytest.fixture(scope="session")
def questions_file() -> Path:
    return HERE / "questions.jsonl"


@pytest.fixture(scope="session")
def questions(questions_file: Path) -> tuple[GoldenQuestion, ...]:
    return read_golden(questions_file)


@pytest.fixture
def serve(retriever: Retriever, questions: tuple[GoldenQuestion, ...]) -> Iterator[Callable[..., Served]]:
    """Return a function that serves the retriever at a number of tokens per second; 0 means no limit."""
    started: list[Served] = []

    def start(tokens_per_second: float = 0) -> Served:
        sessions = SessionHistory()
        servicer = Servicer(Assistant(retriever, sessions), questions, Pace(tokens_per_second))
        server = EngineServer(servicer, ListenAddress("127.0.0.1", 0))
        channel = grpc.insecure_channel(str(server.address))
        started.append(Served(server, channel, brunix_pb2_grpc.AssistanceEngineStub(channel), sessions))
        return started[-1]

    yield start
    for served in started:
        served.channel.close()
        served.server.stop(0)


@pytest.fixture
def served(serve: Callable[..., Served]) -> Served:
    return serve()


@pytest.fixture
def log_lines() -> Iterator[queue.SimpleQueue[str]]:
    """Return the queue of lines that the engine logs from now on, one per ended call."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.put(record.getMessage())

    log = logging.getLogger("brunix.embedded")
    handler = Keep()
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield lines
    log.removeHandler(handler)
    log.setLevel(before)


@pytest.fixture
def split() -> Callable[..., tuple[Passage, ...]]:
    """Return a function that splits a text into passages."""

    def passages(text: str, source: str = "page.md") -> tuple[Passage, ...]:
        return passages_of(text_document(source, text))

    return passages


@pytest.fixture
def golden_line() -> Callable[..., str]:
    """Return a function that writes one line of a golden file, with the given fields changed."""

    def line(**other: object) -> str:
        usual = {"id": "1", "category": "c", "question": "q?", "answer": "a", "source": "s.md"}
        return json.dumps(usual | other)

    return line
