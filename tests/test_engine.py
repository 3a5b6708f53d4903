"""The engine's client, against a real gRPC server that does as the question says."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from grpc import StatusCode
from grpc_health.v1 import health_pb2

from brunix_twisted import errors
from brunix_twisted.engine import Engine, EngineCall
from brunix_twisted.errors import GatewayError, Kind
from brunix_twisted.model import EditorContext, Question
from fake_reactor import LIMIT_S
from scripted_engine import ScriptedEngine, script

Connect = Callable[..., Engine]

both_rpcs = pytest.mark.parametrize("stream", [False, True], ids=["AskAgent", "AskAgentStream"])

HANG = {"hang": True}


@pytest.fixture
def worker() -> Iterator[ThreadPoolExecutor]:
    """A thread that may block."""
    with ThreadPoolExecutor(1) as worker:
        yield worker


@pytest.fixture
def connect(worker: ThreadPoolExecutor) -> Iterator[Connect]:  # noqa: ARG001 - a client that closes lets the worker go
    """Makes clients, and closes them afterwards."""
    clients: list[Engine] = []

    def connect(target: str, timeout_s: float = LIMIT_S) -> Engine:
        clients.append(Engine(target, timeout_s))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def client(connect: Connect, engine: ScriptedEngine) -> Engine:
    """A client of the scripted engine."""
    return connect(engine.target)


def question(query: str, *, stream: bool = True, editor: EditorContext | None = None) -> Question:
    return Question(
        query=query, session_id="session", request_id="request", stream=stream, editor=editor or EditorContext()
    )


def texts(call: EngineCall) -> list[str]:
    """Run a call to its end."""
    said: list[str] = []

    def sink(text: str) -> bool:
        said.append(text)
        return True

    call.run(sink)
    return said


def failure(call: EngineCall) -> tuple[list[str], GatewayError]:
    """Run a call to its failure; what it said before, and the failure."""
    said: list[str] = []

    def sink(text: str) -> bool:
        said.append(text)
        return True

    with pytest.raises(GatewayError) as caught:
        call.run(sink)
    return said, caught.value


def test_stream(client: Engine, engine: ScriptedEngine) -> None:
    """A streamed answer arrives in the engine's own pieces, in order and complete."""
    assert texts(client.call(question(script("one", " ", "two", "", "\u2028\0\U0001f9e0")))) == [
        "one",
        " ",
        "two",
        "\u2028\0\U0001f9e0",
    ]
    assert engine.call().rpc == "AskAgentStream"


def test_whole(client: Engine, engine: ScriptedEngine) -> None:
    """A whole answer is asked for as one, and arrives complete."""
    assert texts(client.call(question(script("one", " ", "two"), stream=False))) == ["one two"]
    assert engine.call().rpc == "AskAgent"


@both_rpcs
def test_text_in_the_final_message(client: Engine, *, stream: bool) -> None:
    """An engine that puts its last words into its final message is heard to the end."""
    assert "".join(texts(client.call(question(script("almost ", {"final": "all"}), stream=stream)))) == "almost all"


def test_whole_in_several_messages(client: Engine) -> None:
    """An engine that sends a whole answer in several messages is heard to the end."""
    raw = [{"raw": message.hex()} for message in (b"\x0a\x03one", b"\x0a\x03two", b"\x0a\x05three\x18\x01")]
    assert texts(client.call(question(script(*raw), stream=False))) == ["one", "two", "three"]


@both_rpcs
def test_nothing_said(client: Engine, *, stream: bool) -> None:
    """An engine with nothing to say gives an empty answer and no error."""
    assert texts(client.call(question(script(), stream=stream))) == []


def test_long_answer(client: Engine) -> None:
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
def test_status(client: Engine, status: StatusCode, before: list[str], *, stream: bool) -> None:
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


@both_rpcs
@pytest.mark.parametrize("before", [[], ["partial"]], ids=["at once", "after text"])
def test_no_final_message(client: Engine, before: list[str], *, stream: bool) -> None:
    """An answer that the engine broke off is never taken for a complete one."""
    said, error = failure(client.call(question(script(*before, {"break_off": True}), stream=stream)))
    assert error.kind is errors.ENGINE_ERROR
    assert said == (before if stream else [])


def test_failure_after_the_final_message(client: Engine) -> None:
    """An engine that says its answer is complete and then fails has failed."""
    said, error = failure(client.call(question(script("all", {"raw": "1801"}, {"status": "DATA_LOSS"}))))
    assert error.kind is errors.ENGINE_ERROR
    assert said == ["all"]


@both_rpcs
@pytest.mark.parametrize("raw", ["0a02c328", "0a05ff", "ff"], ids=["no UTF-8", "cut off", "no message"])
def test_no_message_at_all(client: Engine, raw: str, *, stream: bool) -> None:
    """An engine that sends what is no text is an engine that failed, not a fault of the gateway's."""
    _, error = failure(client.call(question(script({"raw": raw}, "more"), stream=stream)))
    assert error.kind is errors.ENGINE_ERROR


@both_rpcs
def test_what_the_engine_is_asked(client: Engine, engine: ScriptedEngine, *, stream: bool) -> None:
    """The engine gets the question, the session and the request's id as they are, and no field that nobody sent."""
    texts(client.call(question("What is \u2028 this?", stream=stream)))
    asked = engine.call()
    assert asked.request.query == "What is \u2028 this?"
    assert asked.request.session_id == "session"
    assert [field.name for field, _ in asked.request.ListFields()] == ["query", "session_id"]
    assert asked.metadata["x-request-id"] == "request"


@pytest.mark.parametrize("name", ["editor_content", "selected_text", "extra_context", "user_info"])
@pytest.mark.parametrize("value", ["", "value"], ids=["empty", "full"])
def test_editor_on_the_wire(client: Engine, engine: ScriptedEngine, name: str, value: str) -> None:
    """What an editor sends along reaches the engine in its own field, also when it is empty, and in no other."""
    texts(client.call(question("hello", editor=EditorContext(**{name: value}))))
    request = engine.call().request
    fields = {field.name: content for field, content in request.ListFields()}
    assert fields == {"query": "hello", "session_id": "session", name: value}


def test_sink_wants_no_more(client: Engine, engine: ScriptedEngine) -> None:
    """An answer that has reached its length stops the engine too."""
    said: list[str] = []

    def sink(text: str) -> bool:
        said.append(text)
        return len(said) < 2

    client.call(question(script("a", "b", "c", HANG))).run(sink)
    assert said == ["a", "b"]
    assert engine.call().ended.wait(LIMIT_S)


def test_cancel_before_the_start(client: Engine, engine: ScriptedEngine) -> None:
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
    client: Engine, engine: ScriptedEngine, worker: ThreadPoolExecutor, before: list[str], *, stream: bool
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


def test_cancel_from_two_threads(client: Engine, engine: ScriptedEngine, worker: ThreadPoolExecutor) -> None:
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


def test_cancel_at_the_start(client: Engine, worker: ThreadPoolExecutor) -> None:
    """A caller who goes away in the very moment in which its turn comes does not keep a worker."""
    for _ in range(50):
        # Not a script that hangs until it is cancelled, for the engine may come to it only after that.
        call = client.call(question(script({"wait": "the end of the test"})))
        together = threading.Barrier(2)

        def run(call: EngineCall = call, together: threading.Barrier = together) -> None:
            together.wait(LIMIT_S)
            call.run(lambda _: True)

        running: Future[None] = worker.submit(run)
        together.wait(LIMIT_S)
        call.cancel()
        assert running.result(LIMIT_S) is None


def test_cancel_after_the_end(client: Engine) -> None:
    """A client that closes its connection after its answer makes no error."""
    call = client.call(question("hello"))
    assert texts(call) == ["hello "]
    call.cancel()
    call.cancel()


def test_cancel_within_the_sink(client: Engine, engine: ScriptedEngine) -> None:
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
    assert engine.call().ended.wait(LIMIT_S)


def test_engine_dies(client: Engine, engine: ScriptedEngine, worker: ThreadPoolExecutor) -> None:
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


def test_engine_comes_back(connect: Connect, engine: ScriptedEngine) -> None:
    """An engine that was restarted is found again without restarting the gateway."""
    client = connect(engine.target)
    assert texts(client.call(question("hello"))) == ["hello "]
    engine.stop()
    failure(client.call(question("hello")))
    again = ScriptedEngine(engine.target)
    try:
        until = time.monotonic() + LIMIT_S
        while True:
            try:
                assert texts(client.call(question("hello"))) == ["hello "]
            except GatewayError as error:
                assert error.kind is errors.ENGINE_UNAVAILABLE  # noqa: PT017 - others would not pass by themselves
                assert time.monotonic() < until
            else:
                break
    finally:
        again.stop()


def check(client: Engine, timeout_s: float = LIMIT_S) -> str | None:
    """Ask, and hold that it is told once, even when the client is closed then."""
    told: queue.Queue[str | None] = queue.Queue()
    client.check(timeout_s, told.put)
    illness = told.get(timeout=LIMIT_S)
    client.close()
    assert told.empty()
    return illness


def test_health_of_a_well_engine(client: Engine) -> None:
    """An engine that serves makes a healthy gateway."""
    assert check(client) is None


@pytest.mark.parametrize("status", ["NOT_SERVING", "UNKNOWN"])
def test_health_of_an_engine_that_says_no(client: Engine, engine: ScriptedEngine, status: str) -> None:
    """An engine that is up and does not serve makes the gateway unhealthy, with the reason."""
    engine.health.set("", health_pb2.HealthCheckResponse.ServingStatus.Value(status))
    assert check(client) == f"The engine says it is {status.lower()}"


def test_health_of_an_engine_without_the_health_service(connect: Connect) -> None:
    """An engine that knows no health service is well when it answers at all."""
    engine = ScriptedEngine(with_health=False)
    try:
        assert check(connect(engine.target)) is None
    finally:
        engine.stop()


def test_health_of_no_engine(connect: Connect, nobody: str) -> None:
    """Without an engine the gateway is unhealthy, with the reason and without addresses."""
    assert check(connect(nobody)) == "The engine cannot be reached"


def test_health_of_a_mute_engine(connect: Connect, mute: str) -> None:
    """An engine that accepts connections and says nothing makes the gateway unhealthy, in time."""
    assert check(connect(mute), 0.1) == "The engine did not answer in time"


def test_health_while_the_gateway_stops(connect: Connect, mute: str) -> None:
    """A health check under way is answered when the gateway closes its connection."""
    client = connect(mute)
    told: queue.Queue[str | None] = queue.Queue()
    client.check(LIMIT_S, told.put)
    client.close()
    assert told.get(timeout=LIMIT_S) is not None
    assert told.empty()


def test_health_while_every_call_hangs(client: Engine, engine: ScriptedEngine) -> None:
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
