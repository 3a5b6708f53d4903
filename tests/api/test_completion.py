"""What becomes of a question when its client leaves, its engine fails, or its gateway stops; over real sockets."""

from __future__ import annotations

import gc
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, cast

import grpc
import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.internet.tcp import Server
from twisted.logger import ILogObserver, LogLevel, globalLogPublisher
from zope.interface import provider

from brunix_twisted.api import routes
from brunix_twisted.api.streaming import BUFFER_BYTES, AnswerProducer
from brunix_twisted.errors import GatewayError
from brunix_twisted.http.site import GatewayRequest
from endpoints import (
    CHAT,
    COMPLETIONS,
    GENERATE,
    PATHS,
    RESPONSES,
    Streamed,
    asking,
    busy_status,
    error_in,
    limited,
    streamed,
    whole_text,
)
from fake_reactor import LIMIT_S
from gateways import ENGINE_CLIENT, RunningGateway, run_gateway, stop_gateway, waiting_bytes
from isolation import CLEAN
from log_lines import log_lines
from scripted_engine import ScriptedEngine, script
from stream_clients import (
    HANG,
    Client,
    call,
    ended,
    every_path,
    expect_answer,
    expect_busy,
    running_reactor,
    streamed_and_whole,
    unchunked,
    until,
)
from threads import Threads
from twistd import free_port

TOO_LARGE = "The engine's answer is too large; PROXY_MAX_ANSWER_BYTES is the limit"


async def until_stalled(gateway: RunningGateway) -> None:
    """Wait until the only answer's client takes nothing more and its buffer is full."""
    answers = gateway.service._completion.in_flight.entries  # noqa: SLF001 - backpressure shows in nothing else

    def stalled() -> bool:
        # The system's buffers grow while they are filled, so a pause may be a short one.
        (answer,) = (entry.answer for entry in answers)
        assert isinstance(answer, AnswerProducer)
        relay = answer._relay  # noqa: SLF001 - likewise
        return answer._paused and relay is not None and waiting_bytes(relay.call) >= BUFFER_BYTES  # noqa: SLF001 - likewise

    await until(lambda: len(answers) == 1)
    looks = 0
    while looks < 50:
        await until(stalled)
        await deferLater(cast("IReactorTime", reactor), 0.001)
        looks = looks + 1 if stalled() else 0


every_leave = pytest.mark.parametrize("leave", [Client.close, Client.reset, Client.half_close])


@pytest.fixture
def clients() -> Iterator[Callable[..., Client]]:
    """Makes clients, and closes their sockets at the end."""
    made: list[Client] = []

    def connect(gateway: RunningGateway, **arguments: Any) -> Client:  # noqa: ANN401 - as in Client
        made.append(Client(gateway, **arguments))
        return made[-1]

    yield connect
    for client in made:
        client.close()


Clients = Callable[..., Client]


@pytest.fixture(scope="module", autouse=True)
def _earlier_tests_leave_no_garbage() -> None:
    """Leave what earlier tests have left, in the same process, out of the collections after each test."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _nothing_goes_wrong_unseen() -> Iterator[None]:
    """Fail for everything that only the gateway's log would tell, such as a Deferred's error that nobody handled."""
    logged = []

    @provider(ILogObserver)
    def observe(event: dict[str, Any]) -> None:
        if event["log_level"] in {LogLevel.error, LogLevel.critical}:
            logged.append(event)

    globalLogPublisher.addObserver(observe)
    yield
    gc.collect()
    globalLogPublisher.removeObserver(observe)
    assert [str(event.get("log_failure", event)) for event in logged] == []


Serve = Callable[..., Coroutine[Any, Any, RunningGateway]]


@pytest_twisted.async_yield_fixture
async def serve(engine: ScriptedEngine) -> AsyncIterator[Serve]:
    """Starts gateways in front of the scripted engine; holds that nothing of them is left at the end."""
    before = set(running_reactor().getDelayedCalls())
    running: list[RunningGateway] = []

    async def start(**settings: Any) -> RunningGateway:  # noqa: ANN401 - as in Settings
        running.append(await run_gateway(grpc_target=engine.target, **({"drain_s": 0.0} | settings)))
        return running[-1]

    yield start
    for gateway in running:
        await stop_gateway(gateway)
    assert not [thread.name for thread in threading.enumerate() if "engine" in thread.name]
    for server in _servers():
        # What a client keeps open is for the process's end to close.
        server.abortConnection()
    # Each connection has its timeouts: they go when it goes.
    await until(lambda: not _servers() and before.issuperset(running_reactor().getDelayedCalls()))


def _servers() -> list[Server]:
    known = [*running_reactor().getReaders(), *running_reactor().getWriters()]
    return [server for server in known if isinstance(server, Server)]


# The client leaves.


@every_path
@every_leave
@pytest_twisted.ensureDeferred
async def test_client_leaves_a_stream(
    serve: Serve, engine: ScriptedEngine, clients: Clients, path: str, leave: Callable[[Client], None]
) -> None:
    """A client that closes its window in mid-answer stops the engine and makes room for the next."""
    gateway = await serve(thread_workers=1)
    client = clients(gateway).ask(path, asking(path, script("hello", HANG)))
    await client.read(b"hello")
    leave(client)
    assert await ended(await call(engine))
    await expect_answer(gateway)


@every_path
@every_leave
@streamed_and_whole
@pytest_twisted.ensureDeferred
async def test_client_leaves_before_the_first_word(  # noqa: PLR0913 - fixtures and parameters
    serve: Serve, engine: ScriptedEngine, clients: Clients, path: str, leave: Callable[[Client], None], *, stream: bool
) -> None:
    """A client that goes away while it has seen nothing yet stops the engine too, also for a whole answer."""
    gateway = await serve(thread_workers=1)
    client = clients(gateway).ask(path, asking(path, script(HANG), stream=stream))
    asked = await call(engine)
    leave(client)
    assert await ended(asked)
    await expect_answer(gateway)


@every_leave
@streamed_and_whole
@pytest_twisted.ensureDeferred
async def test_client_leaves_the_queue(
    serve: Serve, engine: ScriptedEngine, clients: Clients, leave: Callable[[Client], None], *, stream: bool
) -> None:
    """The question of a client that did not wait for its turn is never put to the engine."""
    gateway = await serve(thread_workers=1, queue_size=1)
    admission = gateway.service._admission  # noqa: SLF001 - a client that waits shows in nothing else
    first = clients(gateway).ask(CHAT, asking(CHAT, script({"wait": "go"}, "first")))
    await call(engine)
    second = clients(gateway).ask(CHAT, asking(CHAT, script("second"), stream=stream))
    await until(lambda: admission.waiting == 1)
    leave(second)
    await until(lambda: not admission.waiting)
    engine.go("go")
    assert b"[DONE]" in await first.read_all()
    await expect_answer(gateway)
    assert [asked.request.query for asked in engine.calls] == [script({"wait": "go"}, "first"), script("free")]


@pytest_twisted.ensureDeferred
async def test_client_leaves_behind_a_full_mailbox(serve: Serve, engine: ScriptedEngine, clients: Clients) -> None:
    """A client that stops reading and then goes away gives its worker back."""
    gateway = await serve(thread_workers=1)
    client = clients(gateway, receive_bytes=65536).ask(CHAT, asking(CHAT, script({"repeat": ["x" * 100_000, 1000]})))
    asked = await call(engine)
    await until_stalled(gateway)
    client.reset()
    assert await ended(asked)
    await expect_answer(gateway)


@pytest_twisted.ensureDeferred
async def test_slow_reader(serve: Serve, clients: Clients) -> None:
    """A client that starts to read late gets a long answer whole and in order."""
    gateway = await serve(thread_workers=1)
    piece = "x" * 10_000
    steps = [step for number in range(150) for step in (f"{number:06}", {"repeat": [piece, 10]})]
    text = "".join(f"{number:06}" + piece * 10 for number in range(150))
    client = clients(gateway, receive_bytes=65536).ask(GENERATE, asking(GENERATE, script(*steps)))
    await until_stalled(gateway)
    await client.read_all()
    _, _, body_bytes = client.received.partition(b"\r\n\r\n")
    assert streamed(GENERATE, unchunked(body_bytes)) == Streamed(text, complete=True, error=None)


# The engine fails.


@every_path
@streamed_and_whole
@pytest.mark.parametrize(
    ("steps", "status", "retry_after"),
    [
        ([{"status": "UNAVAILABLE"}], 503, "1"),
        ([{"status": "RESOURCE_EXHAUSTED"}], 429, "1"),
        ([{"status": "INVALID_ARGUMENT"}], 400, None),
        ([{"status": "DEADLINE_EXCEEDED"}], 504, None),
        ([{"status": "INTERNAL"}], 502, None),
        (["", {"status": "INTERNAL"}], 502, None),
        ([{"break_off": True}], 502, None),
        ([{"raw": "0a01ff"}], 502, None),
    ],
)
@pytest_twisted.ensureDeferred
async def test_engine_fails_before_the_first_word(  # noqa: PLR0913 - parameters
    serve: Serve, path: str, steps: list[object], status: int, retry_after: str | None, *, stream: bool
) -> None:
    """A question that got no answer at all has a real HTTP status and an error that the client can read."""
    gateway = await serve()
    reply = await gateway.ask("POST", path, json=asking(path, script(*steps), stream=stream))
    assert reply.status == status
    assert reply.headers["content-type"] == "application/json; charset=utf-8"
    assert reply.headers.get("retry-after") == retry_after
    assert reply.headers.get("x-should-retry") == (None if retry_after else "false")
    assert error_in(path, reply.json()).startswith("The engine ")
    assert b"secret" not in reply.body


@pytest_twisted.ensureDeferred
async def test_engine_fails_before_an_echo(serve: Serve) -> None:
    """A caller who wants the prompt repeated sees the engine's failure as an HTTP status all the same."""
    gateway = await serve()
    prompt = script({"status": "UNAVAILABLE"})
    reply = await gateway.ask("POST", COMPLETIONS, json=asking(COMPLETIONS, prompt, echo=True))
    assert reply.status == 503
    reply = await gateway.ask("POST", COMPLETIONS, json=asking(COMPLETIONS, script("a"), echo=True))
    assert streamed(COMPLETIONS, reply.body) == Streamed(script("a") + "a", complete=True, error=None)


FAILING = [
    [{"status": "INTERNAL"}],
    [{"status": "UNAVAILABLE"}],
    [{"break_off": True}],
    [{"raw": "0a01ff"}],
]


@every_path
@pytest.mark.parametrize("failing", FAILING)
@pytest_twisted.ensureDeferred
async def test_engine_fails_in_mid_stream(serve: Serve, path: str, failing: list[object]) -> None:
    """An answer that broke off is never shown as a complete one; what came of it is there."""
    gateway = await serve()
    reply = await gateway.ask("POST", path, json=asking(path, script("par", "tial", *failing)))
    assert reply.status == 200
    answer = streamed(path, reply.body)
    assert (answer.text, answer.complete) == ("partial", False)
    assert answer.error
    assert answer.error.startswith("The engine ")
    assert b"secret" not in reply.body


@every_path
@pytest.mark.parametrize("failing", FAILING)
@pytest_twisted.ensureDeferred
async def test_engine_fails_in_a_whole_answer(serve: Serve, path: str, failing: list[object]) -> None:
    """Half of a whole answer is an error with its HTTP status, and not half an answer."""
    gateway = await serve()
    # AskAgent's only message is the first that breaks off here: text and failure come in one call.
    steps = [{"raw": "0a07" + b"partial".hex()}, *failing]
    reply = await gateway.ask("POST", path, json=asking(path, script(*steps), stream=False))
    assert reply.status in {502, 503}
    assert error_in(path, reply.json()).startswith("The engine ")
    assert b"partial" not in reply.body


@pytest_twisted.ensureDeferred
async def test_engine_fails_in_the_second_of_two_answers(serve: Serve, engine: ScriptedEngine) -> None:
    """Of two prompts in one request, one answered and one failed, nothing is shown as complete."""
    gateway = await serve(thread_workers=1)
    prompts = [script("first"), script({"status": "INTERNAL"})]
    body = {"model": "brunix", "prompt": prompts}
    reply = await gateway.ask("POST", COMPLETIONS, json=body | {"stream": False})
    assert reply.status == 502
    reply = await gateway.ask("POST", COMPLETIONS, json=body | {"stream": True})
    assert reply.status == 200
    answer = streamed(COMPLETIONS, reply.body)
    assert (answer.text, answer.complete) == ("first", False)
    assert answer.error
    assert len(engine.calls) == 4
    await expect_answer(gateway)


@pytest.mark.parametrize("path", sorted(set(PATHS) - {RESPONSES}))  # that one knows no stop sequences
@streamed_and_whole
@pytest_twisted.ensureDeferred
async def test_a_stop_sequence_frees_the_worker(
    serve: Serve, engine: ScriptedEngine, path: str, *, stream: bool
) -> None:
    """An answer that has reached its stop sequence is there at once, though the engine would go on for ever."""
    gateway = await serve(thread_workers=1)
    text = {"raw": "0a07" + b"textEND".hex()}
    body = asking(path, script(text, HANG), stream=stream, **limited(path, stop=["END"]))
    reply = await gateway.ask("POST", path, json=body)
    if stream:
        assert streamed(path, reply.body) == Streamed("text", complete=True, error=None)
    else:
        assert whole_text(path, reply.json()) == "text"
    assert await ended(await call(engine))
    await expect_answer(gateway)


# There are too many questions.


@every_path
@streamed_and_whole
@pytest_twisted.ensureDeferred
async def test_queue_is_full(
    serve: Serve, engine: ScriptedEngine, clients: Clients, path: str, *, stream: bool
) -> None:
    """A question too many is turned away at once, in its own dialect, and the engine never hears of it."""
    gateway = await serve(thread_workers=1, queue_size=0)
    clients(gateway).ask(CHAT, asking(CHAT, script(HANG)))
    await call(engine)
    expect_busy(path, await gateway.ask("POST", path, json=asking(path, "hello", stream=stream)))
    assert len(engine.calls) == 1


@streamed_and_whole
@pytest_twisted.ensureDeferred
async def test_a_light_caller_next_to_a_hog(
    serve: Serve, engine: ScriptedEngine, clients: Clients, *, stream: bool
) -> None:
    """One caller with a hundred connections would have everybody else wait behind them, or rejected."""
    gateway = await serve(thread_workers=2, queue_size=80)
    for number in range(100):
        question = asking(CHAT, script({"wait": f"hog {number}"}, "text"), stream=stream)
        clients(gateway).ask(CHAT, question, key="hog")
    admission = gateway.service._admission  # noqa: SLF001 - it is what has to be full
    await until(lambda: admission.waiting == admission.queue_size)
    await call(engine, 1)
    light = clients(gateway).ask(CHAT, asking(CHAT, script("light"), stream=stream), key="light")
    await until(lambda: len(admission._queues) == 2)  # noqa: SLF001 - likewise
    ((wait, _), *_) = (json.loads(asked.request.query) for asked in engine.calls)
    engine.go(wait["wait"])
    # The other worker is the hog's still, and so would be this one.
    assert b"light" in await light.read_all()
    assert "light" in engine.calls[2].request.query


@pytest_twisted.ensureDeferred
async def test_a_caller_with_too_many_questions(serve: Serve, engine: ScriptedEngine, clients: Clients) -> None:
    """A limit for each caller is told apart from a gateway that is busy."""
    gateway = await serve(thread_workers=1, queue_per_caller=1)
    for number in range(2):
        clients(gateway).ask(CHAT, asking(CHAT, script(HANG)))
        await until(lambda: gateway.service._admission.waiting == number)  # noqa: B023, SLF001 - at once, and likewise
    with log_lines() as log:
        reply = await gateway.ask("POST", CHAT, json=asking(CHAT, "hello"))
    assert (reply.status, reply.headers["retry-after"]) == (429, "1")
    assert log.of_requests()[0].endswith(" ended=overloaded")
    assert reply.json()["error"]["message"].startswith("You have a question waiting in the queue of the gateway")
    await call(engine)
    assert len(engine.calls) == 1


@pytest_twisted.ensureDeferred
async def test_queue_takes_too_long(serve: Serve, engine: ScriptedEngine, clients: Clients) -> None:
    """A question that waits too long for its turn is turned away in the same manner."""
    gateway = await serve(thread_workers=1, queue_timeout_s=0.1)
    clients(gateway).ask(CHAT, asking(CHAT, script(HANG)))
    await call(engine)
    expect_busy(GENERATE, await gateway.ask("POST", GENERATE, json=asking(GENERATE, "hello")))
    assert len(engine.calls) == 1


@pytest_twisted.ensureDeferred
async def test_questions_wait_for_a_worker(serve: Serve, engine: ScriptedEngine, clients: Clients) -> None:
    """Questions beyond the number of workers are answered later, all of them."""
    gateway = await serve(thread_workers=1)
    asking_all = [clients(gateway).ask(GENERATE, asking(GENERATE, script({"wait": "go"}, "text"))) for _ in range(4)]
    await call(engine)
    assert len(engine.calls) == 1
    engine.go("go")
    for client in asking_all:
        assert b'"done":true' in await client.read_all()


@pytest_twisted.ensureDeferred
async def test_a_question_that_cannot_be_asked(
    serve: Serve, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake of the gateway's own is a 500 in the log and for that client, and takes no worker away for ever."""
    gateway = await serve(thread_workers=1)
    with monkeypatch.context() as broken:
        broken.setattr(gateway.service._engine, "call", None)  # noqa: SLF001 - no input is known that does it
        broken.setattr("brunix_twisted.api.completion._log", _Silence())
        for path in (*PATHS, *PATHS):
            reply = await gateway.ask("POST", path, json=asking(path, "hello"))
            assert reply.status == 500
            assert error_in(path, reply.json()) == "The gateway failed; see its log"
    assert engine.calls == []
    await expect_answer(gateway)


class _Silence:
    """A log for faults that are expected."""

    def failure(self, *_: object, **__: object) -> None:
        """Say nothing."""


# The gateway stops.


def stop(gateway: RunningGateway) -> Deferred[None]:
    """Stop a gateway, as twistd does at SIGTERM."""
    return gateway.service.stopService()


async def begin_to_stop(gateway: RunningGateway) -> Deferred[None]:
    """Stop a gateway that has answers under way; returns when it is waiting for these."""
    stopping = stop(gateway)
    await until(lambda: gateway.service._completion.in_flight.draining)  # noqa: SLF001 - /health tells it, but to a question more
    assert not stopping.called
    return stopping


@every_path
@pytest_twisted.ensureDeferred
async def test_stopping_lets_answers_end(serve: Serve, engine: ScriptedEngine, clients: Clients, path: str) -> None:
    """A restart of the gateway does not break off an answer that is nearly there."""
    gateway = await serve(drain_s=LIMIT_S)
    client = clients(gateway).ask(path, asking(path, script("one ", {"wait": "go"}, "two")))
    await client.read(b"one ")
    stopping = stop(gateway)
    assert not stopping.called
    engine.go("go")
    await stopping
    _, _, body_bytes = (await client.read_all()).partition(b"\r\n\r\n")
    assert streamed(path, unchunked(body_bytes)) == Streamed("one two", complete=True, error=None)


@every_path
@pytest_twisted.ensureDeferred
async def test_stopping_ends_a_stream(serve: Serve, engine: ScriptedEngine, clients: Clients, path: str) -> None:
    """An answer that outlasts the gateway's patience ends with an error and not with a false end."""
    gateway = await serve(drain_s=0.0)
    client = clients(gateway).ask(path, asking(path, script("partial", HANG)))
    await client.read(b"partial")
    await stop(gateway)
    assert await ended(await call(engine))
    _, _, body_bytes = (await client.read_all()).partition(b"\r\n\r\n")
    expected = Streamed("partial", complete=False, error="The gateway is stopping")
    assert streamed(path, unchunked(body_bytes)) == expected


@every_path
@streamed_and_whole
@pytest_twisted.ensureDeferred
async def test_stopping_ends_a_question(
    serve: Serve, engine: ScriptedEngine, clients: Clients, path: str, *, stream: bool
) -> None:
    """A question without a word of an answer gets a real HTTP status when the gateway stops."""
    gateway = await serve(drain_s=0.0)
    client = clients(gateway).ask(path, asking(path, script(HANG), stream=stream))
    asked = await call(engine)
    await stop(gateway)
    assert await ended(asked)
    head, _, body_bytes = (await client.read_all()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: 1\r\n" in head
    assert error_in(path, json.loads(body_bytes)) == "The gateway is stopping"


@pytest_twisted.ensureDeferred
async def test_stopping_turns_the_queue_away(serve: Serve, engine: ScriptedEngine, clients: Clients) -> None:
    """Whoever waits for a worker when the gateway stops is told at once, while others' answers end."""
    gateway = await serve(thread_workers=1, drain_s=LIMIT_S)
    first = clients(gateway).ask(GENERATE, asking(GENERATE, script("one", {"wait": "go"}, "two")))
    await first.read(b"one")
    second = clients(gateway).ask(GENERATE, asking(GENERATE, "hello"))
    await until(lambda: gateway.service._admission.waiting)  # noqa: SLF001 - shows in nothing else
    stopping = stop(gateway)
    assert (await second.read_all()).startswith(b"HTTP/1.1 503 ")
    assert not stopping.called
    engine.go("go")
    await stopping
    assert b'"done":true' in await first.read_all()
    assert len(engine.calls) == 1


@pytest.mark.parametrize("reads_on", [True, False])
@pytest_twisted.ensureDeferred
async def test_stopping_behind_a_stalled_reader(
    serve: Serve, engine: ScriptedEngine, clients: Clients, monkeypatch: pytest.MonkeyPatch, *, reads_on: bool
) -> None:
    """A client that reads no more does not keep the gateway from stopping; if it reads on, it finds the error."""
    gateway = await serve(drain_s=0.0)
    question = script({"repeat": ["x" * 100_000, 1000]})
    client = clients(gateway, receive_bytes=65536).ask(GENERATE, asking(GENERATE, question))
    asked = await call(engine)
    await until_stalled(gateway)
    if not reads_on:
        monkeypatch.setattr("brunix_twisted.app.service._FLUSH_S", 0.1)
        await stop(gateway)
        assert await ended(asked)
        return
    stopping = stop(gateway)
    assert await ended(asked)
    _, _, body_bytes = (await client.read_all()).partition(b"\r\n\r\n")
    answer = streamed(GENERATE, unchunked(body_bytes))
    assert (answer.complete, answer.error) == (False, "The gateway is stopping")
    await stopping


@pytest_twisted.ensureDeferred
async def test_stopping_between_two_prompts(serve: Serve, engine: ScriptedEngine, clients: Clients) -> None:
    """A request of several prompts does not outlast the gateway's patience by waiting for a worker in between."""
    gateway = await serve(thread_workers=1, drain_s=2)
    admission = gateway.service._admission  # noqa: SLF001 - nothing else can come between two prompts of one request
    answers = gateway.service._completion.in_flight.entries  # noqa: SLF001 - shows in nothing else
    prompts = [script("one", {"wait": "go"}), script(HANG)]
    client = clients(gateway).ask(COMPLETIONS, {"model": "brunix", "stream": True, "prompt": prompts})
    await client.read(b"one")
    stopping = await begin_to_stop(gateway)
    other: Deferred[None] = Deferred()
    ended = admission.run(b"one", lambda: other)
    engine.go("go")
    await until(lambda: not answers)
    other.callback(None)
    await ended
    await stopping
    assert b"The gateway is stopping" in await client.read_all()
    assert len(engine.calls) == 1


@every_path
@pytest_twisted.ensureDeferred
async def test_new_questions_while_stopping(serve: Serve, engine: ScriptedEngine, clients: Clients, path: str) -> None:
    """A question that comes by an open connection while the gateway stops is turned away, and not lost."""
    gateway = await serve(drain_s=LIMIT_S)
    # treq keeps the connection open for the question to come.
    await expect_answer(gateway)
    client = clients(gateway).ask(CHAT, asking(CHAT, script("one", {"wait": "go"})))
    await client.read(b"one")
    stopping = await begin_to_stop(gateway)
    reply = await gateway.ask("POST", path, json=asking(path, "hello"))
    assert reply.status == 503
    assert reply.headers["retry-after"] == "1"
    assert error_in(path, reply.json()) == "The gateway is stopping"
    engine.go("go")
    await stopping
    assert len(engine.calls) == 2


@pytest_twisted.ensureDeferred
async def test_stopping_an_idle_gateway(serve: Serve) -> None:
    """A gateway with nothing to do stops at once, and a second time without harm."""
    gateway = await serve(drain_s=LIMIT_S)
    await stop(gateway)
    await stop(gateway)


@pytest.mark.own_process
def test_the_end_of_an_answer_leaves_before_the_process_ends(engine: ScriptedEngine) -> None:
    """An answer that ended while the gateway stopped is there to its last byte, and not only to its last word."""
    port = free_port()
    process = subprocess.Popen(  # noqa: S603 - this interpreter
        [sys.executable, "-m", "twisted", "brunix", f"--listen=tcp:{port}:interface=127.0.0.1"],
        env=CLEAN | {"BRUNIX_GRPC_TARGET": engine.target},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    with process, Threads() as threads, socket.socket() as client:
        try:
            assert process.stdout
            assert any(b"Serving the model" in line for line in process.stdout), "it did not start"
            threads.start(process.stdout.read)
            client.settimeout(LIMIT_S)
            client.connect(("127.0.0.1", port))
            body_bytes = json.dumps(asking(GENERATE, script("one ", {"wait": "go"}, "two"))).encode()
            client.sendall(
                b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
                % len(body_bytes)
                + body_bytes
            )
            received = b""
            while b"one " not in received:
                received += client.recv(65536)
            process.terminate()
            # The port is closed when the gateway has begun to stop.
            until_s = time.monotonic() + LIMIT_S
            while _listens(port):
                assert time.monotonic() < until_s
            engine.go("go")
            while data_bytes := client.recv(65536):
                received += data_bytes
        finally:
            process.kill()
    _, _, body_bytes = received.partition(b"\r\n\r\n")
    assert streamed(GENERATE, unchunked(body_bytes)) == Streamed("one two", complete=True, error=None)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# The gateway fails.


@pytest_twisted.ensureDeferred
async def test_an_error_is_not_its_own_cause(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that leads to itself is never freed, and neither is the request that it holds."""
    refused: list[GatewayError] = []
    render = routes.refuse

    def refuse(request: GatewayRequest, error: GatewayError) -> bytes:
        refused.append(error)
        return render(request, error)

    gateway = await serve()
    monkeypatch.setattr(routes, "refuse", refuse)
    reply = await gateway.ask("POST", CHAT, json=asking(CHAT, script({"status": "INTERNAL"}), stream=False))
    assert reply.status == 502
    (error,) = refused
    assert error.__cause__ is not error
    assert isinstance(error.__cause__, grpc.RpcError)


@pytest.mark.skipif(ENGINE_CLIENT != "blocking", reason="only the client with threads can lack one")
@every_path
@streamed_and_whole
@pytest_twisted.ensureDeferred
async def test_no_thread_can_be_started(
    serve: Serve, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, path: str, *, stream: bool
) -> None:
    """Under a limit of processes every question costs a worker for good, until none is left and nothing is answered."""
    gateway = await serve(thread_workers=2)
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("engine_"):
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as limits:
        limits.setattr(threading.Thread, "start", refuse)
        for _ in range(3):
            reply = await gateway.ask("POST", path, json=asking(path, "hello", stream=stream))
            assert reply.status == busy_status(path)
            assert reply.headers["retry-after"] == "1"
            assert error_in(path, reply.json()) == "The gateway cannot start another thread; try again shortly"
    assert gateway.service._admission.busy == 0  # noqa: SLF001 - as said
    await expect_answer(gateway)
    # The one that is answered, and none of those that were refused.
    assert len(engine.calls) == 1


@every_path
@streamed_and_whole
@pytest_twisted.ensureDeferred
async def test_an_engine_that_never_ends(serve: Serve, engine: ScriptedEngine, path: str, *, stream: bool) -> None:
    """One question to an engine that never ends takes all the memory of the gateway, and so all its streams."""
    gateway = await serve(max_answer_bytes=100_000)
    # A whole answer comes in one message, which gRPC itself refuses only when it is larger by more than a little.
    endless = script({"repeat": ["many words " * 10, 10_000_000]}) if stream else script({"letters": 100_001})
    reply = await gateway.ask("POST", path, json=asking(path, endless, stream=stream))
    if stream:
        assert reply.status == 200
        answer = streamed(path, reply.body)
        assert (answer.complete, answer.error) == (False, TOO_LARGE)
        assert 90_000 < len(answer.text) <= 100_000
    else:
        assert reply.status == 502
        assert error_in(path, reply.json()) == TOO_LARGE
    assert await ended(await call(engine))
    await expect_answer(gateway)
