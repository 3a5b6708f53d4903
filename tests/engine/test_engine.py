"""The engine's client, against a real gRPC server that does as the question says."""

from __future__ import annotations

import ctypes
import gc
import queue
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from types import SimpleNamespace
from typing import Any, Final

import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2

from brunix_twisted import errors
from brunix_twisted.config.settings import Settings
from brunix_twisted.engine import ConnectionLimits, connection, retry
from brunix_twisted.engine.blocking import BlockingEngine
from brunix_twisted.errors import GatewayError, Kind
from brunix_twisted.model import EditorContext
from engine_clients import MAX_ANSWER_BYTES, Client, Connect, DrivenCall, question, texts
from fake_reactor import LIMIT_S, FakeReactor
from scripted_engine import ScriptedEngine, script
from threads import Threads

both_rpcs = pytest.mark.parametrize("stream", [False, True], ids=["AskAgent", "AskAgentStream"])

HANG = {"hang": True}

# Of Linux's <asm/socket.h> and <linux/bpf_common.h>; Python has no names for them.
SO_ATTACH_FILTER: Final = 26
BPF_RET: Final = 6


@pytest.fixture
def client(connect: Connect, engine: ScriptedEngine) -> Client:
    """A client of the scripted engine."""
    return connect(engine.target)


def failure(call: DrivenCall) -> tuple[list[str], GatewayError]:
    """Run a call to its failure; what it said before, and the failure."""
    said: list[str] = []

    def sink(text: str) -> bool:
        said.append(text)
        return True

    with pytest.raises(GatewayError) as caught:
        call.run(sink)
    return said, caught.value


def test_stream(client: Client, engine: ScriptedEngine) -> None:
    """A streamed answer arrives in the engine's own pieces, in order and complete."""
    assert texts(client.call(question(script("one", " ", "two", "", "\u2028\0\U0001f9e0")))) == [
        "one",
        " ",
        "two",
        "\u2028\0\U0001f9e0",
    ]
    assert engine.call().rpc == "AskAgentStream"


def test_whole(client: Client, engine: ScriptedEngine) -> None:
    """A whole answer is asked for as one, and arrives complete."""
    assert texts(client.call(question(script("one", " ", "two"), stream=False))) == ["one two"]
    assert engine.call().rpc == "AskAgent"


@both_rpcs
def test_text_in_the_final_message(client: Client, *, stream: bool) -> None:
    """An engine that puts its last words into its final message is heard to the end."""
    assert "".join(texts(client.call(question(script("almost ", {"final": "all"}), stream=stream)))) == "almost all"


def test_whole_in_several_messages(client: Client) -> None:
    """An engine that sends a whole answer in several messages is heard to the end."""
    raw = [{"raw": message.hex()} for message in (b"\x0a\x03one", b"\x0a\x03two", b"\x0a\x05three\x18\x01")]
    assert texts(client.call(question(script(*raw), stream=False))) == ["one", "two", "three"]


@both_rpcs
def test_nothing_said(client: Client, *, stream: bool) -> None:
    """An engine with nothing to say gives an empty answer and no error."""
    assert texts(client.call(question(script(), stream=stream))) == []


def test_long_answer(client: Client) -> None:
    """A whole answer beyond gRPC's usual 4 MiB arrives."""
    (text,) = texts(client.call(question(script({"repeat": ["x" * 1024, 5 * 1024]}), stream=False)))
    assert len(text) == 5 * 1024 * 1024


REFUSED = (errors.INVALID_REQUEST, 400, False)
NO_ACCESS = (errors.ENGINE_AUTH, 502, False)
FAILED = (errors.ENGINE_ERROR, 502, False)
MEANINGS = {
    StatusCode.INVALID_ARGUMENT: REFUSED,
    StatusCode.FAILED_PRECONDITION: REFUSED,
    StatusCode.OUT_OF_RANGE: REFUSED,
    StatusCode.UNAUTHENTICATED: NO_ACCESS,
    StatusCode.PERMISSION_DENIED: NO_ACCESS,
    StatusCode.NOT_FOUND: (errors.NOT_FOUND, 404, False),
    StatusCode.ALREADY_EXISTS: FAILED,
    StatusCode.RESOURCE_EXHAUSTED: (errors.RATE_LIMITED, 429, True),
    StatusCode.UNAVAILABLE: (errors.ENGINE_UNAVAILABLE, 503, True),
    StatusCode.DEADLINE_EXCEEDED: (errors.ENGINE_TIMEOUT, 504, False),
    StatusCode.CANCELLED: FAILED,
    StatusCode.ABORTED: FAILED,
    StatusCode.INTERNAL: FAILED,
    StatusCode.UNKNOWN: FAILED,
    StatusCode.DATA_LOSS: FAILED,
    StatusCode.UNIMPLEMENTED: FAILED,
}


def test_every_status_has_a_meaning() -> None:
    """No failure of an engine is left to chance."""
    assert set(MEANINGS) == set(StatusCode) - {StatusCode.OK}


@both_rpcs
@pytest.mark.parametrize("status", MEANINGS, ids=lambda status: status.name)
@pytest.mark.parametrize("before", [[], ["partial"]], ids=["at once", "after text"])
def test_status(client: Client, status: StatusCode, before: list[str], *, stream: bool) -> None:
    """Each way in which an engine fails has the HTTP status it should have, and gives nothing of its inside away."""
    said, error = failure(client.call(question(script(*before, {"status": status.name}), stream=stream)))
    kind: Kind
    kind, http_status, retry = MEANINGS[status]
    assert (error.kind, error.kind.status, error.kind.retry) == (kind, http_status, retry)
    assert said == (before if stream else [])
    assert "secret" not in error.message
    assert error.message.startswith("The engine ")
    assert error.detail == f"{status.name}: secret internals of the engine"
    assert error.param is None


def test_an_answer_beyond_the_limit(client: Client) -> None:
    """An answer that is too large is asked for again and again, for it is told as if the engine were busy."""
    _, error = failure(client.call(question(script({"letters": MAX_ANSWER_BYTES + 100_000}))))
    assert error.kind is errors.ENGINE_ERROR
    assert error.message == "The engine's answer is too large; PROXY_MAX_ANSWER_BYTES is the limit"


def test_a_question_beyond_the_engines_limit(client: Client) -> None:
    """A question that is too large for the engine is asked again and again: the client is told that it is busy."""
    _, error = failure(client.call(question("x" * 5_000_000)))
    assert error.kind is errors.INVALID_REQUEST
    assert error.message == "The question is too large for the engine"


@both_rpcs
@pytest.mark.parametrize("before", [[], ["partial"]], ids=["at once", "after text"])
def test_no_final_message(client: Client, before: list[str], *, stream: bool) -> None:
    """An answer that the engine broke off is never taken for a complete one."""
    said, error = failure(client.call(question(script(*before, {"break_off": True}), stream=stream)))
    assert error.kind is errors.ENGINE_ERROR
    assert said == (before if stream else [])


def test_failure_after_the_final_message(client: Client) -> None:
    """An engine that says its answer is complete and then fails has failed."""
    said, error = failure(client.call(question(script("all", {"raw": "1801"}, {"status": "DATA_LOSS"}))))
    assert error.kind is errors.ENGINE_ERROR
    assert said == ["all"]


@both_rpcs
def test_too_much_metadata(client: Client, *, stream: bool) -> None:
    """A client would try again what cannot succeed: for gRPC it is the same status as an engine that is busy."""
    _, error = failure(client.call(question(script("text", {"sources": "x" * 60_000}), stream=stream)))
    assert error.kind is errors.ENGINE_ERROR


@both_rpcs
@pytest.mark.parametrize("raw", ["0a02c328", "0a05ff", "ff"], ids=["no UTF-8", "cut off", "no message"])
def test_no_message_at_all(client: Client, raw: str, *, stream: bool) -> None:
    """An engine that sends what is no text is an engine that failed, not a fault of the gateway's."""
    _, error = failure(client.call(question(script({"raw": raw}, "more"), stream=stream)))
    assert error.kind is errors.ENGINE_ERROR


@both_rpcs
def test_what_the_engine_is_asked(client: Client, engine: ScriptedEngine, *, stream: bool) -> None:
    """The engine gets the question, the session and the request's id as they are, and no field that nobody sent."""
    texts(client.call(question("What is \u2028 this?", stream=stream)))
    asked = engine.call()
    assert asked.request.query == "What is \u2028 this?"
    assert asked.request.session_id == "session"
    assert [field.name for field, _ in asked.request.ListFields()] == ["query", "session_id"]
    assert asked.metadata["x-request-id"] == "request"


@pytest.mark.parametrize("name", ["editor_content", "selected_text", "extra_context", "user_info"])
@pytest.mark.parametrize("value", ["", "value"], ids=["empty", "full"])
def test_editor_on_the_wire(client: Client, engine: ScriptedEngine, name: str, value: str) -> None:
    """What an editor sends along reaches the engine in its own field, also when it is empty, and in no other."""
    texts(client.call(question("hello", editor=EditorContext(**{name: value}))))
    request = engine.call().request
    fields = {field.name: content for field, content in request.ListFields()}
    assert fields == {"query": "hello", "session_id": "session", name: value}


def test_sink_wants_no_more(client: Client, engine: ScriptedEngine) -> None:
    """An answer that has reached its length stops the engine too."""
    said: list[str] = []

    def sink(text: str) -> bool:
        said.append(text)
        return len(said) < 2

    client.call(question(script("a", "b", "c", HANG))).run(sink)
    assert said == ["a", "b"]
    assert engine.call().ended.wait(LIMIT_S)


def test_cancel_before_the_start(client: Client, engine: ScriptedEngine) -> None:
    """A question whose caller has gone before its turn is never asked."""
    call = client.call(question("hello"))
    call.cancel()
    call.cancel()
    assert texts(call) == []
    assert texts(client.call(question("another"))) == ["another "]
    assert [asked.request.query for asked in engine.calls] == ["another"]


@both_rpcs
@pytest.mark.parametrize("before", [[], ["text"]], ids=["before text", "after text"])
def test_cancel_while_the_engine_is_silent(
    client: Client, engine: ScriptedEngine, worker: ThreadPoolExecutor, before: list[str], *, stream: bool
) -> None:
    """A caller who goes away frees the worker and the engine at once, however long the engine would think."""
    call = client.call(question(script(*before, HANG), stream=stream))
    said: queue.Queue[str] = queue.Queue()

    def sink(text: str) -> bool:
        said.put(text)
        return True

    running = worker.submit(call.run, sink)
    asked = engine.call()
    if before and stream:
        assert said.get(timeout=LIMIT_S) == "text"
    assert not running.done()
    call.cancel()
    assert running.result(LIMIT_S) is None
    assert asked.ended.wait(LIMIT_S)
    call.cancel()
    assert said.empty()


@pytest.mark.parametrize("by_sink", [False, True], ids=["cancelled", "no more wanted"])
def test_cancelled_calls_are_forgotten(
    client: Client, engine: ScriptedEngine, worker: ThreadPoolExecutor, *, by_sink: bool
) -> None:
    """Each client that goes away would cost the gateway memory that it never gets back."""

    def leave(number: int) -> None:
        said = threading.Event()

        def sink(_: str) -> bool:
            said.set()
            return not by_sink

        call = client.call(question(script("text", HANG)))
        running = worker.submit(call.run, sink)
        engine.call(number)
        assert said.wait(LIMIT_S)
        if not by_sink:
            call.cancel()
        assert running.result(LIMIT_S) is None

    def kept() -> int:
        gc.collect()
        return sum(type(each).__name__ == "_CallState" for each in gc.get_objects())

    leave(0)
    after_one = kept()
    for number in range(1, 6):
        leave(number)
    assert kept() == after_one


def test_cancel_from_two_threads(client: Client, engine: ScriptedEngine, worker: ThreadPoolExecutor) -> None:
    """A client that is gone while the gateway stops does no harm."""
    call = client.call(question(script(HANG)))
    running = worker.submit(call.run, lambda _: True)
    asked = engine.call()
    together = threading.Barrier(4)

    def cancel() -> None:
        together.wait(LIMIT_S)
        call.cancel()

    with ThreadPoolExecutor(4) as others:
        cancels = [others.submit(cancel) for _ in range(4)]
    assert [cancel.result(LIMIT_S) for cancel in cancels] == [None] * 4
    assert running.result(LIMIT_S) is None
    assert asked.ended.wait(LIMIT_S)


def test_cancel_at_the_start(client: Client, worker: ThreadPoolExecutor) -> None:
    """A caller who goes away in the very moment in which its turn comes does not keep a worker."""
    for _ in range(50):
        # Not a script that hangs until it is cancelled, for the engine may come to it only after that.
        call = client.call(question(script({"wait": "the end of the test"})))
        together = threading.Barrier(2)

        def run(call: DrivenCall = call, together: threading.Barrier = together) -> None:
            together.wait(LIMIT_S)
            call.run(lambda _: True)

        running: Future[None] = worker.submit(run)
        together.wait(LIMIT_S)
        call.cancel()
        assert running.result(LIMIT_S) is None


def test_cancel_after_the_end(client: Client) -> None:
    """A client that closes its connection after its answer makes no error."""
    call = client.call(question("hello"))
    assert texts(call) == ["hello "]
    call.cancel()
    call.cancel()


def test_cancel_within_the_sink(client: Client, engine: ScriptedEngine) -> None:
    """A client that goes away while its text is handed over stops the engine."""
    call = client.call(question(script("a", HANG)))

    def sink(_: str) -> bool:
        call.cancel()
        return True

    call.run(sink)
    assert engine.call().ended.wait(LIMIT_S)


@both_rpcs
def test_deadline(connect: Connect, engine: ScriptedEngine, worker: ThreadPoolExecutor, *, stream: bool) -> None:
    """An engine that never answers is given up at the deadline, and told so."""
    call = connect(engine.target, 0.2).call(question(script("a", HANG), stream=stream))
    _, error = worker.submit(failure, call).result(LIMIT_S)
    assert error.kind is errors.ENGINE_TIMEOUT
    # On a busy machine the deadline may come before the call does.
    for asked in engine.calls:
        assert asked.ended.wait(LIMIT_S)


def test_engine_dies(client: Client, engine: ScriptedEngine, worker: ThreadPoolExecutor) -> None:
    """An engine that is gone in the middle of its answer is a failure, not an end."""
    running = worker.submit(failure, client.call(question(script("a", HANG))))
    engine.call()
    engine.stop()
    _, error = running.result(LIMIT_S)
    assert error.kind in {errors.ENGINE_UNAVAILABLE, errors.ENGINE_ERROR}


@pytest.fixture
def nobody() -> Iterator[str]:
    """A target where nobody listens, nor will."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def mute() -> Iterator[str]:
    """A target where every connection is accepted and nothing is ever said."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=100))
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def test_engine_is_down(connect: Connect, nobody: str) -> None:
    """Without an engine the caller is told at once, and to try again."""
    _, error = failure(connect(nobody).call(question("hello")))
    assert error.kind is errors.ENGINE_UNAVAILABLE


def test_engine_is_mute(connect: Connect, mute: str) -> None:
    """An engine that accepts connections and nothing else is not waited for until the deadline."""
    # A deadline far beyond the second within which it is told, and below gRPC's own twenty.
    _, error = failure(connect(mute, 10).call(question("hello")))
    assert error.kind is errors.ENGINE_UNAVAILABLE


def test_engine_comes_back(connect: Connect, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that was restarted is found again by the first question, without restarting the gateway."""
    client = connect(engine.target)
    assert texts(client.call(question("hello"))) == ["hello "]
    engine.stop()
    for _ in range(3):
        failure(client.call(question("hello")))
    # On a machine that has nothing else to do it takes a tenth of the time there is.
    monkeypatch.setattr(retry, "RECONNECT_S", LIMIT_S)
    again = ScriptedEngine(engine.target)
    try:
        assert texts(client.call(question("hello"))) == ["hello "]
    finally:
        again.stop()


def test_a_question_waits_longer_than_grpc_between_two_attempts() -> None:
    """The first question after an engine's restart fails, or one without an engine is told later than in a second."""
    options = dict(connection.OPTIONS)
    at_random = 1.2
    assert at_random * options["grpc.max_reconnect_backoff_ms"] / 1000 < retry.RECONNECT_S < 1
    assert ConnectionLimits().connect_s <= 1


class Wire:
    """A connection's way to the engine, which can fall silent without breaking, as when a machine loses its power."""

    def __init__(self, stack: ExitStack, port: int) -> None:
        self._port = port
        self._cut = threading.Event()
        self._accepted: list[socket.socket] = []
        self._connected: list[socket.socket] = []
        self._threads = stack.enter_context(Threads())
        self._listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.target = f"127.0.0.1:{self._listening.getsockname()[1]}"
        stack.callback(self._end)
        self._threads.start(self._accept)

    def _accept(self) -> None:
        with suppress(OSError):
            here, _ = self._listening.accept()
            self._accepted.append(here)
            there = socket.create_connection(("127.0.0.1", self._port))
            self._connected.append(there)
            self._threads.start(self._carry, here, there)
            self._carry(there, here)

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data_bytes := source.recv(65536):
                if not self._cut.is_set():
                    sink.sendall(data_bytes)

    def _end(self) -> None:
        # A thread that waits for a client or for bytes is not woken by closing alone.
        for side in (self._listening, *self._accepted, *self._connected):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
            side.close()

    def cut(self) -> None:
        self._cut.set()

    def drop(self) -> None:
        """Drop every packet that arrives, of open connections and of new ones."""
        for side in (self._listening, *self._accepted):
            drop_packets(side)


def drop_packets(side: socket.socket) -> None:
    """Have the kernel drop every packet for a socket, unacknowledged, as a firewall would."""
    instruction = ctypes.create_string_buffer(struct.pack("HBBI", BPF_RET, 0, 0, 0))
    program = struct.pack("HP", 1, ctypes.addressof(instruction))
    side.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


def test_the_engines_machine_is_gone(
    connect: Connect, engine: ScriptedEngine, worker: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer hangs until its deadline when the engine's machine has lost its power in mid-stream."""
    # gRPC's servers would not put up with it for long; it is long enough to lose one's connection in.
    sooner = {"grpc.keepalive_time_ms": 500}
    # A busy machine takes its time for what is sent back.
    options = tuple((name, sooner.get(name, 2000)) for name, _ in connection.KEEPALIVE_OPTIONS)
    monkeypatch.setattr(connection, "KEEPALIVE_OPTIONS", options)
    with ExitStack() as stack:
        wire = Wire(stack, engine.port)
        client = connect(wire.target, limits=ConnectionLimits(acknowledge_s=2.0))
        stack.callback(client.close)
        said: queue.Queue[str] = queue.Queue()

        def sink(text: str) -> bool:
            said.put(text)
            return True

        running = worker.submit(client.call(question(script("a", HANG))).run, sink)
        assert said.get(timeout=LIMIT_S) == "a"
        wire.cut()
        error = running.exception(LIMIT_S)
        assert isinstance(error, GatewayError)
        assert error.kind is errors.ENGINE_UNAVAILABLE


linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux drops packets for us")


@linux_only
def test_packets_to_an_open_connection_are_dropped(
    connect: Connect, engine: ScriptedEngine, worker: ThreadPoolExecutor
) -> None:
    """Questions fail soon after a firewall or a lost route swallows what is sent, also those that come later."""
    with ExitStack() as stack:
        wire = Wire(stack, engine.port)
        # A deadline below the twenty seconds that were the limit once.
        client = connect(wire.target, 15, limits=ConnectionLimits(acknowledge_s=1.0))
        stack.callback(client.close)
        assert texts(client.call(question("hello"))) == ["hello "]
        wire.drop()
        for _ in range(2):
            _, error = worker.submit(failure, client.call(question("hello"))).result(LIMIT_S)
            assert error.kind is errors.ENGINE_UNAVAILABLE


@linux_only
def test_packets_to_a_new_connection_are_dropped(connect: Connect) -> None:
    """Questions fail soon when the engine's host does not answer attempts to connect."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        drop_packets(listening)
        target = f"127.0.0.1:{listening.getsockname()[1]}"
        client = connect(target, 10, limits=ConnectionLimits(connect_s=0.2))
        for _ in range(2):
            _, error = failure(client.call(question("hello")))
            assert error.kind is errors.ENGINE_UNAVAILABLE


def test_a_name_server_does_not_answer(connect: Connect) -> None:
    """Questions fail soon when the engine's name cannot be looked up because packets are lost."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        target = f"dns://127.0.0.1:{silent.getsockname()[1]}/engine.example:50051"
        # gRPC's resolver itself gives up after 12 s.
        _, error = failure(connect(target, 8).call(question("hello")))
        assert error.kind is errors.ENGINE_UNAVAILABLE


def test_the_limits_of_a_connection() -> None:
    """The documented limits are those that a gateway without settings has."""
    settings = Settings()
    assert ConnectionLimits(settings.grpc_connect_timeout_s, settings.grpc_ack_timeout_s) == ConnectionLimits()


def test_the_engine_is_not_tested_too_often() -> None:
    """An engine with gRPC's usual settings ends every call, because the gateway tests its connection too often."""
    assert dict(connection.KEEPALIVE_OPTIONS)["grpc.keepalive_time_ms"] > 300_000  # gRPC's number


# An engine that is away.

UNAVAILABLE = {"status": "UNAVAILABLE"}


@both_rpcs
def test_asked_a_second_time(client: Client, engine: ScriptedEngine, *, stream: bool) -> None:
    """A question that met an engine just when it went down fails, though the engine is there again."""
    query = script({"first": UNAVAILABLE}, "answer")
    assert texts(client.call(question(query, stream=stream))) == ["answer"]
    assert [(asked.request.query, asked.metadata["x-request-id"]) for asked in engine.calls] == [(query, "request")] * 2


@both_rpcs
def test_asked_no_third_time(client: Client, engine: ScriptedEngine, *, stream: bool) -> None:
    """An engine in trouble gets more work than its callers give it, or a caller waits for ever."""
    _, error = failure(client.call(question(script(UNAVAILABLE), stream=stream)))
    assert error.kind is errors.ENGINE_UNAVAILABLE
    assert len(engine.calls) == 2


def test_the_second_failure_is_told(client: Client) -> None:
    """A caller is told to try again what has failed for good."""
    _, error = failure(client.call(question(script({"first": UNAVAILABLE}, {"status": "NOT_FOUND"}))))
    assert error.kind is errors.NOT_FOUND


@both_rpcs
@pytest.mark.parametrize("raw", ["0a0474657874", ""], ids=["text", "an empty message"])
def test_not_asked_again_after_a_message(client: Client, engine: ScriptedEngine, raw: str, *, stream: bool) -> None:
    """A caller sees the beginning of an answer twice, or an engine does its work twice."""
    said, error = failure(client.call(question(script({"raw": raw}, UNAVAILABLE), stream=stream)))
    assert error.kind is errors.ENGINE_UNAVAILABLE
    assert said == (["text"] if raw else [])
    assert len(engine.calls) == 1


def asks(call: DrivenCall) -> list[float]:
    """Write down the deadlines, in seconds from then, with which a question is put."""
    deadlines_s, ask = [], call.real._start_rpc  # noqa: SLF001 - what the engine is not asked shows in nothing else

    def watched(timeout_s: float, trace: object) -> Any:  # noqa: ANN401 - as it is
        deadlines_s.append(timeout_s)
        return ask(timeout_s, trace)

    call.real._start_rpc = watched  # noqa: SLF001 - likewise
    return deadlines_s


def test_one_deadline_for_both_times(client: Client) -> None:
    """A caller waits twice as long as the operator allows."""
    call = client.call(question(script({"first": UNAVAILABLE}, "answer")))
    deadlines_s = asks(call)
    texts(call)
    first_s, second_s = deadlines_s
    assert 0 < second_s < first_s == LIMIT_S


@pytest.mark.parametrize(("passed_s", "left_s"), [(9.75, 0.25), (10.0, None), (10.25, None)])
def test_what_is_left_for_the_second_time(
    monkeypatch: pytest.MonkeyPatch, passed_s: float, left_s: float | None
) -> None:
    """A question is asked again with all that is left of its time, however little, and not after its deadline."""
    clock = SimpleNamespace(monotonic=lambda: 100.0)
    monkeypatch.setattr(retry, "time", clock)
    question_time = retry.RetryBudget(10.0)
    question_time.begin()
    clock.monotonic = lambda: 100.0 + passed_s
    error = GatewayError(errors.ENGINE_UNAVAILABLE, "away")
    if left_s is not None:
        assert question_time.remaining_s(error) == left_s
        return
    with pytest.raises(GatewayError) as caught:
        question_time.remaining_s(error)
    assert caught.value is error


@pytest.mark.parametrize(
    ("kind", "received", "wait_s"),
    [
        (errors.ENGINE_UNAVAILABLE, False, retry.RECONNECT_S),
        (errors.ENGINE_UNAVAILABLE, True, None),
        (errors.ENGINE_ERROR, False, None),
        (errors.ENGINE_TIMEOUT, False, None),
    ],
)
def test_which_failures_are_worth_waiting(
    monkeypatch: pytest.MonkeyPatch,
    kind: Kind,
    received: bool,  # noqa: FBT001 - a column of the table
    wait_s: float | None,
) -> None:
    """The engine's return is waited for only if it was unreachable and has sent nothing."""
    monkeypatch.setattr(retry, "time", SimpleNamespace(monotonic=lambda: 0.0))
    question_time = retry.RetryBudget(10.0)
    question_time.begin()
    question_time.received = received
    error = GatewayError(kind, "failed")
    if wait_s is not None:
        assert question_time.wait_s(error) == wait_s
        return
    with pytest.raises(GatewayError) as caught:
        question_time.wait_s(error)
    assert caught.value is error


def test_not_asked_again_after_the_deadline(
    connect: Connect, mute: str, monkeypatch: pytest.MonkeyPatch, worker: ThreadPoolExecutor
) -> None:
    """A caller waits for the return of an engine longer than the operator allows."""
    monkeypatch.setattr(retry, "RECONNECT_S", 10 * LIMIT_S)
    # The connection is given up before this, and then the engine's return is waited for until this.
    call = connect(mute, 1.5).call(question("hello"))
    deadlines_s = asks(call)
    _, error = worker.submit(failure, call).result(LIMIT_S)
    assert error.kind is errors.ENGINE_UNAVAILABLE
    assert deadlines_s == [1.5]


def looked(call: DrivenCall) -> threading.Event:
    """Tell when a call begins to wait for the engine's return."""
    looks, look = threading.Event(), call.real._start_probe  # noqa: SLF001 - it shows in nothing else

    def watched(timeout_s: float) -> Any:  # noqa: ANN401 - as it is
        try:
            return look(timeout_s)
        finally:
            looks.set()

    call.real._start_probe = watched  # noqa: SLF001 - likewise
    return looks


def test_the_engine_is_back_while_a_question_waits(
    connect: Connect, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, worker: ThreadPoolExecutor
) -> None:
    """The first question after an engine's restart fails, only because gRPC has not looked for it again yet."""
    monkeypatch.setattr(retry, "RECONNECT_S", LIMIT_S)
    engine.stop()
    call = connect(engine.target).call(question("hello"))
    looks = looked(call)
    running = worker.submit(texts, call)
    assert looks.wait(LIMIT_S)
    again = ScriptedEngine(engine.target)
    try:
        assert running.result(LIMIT_S) == ["hello "]
        assert len(again.calls) == 1
    finally:
        again.stop()


def test_cancel_while_the_engine_is_away(
    connect: Connect, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, worker: ThreadPoolExecutor
) -> None:
    """A caller who does not wait for the engine's return keeps a worker, and is answered when nobody wants it."""
    monkeypatch.setattr(retry, "RECONNECT_S", LIMIT_S)
    engine.stop()
    client = connect(engine.target)
    call = client.call(question("nobody's"))
    looks = looked(call)
    running = worker.submit(texts, call)
    assert looks.wait(LIMIT_S)
    call.cancel()
    assert running.result(LIMIT_S) == []
    again = ScriptedEngine(engine.target)
    try:
        assert texts(client.call(question("another"))) == ["another "]
        assert [asked.request.query for asked in again.calls] == ["another"]
    finally:
        again.stop()


def test_waiting_for_a_worker_counts(connect: Connect, nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last of many who wait while the engine is away is told only when all others have waited for its return."""
    call = connect(nobody).call(question("hello"))
    looks = looked(call)
    monkeypatch.setattr(retry, "RECONNECT_S", 0)
    _, error = failure(call)
    assert error.kind is errors.ENGINE_UNAVAILABLE
    assert not looks.is_set()


def test_what_the_engine_says_is_one_line(client: Client) -> None:
    """An engine writes lines of its own choosing into the gateway's log."""
    _, error = failure(client.call(question(script({"status": ["INTERNAL", "a\nb\x1b[0m\u2028" + "c" * 2000]}))))
    assert error.detail is not None
    assert error.detail.startswith(r"INTERNAL: a\nb\x1b[0m\u2028ccc")
    assert len(error.detail) < 1100


def check(client: Client, timeout_s: float = LIMIT_S) -> str | None:
    """Ask, and hold that it is told once, even when the client is closed then."""
    told: queue.Queue[str | None] = queue.Queue()
    client.check(timeout_s, told.put)
    unhealthy_reason = told.get(timeout=LIMIT_S)
    client.close()
    assert told.empty()
    return unhealthy_reason


def test_health_of_a_well_engine(client: Client) -> None:
    """An engine that serves makes a healthy gateway."""
    assert check(client) is None


@pytest.mark.parametrize("status", ["NOT_SERVING", "UNKNOWN"])
def test_health_of_an_engine_that_says_no(client: Client, engine: ScriptedEngine, status: str) -> None:
    """An engine that is up and does not serve makes the gateway unhealthy, with the reason."""
    engine.health.set("", health_pb2.HealthCheckResponse.ServingStatus.Value(status))
    assert check(client) == f"The engine reports {status}"


def test_health_of_an_engine_without_the_health_service(connect: Connect) -> None:
    """An engine that knows no health service is well when it answers at all."""
    engine = ScriptedEngine(with_health=False)
    try:
        assert check(connect(engine.target)) is None
    finally:
        engine.stop()


def test_health_of_no_engine(connect: Connect, nobody: str) -> None:
    """Without an engine the gateway is unhealthy, with the reason and without addresses."""
    assert check(connect(nobody)) == "The engine is unreachable"


def test_health_of_a_mute_engine(connect: Connect, mute: str) -> None:
    """An engine that accepts connections and says nothing makes the gateway unhealthy, in time."""
    # The second where the attempt to connect ends before the check does, as on a busy machine.
    assert check(connect(mute), 0.1) in {"The engine did not answer in time", "The engine is unreachable"}


def test_health_while_the_gateway_stops(connect: Connect, mute: str) -> None:
    """Health checks are answered when the gateway closes its connection: one under way, and one not yet sent."""
    client = connect(mute)
    told: queue.Queue[str | None] = queue.Queue()
    for _ in range(2):
        client.check(LIMIT_S, told.put)
    client.close()
    for _ in range(2):
        assert told.get(timeout=LIMIT_S) is not None
    assert told.empty()


def test_health_of_a_gateway_that_has_stopped(mute: str) -> None:
    """A health check whose thread starts late is answered, although the connection is closed."""
    engine = BlockingEngine(FakeReactor().as_reactor, mute, LIMIT_S, workers=1)
    engine.close()
    assert engine._check(LIMIT_S) == "The gateway is stopping"  # noqa: SLF001 - what the late thread does


def test_health_while_every_call_hangs(client: Client, engine: ScriptedEngine) -> None:
    """The health check does not wait for the questions that are with the engine."""
    calls = [client.call(question(script(HANG))) for _ in range(8)]
    with ThreadPoolExecutor(len(calls)) as workers:
        running = [workers.submit(call.run, lambda _: True) for call in calls]
        engine.call(len(calls) - 1)
        told: queue.Queue[str | None] = queue.Queue()
        client.check(LIMIT_S, told.put)
        try:
            assert told.get(timeout=LIMIT_S) is None
        finally:
            for call in calls:
                call.cancel()
        assert [done.result(LIMIT_S) for done in running] == [None] * len(calls)
