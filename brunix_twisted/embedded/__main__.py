"""``python -m brunix_twisted.embedded``: start the engine, or evaluate it."""

import os
import signal
import sys
from pathlib import Path
from typing import Final

import grpc

from brunix_twisted._pb import brunix_pb2, brunix_pb2_grpc
from brunix_twisted.embedded.assistant import Assistant
from brunix_twisted.embedded.documents import Document, read_documents
from brunix_twisted.embedded.golden import GoldenQuestion, read_golden
from brunix_twisted.embedded.history import Sessions
from brunix_twisted.embedded.index import SearchUnavailableError
from brunix_twisted.embedded.logs import log_to_standard_error
from brunix_twisted.embedded.options import OptionError, Options, complaint, parse
from brunix_twisted.embedded.pacing import Pace
from brunix_twisted.embedded.passages import Passage, passages_of_all
from brunix_twisted.embedded.retrieval import Retriever
from brunix_twisted.embedded.server import Address, EngineServer, ListenError
from brunix_twisted.embedded.servicer import Servicer

_STOPS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_EVALUATION_TIMEOUT_S: Final = 600
_NOT_STARTED: Final = 2


def main() -> int:
    """Run, and give the exit status: 0 when all went well, a stop by a signal with it, 2 when the start failed."""
    log = log_to_standard_error()
    try:
        return _run()
    finally:
        log.finish()


def _run() -> int:
    # What was ignored at the start stays so, as nohup wants it for SIGHUP. Blocked and waited for, it would be noticed.
    stops = [number for number in _STOPS if signal.getsignal(number) is not signal.SIG_IGN]
    # The gateway opens its log file again; here there is none.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        options = parse(sys.argv[1:], os.environ)
        if not options.evaluate:
            # Taken with sigwait below. Threads inherit the mask, so that a signal wakes none of gRPC's, and one that
            # comes before the engine listens is not lost.
            signal.pthread_sigmask(signal.SIG_BLOCK, stops)
        documents = _documents(options.docs)
        passages = _passages(documents, options.docs)
        golden = _golden(options.golden)
        retriever = Retriever(passages)
        server = _listening(
            Servicer(Assistant(retriever, Sessions()), golden, Pace(options.tokens_per_second)), options
        )
    except SearchUnavailableError:
        return _complain("this Python's SQLite was built without FTS5, which the engine searches with")
    except OptionError as error:
        return _complain(str(error))
    try:
        if options.evaluate:
            return _evaluate(server.address)
        _say(f"embedded engine listening on {server.address}: {len(passages)} passages of {len(documents)} documents")
        signal.sigwait(stops)
        return 0
    finally:
        try:
            server.stop()
        finally:
            retriever.close()


def _documents(folder: Path) -> tuple[Document, ...]:
    if not folder.is_dir():
        raise OptionError(complaint("docs", folder, "it must be a folder that exists"))
    try:
        return read_documents(folder)
    except OSError as error:
        unreadable = f"every document in it must be readable, and {error.filename} is not ({error.strerror})"
        raise OptionError(complaint("docs", folder, unreadable)) from error


def _passages(documents: tuple[Document, ...], folder: Path) -> tuple[Passage, ...]:
    passages = passages_of_all(documents)
    if not passages:
        raise OptionError(complaint("docs", folder, "it must hold documents with text (.md, .markdown or .txt)"))
    return passages


def _golden(path: Path) -> tuple[GoldenQuestion, ...]:
    try:
        return read_golden(path)
    except OSError as error:
        reason = f"it must be a file that can be read ({error.strerror})"
        raise OptionError(complaint("golden", path, reason)) from error
    except ValueError as error:
        raise OptionError(
            complaint("golden", path, f"it must be UTF-8, one question a line as JSON ({error})")
        ) from error


def _listening(servicer: Servicer, options: Options) -> EngineServer:
    try:
        return EngineServer(servicer, Address("127.0.0.1", 0) if options.evaluate else options.listen)
    except ListenError as error:
        reason = f"it must be host:port, of this machine and free ({error})"
        raise OptionError(complaint("listen", options.listen, reason)) from error


def _evaluate(address: Address) -> int:
    """Ask the engine over gRPC, as anybody would, and print what it says of itself."""
    # Not through a proxy that the environment names: the engine is in this process.
    with grpc.insecure_channel(str(address), [("grpc.enable_http_proxy", 0)]) as channel:
        response: brunix_pb2.EvalResponse = brunix_pb2_grpc.AssistanceEngineStub(channel).EvaluateRAG(
            brunix_pb2.EvalRequest(), timeout=_EVALUATION_TIMEOUT_S
        )
    _say(response.verdict)
    _say(f"{response.questions_evaluated} questions in {response.elapsed_seconds:.2f} s, judge: {response.judge_model}")
    return 0


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - what the command is run for


def _complain(reason: str) -> int:
    print(f"embedded engine: {reason}", file=sys.stderr)  # noqa: T201 - why the command did not start, on one line
    return _NOT_STARTED


if __name__ == "__main__":
    sys.exit(main())
