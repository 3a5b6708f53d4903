"""``python -m brunix_twisted.embedded``: start the engine, or evaluate it."""

import math
import os
import signal
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

import attrs
import grpc

from brunix_twisted._pb import brunix_pb2, brunix_pb2_grpc
from brunix_twisted.embedded.assistant import Assistant
from brunix_twisted.embedded.documents import SUFFIXES
from brunix_twisted.embedded.golden import GoldenQuestion, read_golden
from brunix_twisted.embedded.history import SessionHistory
from brunix_twisted.embedded.index import SearchUnavailableError
from brunix_twisted.embedded.library import CONVERSION_BUDGET_S, Library, Snapshot
from brunix_twisted.embedded.logs import log_to_standard_error
from brunix_twisted.embedded.options import OptionError, Options, default_docs, parse
from brunix_twisted.embedded.pacing import Pace
from brunix_twisted.embedded.samples import SHIPPED
from brunix_twisted.embedded.semantic import embedder
from brunix_twisted.embedded.server import EngineServer, ListenAddress, ListenError
from brunix_twisted.embedded.servicer import Servicer
from brunix_twisted.embedded.writing import Writer

_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_EVALUATION_TIMEOUT_S: Final = 600
_START_FAILED: Final = 2


def main() -> int:
    """Run the command and return its exit status: 0 on success or after a stop signal, 2 if the start failed."""
    log = log_to_standard_error()
    try:
        return _run()
    finally:
        log.finish()


def _run() -> int:
    # Leave out signals that were ignored at the start, as nohup does with SIGHUP: sigwait would receive them.
    stop_signals = [number for number in _STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    # The gateway reopens its log file on SIGUSR1. This log goes to standard error, so there is nothing to reopen.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        options = parse(sys.argv[1:], os.environ)
        if not options.evaluate:
            # sigwait below receives these. Threads inherit the mask, so no gRPC thread is interrupted, and a signal
            # that arrives before the engine listens is not lost.
            signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals)
        golden = _golden(options.golden)
        with closing(Library(options.docs, embedder=embedder())) as library:
            snapshot = _load(library, options)
            engine = _Engine(snapshot, golden, options)
            with closing(engine):
                if options.evaluate:
                    if snapshot.retriever.semantic:
                        snapshot.retriever.semantic.ready.wait()
                    return _evaluate(engine.address)
                library.watch(engine.use)
                counts = f"{snapshot.passage_count} passages of {snapshot.document_count} documents"
                _print(f"embedded engine listening on {engine.address}: {counts}")
                signal.sigwait(stop_signals)
                return 0
    except SearchUnavailableError:
        return _fail("SQLite's FTS5 extension is missing; use a Python whose sqlite3 module includes it")
    except OptionError as error:
        return _fail(str(error))


class _Engine:
    """The server, and the documents that it answers from."""

    def __init__(self, snapshot: Snapshot, golden: tuple[GoldenQuestion, ...], options: Options) -> None:
        self._is_shipped = options.docs == default_docs()
        self._snapshot = snapshot
        self._assistant = Assistant(snapshot.retriever, SessionHistory(), self._sample_questions())
        writer = Writer(options.model) if options.model and not options.evaluate else None
        self._servicer = Servicer(self._assistant, golden, Pace(options.tokens_per_second), writer, options.docs_url)
        self._server = _start_server(self._servicer, options, self._sample_questions)
        self.address = self._server.address

    def close(self) -> None:
        """Stop the server."""
        self._server.stop()

    def use(self, snapshot: Snapshot) -> None:
        """Answer from documents that have changed."""
        self._snapshot = snapshot
        self._servicer.use(
            attrs.evolve(self._assistant, retriever=snapshot.retriever, sample_questions=self._sample_questions())
        )

    def _sample_questions(self) -> tuple[str, ...]:
        return SHIPPED if self._is_shipped else self._snapshot.sample_questions


def _load(library: Library, options: Options) -> Snapshot:
    """Read the documents. If there are many of the formats that take long, start with some of them."""
    if not options.docs.is_dir():
        raise OptionError.of("docs", options.docs, "it must be an existing folder")
    try:
        snapshot = library.load(math.inf if options.evaluate else CONVERSION_BUDGET_S)
        while snapshot is not None and snapshot.pending_count and not snapshot.passage_count:
            snapshot = library.load(CONVERSION_BUDGET_S)
    except OSError as error:
        raise OptionError.of("docs", options.docs, f"it must be a readable folder ({error.strerror})") from error
    if snapshot is None or not snapshot.passage_count:
        suffixes = ", ".join(sorted(SUFFIXES))
        raise OptionError.of("docs", options.docs, f"it must contain documents with text ({suffixes})")
    return snapshot


def _golden(path: Path) -> tuple[GoldenQuestion, ...]:
    try:
        return read_golden(path)
    except OSError as error:
        raise OptionError.of("golden", path, f"it must be a readable file ({error.strerror})") from error
    except ValueError as error:
        raise OptionError.of("golden", path, f"it must be UTF-8 with one JSON object per line ({error})") from error


def _start_server(
    servicer: Servicer, options: Options, sample_questions: Callable[[], tuple[str, ...]]
) -> EngineServer:
    address = ListenAddress("127.0.0.1", 0) if options.evaluate else options.listen
    try:
        return EngineServer(servicer, address, sample_questions)
    except ListenError as error:
        reason = f"it must be host:port, an address of this machine and a free port ({error})"
        raise OptionError.of("listen", options.listen, reason) from error


def _evaluate(address: ListenAddress) -> int:
    """Call EvaluateRAG over gRPC and print the result."""
    # The engine is in this process: do not connect through a proxy from the environment.
    with grpc.insecure_channel(str(address), [("grpc.enable_http_proxy", 0)]) as channel:
        response: brunix_pb2.EvalResponse = brunix_pb2_grpc.AssistanceEngineStub(channel).EvaluateRAG(
            brunix_pb2.EvalRequest(), timeout=_EVALUATION_TIMEOUT_S
        )
    _print(response.verdict)
    summary = f"{response.questions_evaluated} questions in {response.elapsed_seconds:.2f} s"
    _print(f"{summary}, judge: {response.judge_model}")
    return 0


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the command's output


def _fail(reason: str) -> int:
    print(f"embedded engine: {reason}", file=sys.stderr)  # noqa: T201 - why the command did not start, on one line
    return _START_FAILED


if __name__ == "__main__":
    sys.exit(main())
