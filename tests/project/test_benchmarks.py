"""What the benchmark makes of its measurements, and that its parts speak the protocols they claim to."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import attrs
import grpc
import pytest

import engine_stub
import figures
import goals
import load
import measure
import openai_stub
import pages
import processes
import report
from brunix_twisted._pb import brunix_pb2, brunix_pb2_grpc
from jobs import WIRES, Job
from results import KEPT, thinned
from servers import ROOT
from threads import Threads
from variants import Behind, VariantError, variant
from workloads import AGAIN, FORMS, Workload, pick, plan

BEHIND = Behind(1, 2, Path())

# Statistics


def test_spread() -> None:
    """The table would show another middle, or other quartiles, than were measured."""
    assert figures.spread([4, 1, 3, 2, 5]) == figures.Spread(3, 2, 4, 5)
    assert figures.spread([7.0]) == figures.Spread(7, 7, 7, 1)


def test_quantiles() -> None:
    """A distribution's plot would be cut off, or moved."""
    found = figures.quantiles(list(range(1001)))
    assert len(found) == 101
    assert (found[0], found[50], found[99], found[100]) == (0, 500, 990, 1000)
    assert figures.quantiles([]) == []


def test_paired() -> None:
    """A noisy round would be compared with another round, in which the machine was calm."""
    found = figures.paired([1, 8, 4], [8, 4, 2])
    assert found is not None
    assert (found.median, found.low, found.high, found.count) == (2, 1.0625, 2, 3)


def test_interval() -> None:
    """The interval would say more, or less, than the rounds do."""
    ratios = [0.9, 1.0, 1.1, 1.0, 0.95, 1.05, 1.0, 1.2, 0.8, 1.0]
    found = figures.paired(ratios, [1.0] * len(ratios))
    assert found is not None
    assert 0.9 <= found.sure_low <= found.median == 1 <= found.sure_high <= 1.1


def test_nothing_to_compare() -> None:
    """The benchmark would end with a division by zero."""
    assert figures.paired([1.0], [0.0]) is None
    assert figures.paired([], []) is None


@pytest.mark.parametrize(("value", "shown"), [(12345.6, "12,346"), (99.94, "99.9"), (1.234, "1.23"), (0, "0.00")])
def test_number(value: float, shown: str) -> None:
    """A figure would be shown with digits that mean nothing, or without those that do."""
    assert figures.number(value) == shown


# Goals


def rounds(workload: str, **variants: list[dict[str, float]]) -> goals.Seen:
    return {workload: {name.replace("_plus", "+"): each for name, each in variants.items()}}


def cpu(*values: float) -> list[dict[str, float]]:
    return [{"cpu_us_per_token": value} for value in values]


def goal(what: str) -> goals.Goal:
    (found,) = (each for each in goals.GOALS if each.what.startswith(what))
    return found


@pytest.mark.parametrize(
    ("seen", "met"),
    [
        (rounds("paced-500", gateway=cpu(60, 54), A=cpu(100, 100), A_plus=cpu(80, 72)), "yes"),
        (rounds("paced-500", gateway=cpu(70, 70), A=cpu(100, 100), A_plus=cpu(100, 100)), "no"),
        (rounds("paced-500", gateway=cpu(60, 60), A=cpu(100, 100), A_plus=cpu(60, 60)), "no"),
        (rounds("paced-500", gateway=cpu(60, 60), A=cpu(100, 100)), "not measured"),
        (rounds("paced-500", gateway=cpu(70, 70), A=cpu(100, 100)), "no"),
        (rounds("paced-500", gateway=cpu(60), A=cpu(100, 100), A_plus=cpu(100, 100)), "not measured"),
        ({}, "not measured"),
    ],
    ids=["met", "missed", "one missed", "one not measured", "missed already", "unequal rounds", "nothing"],
)
def test_met(seen: goals.Seen, met: str) -> None:
    """A goal would be said to be met that is not, or the other way round."""
    assert goals.judge(goal("CPU a token, 500"), seen).met == met


def test_measured_beside_the_goal() -> None:
    """The table would not show what was measured."""
    row = goals.judge(goal("CPU a token, 500"), rounds("paced-500", gateway=cpu(60, 60), A=cpu(100, 100)))
    assert row.measured == "0.60 × A (0.60 – 0.60)"


def test_interval_beside_the_goal() -> None:
    """The reader would not see how sure a median is, or be shown an interval of two rounds."""
    times = [50.0, 60, 60, 60, 70]
    row = goals.judge(goal("CPU a token, 500"), rounds("paced-500", gateway=cpu(*times), A=cpu(*[100] * 5)))
    assert row.measured == "0.60 × A (0.60 – 0.60) [0.50 – 0.70]"


def test_every_answer_counts() -> None:
    """A thousand streams would be said to be complete although some were not."""
    found = goal("1,000 streams at 20/s, two")
    whole, broken = {"complete": 1000, "late_ms": 7.0}, {"complete": 999, "late_ms": 7.0}
    assert goals.judge(found, {"paced-1000": {"two": [whole, whole]}}).measured == "all complete, 7.00 ms late"
    assert goals.judge(found, {"paced-1000": {"two": [whole, broken]}}).met == "no"


def test_what_is_added() -> None:
    """LiteLLM would be blamed for the time of its stub, or the gateway for that of the engine."""
    times = {"gateway": 1.5, "engine": 0.5, "litellm": 40.1, "stub": 0.1}
    seen = {"sequential": {name: [{"first_ms": value}] for name, value in times.items()}}
    row = goals.judge(goal("added latency"), seen)
    assert (row.measured, row.met) == ("0.025 × (1.00 of 40.0 ms)", "yes")


def everything(workload: Workload) -> dict[str, Any]:
    """Make up figures that differ from variant to variant."""
    return {
        name: [dict.fromkeys(workload.shown, 1.0 + number)] * workload.rounds
        for number, name in enumerate(workload.variants)
    }


@pytest.mark.parametrize("form", FORMS)
def test_every_goal_is_measured(form: str) -> None:
    """A row of the table would stay empty however long the benchmark runs."""
    seen = {workload.name: everything(workload) for workload in plan(form).values()}
    assert [row.what for row in report.rows(seen) if row.met == "not measured"] == []


@pytest.mark.parametrize("form", FORMS)
def test_every_figure_has_its_words(form: str) -> None:
    """The benchmark would end with an error after it has measured."""
    for workload in plan(form).values():
        assert set(workload.shown) <= set(report.LABELS)


def test_noise() -> None:
    """The machine's noise would not be told."""
    (workload,) = pick("quick", ["whole-20"])
    seen = {"whole-20": {"gateway": [{"requests_per_s": 100.0}], AGAIN: [{"requests_per_s": 90.0}]}}
    (line,) = report.noise(seen, [workload])
    assert line == "The gateway beside itself, whole-20, answers/s: 0.90 × (0.90 – 0.90)"


def test_proof() -> None:
    """It would be said that the engine, or the client, limits nothing, whatever was measured."""
    busy = {"tokens_per_s": 50_000.0, "engine_cpu_share": 0.1, "client_cpu_share": 0.2}
    seen = {
        "stream-flat-1": {"engine": [{**busy, "client_cpu_share": 1.0}]},
        "stream-flat-20": {
            "gateway": [{**busy, "tokens_per_s": 100_000.0}],
            "stub": [{**busy, "engine_cpu_share": 1.0}],
        },
    }
    engine, client, shares = report.proof(seen)
    assert "a core sends 500,000 tokens/s, 5.0 × the most" in engine
    assert client.startswith("The load client took 50,000 tokens/s from the stub, 0.5 × the most")
    assert shares.endswith("more than 10% of a core, or the load client more than 20%.")


# The page

ONE_RUN: dict[str, Any] = {
    "date": "2027-01-01",
    "command": "make bench",
    "elapsed_s": 180.0,
    "machine": {"cpu": "a CPU", "cores": 2, "system": "Linux", "python": "3.11.0", "load_average": 0.5},
    "versions": {"klein": "1"},
    "goals": [{"what": "speed", "goal": "more", "measured": "enough", "met": "yes"}],
    "noise": ["little"],
    "proof": [],
    "workloads": {
        "whole-20": {
            "workload": {"title": "whole answers"},
            "rounds": {"gateway": [{"requests_per_s": 90.0}, {"requests_per_s": 110.0}], "A": []},
        }
    },
}


def test_page() -> None:
    """The documentation would show other figures than were measured."""
    text = pages.measured(ONE_RUN, {"whole-20": ("requests_per_s",)}, [ROOT / "benchmarks/results/quick-costs.svg"])
    assert "| speed | more | enough | yes |" in text
    assert "| `whole-20`: whole answers | answers/s | 100 (95.0 – 105) | – | – | – | – |" in text
    assert "](../benchmarks/results/quick-costs.svg)" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in tables} == {5, 8}


def test_page_is_written_anew() -> None:
    """Figures of an older run would stay beside the new ones, or what people wrote be lost."""
    page = f"above\n{pages.BEGIN}\n\nold\n\n{pages.END}\nbelow\n"
    assert pages.put(pages.put(page, "new"), "newer") == page.replace("old", "newer")
    with pytest.raises(ValueError, match="needs these two lines"):
        pages.put("a page", "new")


def test_page_has_its_place() -> None:
    """``--write-docs`` would fail after three minutes."""
    assert "text" in pages.put(pages.PAGE.read_text("utf-8"), "text")


def test_what_is_kept() -> None:
    """The file of the results would be too large to keep, or lack a figure."""
    kept = thinned({"late_ms": 1.23456789, "complete": 3, "late_percentiles_ms": [float(each) for each in range(101)]})
    assert kept == {"late_ms": 1.2346, "complete": 3, "late_percentiles_ms": list(KEPT)}


# Measurements


def mark(said: dict[str, Any], cpu_s: float, switches: dict[int, tuple[int, int]], engine_s: float) -> measure.Mark:
    usage = processes.Usage(
        at_s=said["at_s"], cpu_s=cpu_s, switches=switches, resident_bytes=2 * measure.KB**2, threads=2
    )
    return measure.Mark(said, usage, engine_s, client_s=0)


def test_between_two_marks() -> None:
    """CPU, switches or speed would be counted for other tokens than those that came meanwhile."""
    (workload,) = pick("quick", ["stream-flat-20"])
    begin = mark({"at_s": 1.0, "tokens": 100, "requests": 1}, 10.0, {7: (1000, 500)}, 5.0)
    # A thread that was there before, and one that is new; a third has ended.
    end = mark({"at_s": 3.0, "tokens": 1100, "requests": 3}, 10.5, {7: (1900, 700), 8: (100, 50)}, 5.5)
    found = measure.between(begin, end, workload)
    assert (found["tokens_per_s"], found["requests_per_s"]) == (500, 1)
    assert (found["cpu_us_per_token"], found["cpu_us_per_request"]) == (500, 250_000)
    assert (found["voluntary_per_token"], found["involuntary_per_token"]) == (1, 0.25)
    assert (found["cpu_share"], found["engine_cpu_share"], found["resident_mb"]) == (0.25, 0.25, 2)


def test_no_token_in_time() -> None:
    """A server that is too slow for any token would end the benchmark with a division by zero."""
    (workload,) = pick("quick", ["paced-500"])
    begin, end = (mark({"at_s": at_s, "tokens": 0, "requests": 0}, 1.0, {}, 0.0) for at_s in (1.0, 2.0))
    found = measure.between(begin, end, workload)
    assert found["tokens_per_s"] == 0
    assert "cpu_us_per_token" not in found


# Variants and workloads


def test_variant_of_another_checkout(tmp_path: Path) -> None:
    """Two checkouts could not be compared, or a path of the machine would be published."""
    other = tmp_path / "other"
    found = variant(f"gateway@{other}+PROXY_BUFFER_BYTES=4096", more=(("PROXY_DRAIN_S", "1"),))
    assert found.name == "gateway@other+PROXY_BUFFER_BYTES=4096"
    environment = found.environment()
    assert environment["PYTHONPATH"] == str(other)
    assert (environment["PROXY_BUFFER_BYTES"], environment["PROXY_DRAIN_S"]) == ("4096", "1")


def test_the_same_once_more() -> None:
    """The noise would be measured between two different things."""
    own, again = variant("A+"), variant("A+'")
    assert own.name != again.name
    assert own.command(80, BEHIND, 20) == again.command(80, BEHIND, 20)


def test_reactor() -> None:
    """The engine client without threads would be measured on a reactor that it cannot run on."""
    assert "--reactor=asyncio" in variant("aio").command(80, BEHIND, 20)
    assert "--reactor=asyncio" not in variant("gateway").command(80, BEHIND, 20)


@pytest.mark.parametrize("name", ["B", "gateway+PROXY_DRAIN_S", ""])
def test_unknown_variant(name: str) -> None:
    """Somebody who mistypes would measure something else."""
    with pytest.raises(VariantError, match="no variant is called"):
        variant(name)


def test_a_setting_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variant would be measured as if its setting had had an effect."""
    monkeypatch.setenv("PROXY_DRAIN_S", "not a number")  # of whoever runs it; not the gateway's that is measured
    (workload,) = pick("quick", ["whole-20"])
    assert variant("gateway+PROXY_DRAIN_S=1").obstacle(workload) is None
    assert variant("gateway+PROXY_NO_SUCH=1").obstacle(workload) == "this gateway has no setting PROXY_NO_SUCH"


def test_a_stub_paces_nothing() -> None:
    """Something would be measured that cannot do what is asked."""
    (paced,) = pick("quick", ["paced-100"])
    assert variant("stub").obstacle(paced) is not None
    assert variant("engine").obstacle(paced) is None


# Processes


def test_usage() -> None:
    """The CPU time, the memory or the context switches of a server would be wrong."""
    begin = processes.usage(processes.tree(os.getpid()))
    done = threading.Event()
    with Threads() as threads:
        threads.start(done.wait)
        while time.thread_time() == begin.at_s:  # spends some
            pass
        end = processes.usage(processes.tree(os.getpid()))
        done.set()
    assert end.cpu_s > begin.cpu_s > 0
    assert end.threads > begin.threads
    assert end.resident_bytes > 1_000_000
    voluntary, involuntary = end.switches_since(begin)
    assert voluntary >= 1  # the thread's, which waits
    assert involuntary >= 0


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ("12345,,instructions:u,852185,100.00,,\n", 12345),
        ("0.52,msec,task-clock,1,100.00,,\n", 0.52),
        ("<not supported>,,instructions,0,100.00,,\n", None),
        ("<not counted>,,instructions,0,0.00,,\n", None),
        ("12 of them were lost\n", None),
        ("", None),
    ],
)
def test_counted(said: str, number: float | None) -> None:
    """A machine that counts no instructions would be said to have counted some, or the other way round."""
    assert processes.counted(said) == number


# The engine and the client


@pytest.fixture
def connections() -> list[engine_stub.Connection]:
    """Collect the engine's connections."""
    return []


@pytest.fixture
def engine_port(connections: list[engine_stub.Connection]) -> Iterator[int]:
    """Run the engine on a thread."""
    loop = asyncio.new_event_loop()
    pacer = engine_stub.Pacer(loop)

    def accept() -> engine_stub.Connection:
        connections.append(engine_stub.Connection(pacer))
        return connections[-1]

    server = loop.run_until_complete(loop.create_server(accept, "127.0.0.1", 0))
    with Threads() as threads:
        threads.start(loop.run_forever)
        yield server.sockets[0].getsockname()[1]
        loop.call_soon_threadsafe(loop.stop)
    server.close()
    for connection in connections:
        connection.transport.abort()
    loop.run_until_complete(asyncio.sleep(0))  # in which they are closed
    loop.close()


@pytest.fixture
def stub(engine_port: int) -> Iterator[brunix_pb2_grpc.AssistanceEngineStub]:
    """Give a real gRPC client of the engine."""
    with grpc.insecure_channel(f"127.0.0.1:{engine_port}") as channel:
        yield brunix_pb2_grpc.AssistanceEngineStub(channel)


def ask(stub: brunix_pb2_grpc.AssistanceEngineStub, query: str) -> list[brunix_pb2.AgentResponse]:
    rpc = stub.AskAgent if query.startswith("whole") else stub.AskAgentStream
    return list(rpc(brunix_pb2.AgentRequest(query=query), timeout=30))


def test_engine_whole(stub: brunix_pb2_grpc.AssistanceEngineStub) -> None:
    """Everything would be measured against something that is no engine."""
    (message,) = ask(stub, "whole 60")
    assert message.is_final
    assert message.text.count("~") == 60


@pytest.mark.parametrize("query", ["stream 5 500", "stream 5000 0", "stream 1 20"])
def test_engine_stream(stub: brunix_pb2_grpc.AssistanceEngineStub, query: str) -> None:
    """A stream would have other tokens than were asked for, or not end."""
    before_us = int(time.monotonic() * 1e6)
    *tokens, final = ask(stub, query)
    assert (final.is_final, final.text) == (True, "")
    assert len(tokens) == int(query.split()[1])
    stamps = [int(token.text[1:13], 16) for token in tokens]
    assert stamps == sorted(stamps)
    assert before_us <= stamps[0] <= stamps[-1] <= time.monotonic() * 1e6
    assert "^" in tokens[-1].text


def data_until_pong(peer: socket.socket, frames: IO[bytes]) -> int:
    """Count the bytes of data in the frames that come before the answer to a ping."""
    peer.sendall(engine_stub.frame(engine_stub.PING, 0, 0, b"12345678"))
    count, kind = 0, engine_stub.DATA
    while kind != engine_stub.PING:
        head = frames.read(engine_stub.FRAME_HEAD_BYTES)
        kind = head[3]
        payload = frames.read(int.from_bytes(head[:3], "big"))
        count += len(payload) if kind == engine_stub.DATA else 0
    return count


def test_engine_keeps_to_the_windows(engine_port: int) -> None:
    """A server that reads slowly would be sent more than any real engine may send it."""
    window_bytes = engine_stub.DEFAULT_WINDOW_BYTES
    question = engine_stub.message(brunix_pb2.AgentRequest(query="stream 1000000 0").SerializeToString())
    asked = [
        engine_stub.frame(engine_stub.SETTINGS, 0, 0),
        engine_stub.frame(engine_stub.HEADERS, engine_stub.END_HEADERS, 1),
        engine_stub.frame(engine_stub.DATA, engine_stub.END_STREAM, 1, question),
    ]
    more = [engine_stub.frame(engine_stub.WINDOW_UPDATE, 0, number, struct.pack(">I", 1000)) for number in (0, 1)]
    with socket.create_connection(("127.0.0.1", engine_port), 20) as peer, peer.makefile("rb") as answered:
        peer.sendall(engine_stub.PREFACE + b"".join(asked))
        sent = 0
        while sent < window_bytes - 200:  # the pong overtakes what the socket does not take at once
            sent += data_until_pong(peer, answered)
        assert sent <= window_bytes
        peer.sendall(more[0])
        assert data_until_pong(peer, answered) == 0  # the stream's window is full
        peer.sendall(more[1])
        sent += data_until_pong(peer, answered)
        assert window_bytes + 800 < sent <= window_bytes + 1000


def test_engine_paces(stub: brunix_pb2_grpc.AssistanceEngineStub) -> None:
    """Streams would come faster than they were asked for, and what is called paced would be flat out."""
    *tokens, _ = ask(stub, "stream 11 200")
    first_us, last_us = (int(tokens[at].text[1:13], 16) for at in (0, -1))
    span_us = int(tokens[-1].text.partition("^")[2], 16)
    assert 9 / 200 <= span_us / 1e6 <= 10 / 200
    assert last_us - first_us >= span_us - 1


def test_engine_forgets_who_leaves(
    stub: brunix_pb2_grpc.AssistanceEngineStub, connections: list[engine_stub.Connection]
) -> None:
    """What is measured next would share the engine with streams that nobody reads any more."""
    call = stub.AskAgentStream(brunix_pb2.AgentRequest(query="stream 1000000 0"))
    assert next(iter(call)).text.startswith("~")
    call.cancel()
    assert len(ask(stub, "stream 3 0")) == 4
    (connection,) = connections
    assert connection.streams == {}


class Breaking(openai_stub.Connection):
    """Closes in the middle of a stream."""

    def _stream(self) -> None:
        self.transport.write(openai_stub.chunked(openai_stub.chunk(openai_stub.token())))
        self.transport.close()


class Refusing(openai_stub.Connection):
    """Answers nothing."""

    def data_received(self, data: bytes) -> None:
        del data
        self.transport.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")


def job(kind: str, form: str, **more: Any) -> Job:  # noqa: ANN401 - whatever a job has
    return Job(**{"kind": kind, "form": form, "port": 0, "connections": 4, "tokens": 100, "seconds": 0.1, **more})


def do(what: Job, protocol: type[asyncio.Protocol], said: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Have the load client do a job against a server, and return what it prints."""

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
        told = asyncio.Event()
        told.set()
        await load.do(attrs.evolve(what, port=server.sockets[0].getsockname()[1]), told.wait)
        server.close()

    asyncio.run(run())
    return [json.loads(line) for line in said.readouterr().out.splitlines()]


@pytest.mark.parametrize("form", ["whole", "stream"])
def test_load_closed(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The client would count other answers or tokens than it got, or not use its connections again."""
    begin, end, said = do(job("closed", form), openai_stub.Connection, capsys)
    result = said["result"]
    assert (begin["mark"], end["mark"]) == ("begin", "end")
    assert result["failed"] == {}
    assert result["requests"] > 4
    assert result["tokens"] == 100 * result["requests"]
    assert begin["tokens"] <= end["tokens"] <= result["tokens"]
    assert len(result["first_s"]) == 101
    assert min(result["first_s"]) > 0


def test_load_open(capsys: pytest.CaptureFixture[str]) -> None:
    """Streams that are opened once would be asked again, or be waited for in vain."""
    *_, said = do(job("open", "stream", seconds=20), openai_stub.Connection, capsys)
    assert (said["result"]["requests"], said["result"]["tokens"], said["result"]["failed"]) == (4, 400, {})


def test_load_hold(capsys: pytest.CaptureFixture[str]) -> None:
    """Memory would be looked at before the streams are open, or the client stay after that."""
    begin, said = do(job("hold", "stream", per_second=1), openai_stub.Connection, capsys)
    assert begin["mark"] == "begin"
    assert begin["tokens"] >= 4
    assert said["result"]["failed"] == {}


@pytest.mark.parametrize(
    ("protocol", "failed"),
    [(Breaking, {"lost: None": 4}), (Refusing, {"HTTP/1.1 503 Service Unavailable": 4})],
)
def test_load_counts_failures(
    protocol: type[asyncio.Protocol], failed: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    """A server that breaks answers off, or refuses, would look fast."""
    *_, said = do(job("open", "stream", seconds=20), protocol, capsys)
    assert (said["result"]["requests"], said["result"]["failed"]) == (0, failed)


def test_load_in_pieces(capsys: pytest.CaptureFixture[str]) -> None:
    """Tokens or the end of an answer would be missed when they come in two pieces."""

    class Slowly(openai_stub.Connection):
        def _answer(self, asked: dict[str, object], *, close: bool) -> None:
            del asked, close
            late = b"~%012x ^%012x " % (int(time.monotonic() * 1e6), 0)
            body = openai_stub.chunked(openai_stub.chunk(late)) + openai_stub.chunked(openai_stub.DONE) + b"0\r\n\r\n"
            self._whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body
            self._next()

        def _next(self) -> None:
            if self._whole and not self.transport.is_closing():
                self.transport.write(self._whole[:1])
                self._whole = self._whole[1:]
                asyncio.get_running_loop().call_soon(self._next)

    *_, said = do(job("open", "stream", tokens=1, seconds=20), Slowly, capsys)
    assert (said["result"]["requests"], said["result"]["tokens"], said["result"]["failed"]) == (4, 4, {})
    assert len(said["result"]["late_s"]) == 101


def test_load_counts_what_is_repeated_once() -> None:
    """A dialect whose streams end with the whole text would look five times as fast, wherever its bytes are divided."""
    wire = WIRES["responses"]
    assert wire.again is not None
    streams = b"~1 ~2 ", wire.again + b"~1 ~2 ~1 ~2 " + wire.end + b"}"
    text = b"".join(openai_stub.chunked(piece) for piece in streams) + b"0\r\n\r\n"

    class Nowhere(asyncio.Transport):
        def write(self, data: bytes | bytearray | memoryview) -> None: ...
        def close(self) -> None: ...

    for place in range(len(text)):
        run = load.Run(job("open", "stream", tokens=2, dialect="responses", connections=1))
        connection = load.Connection(run)
        connection.connection_made(Nowhere())
        for piece in (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", text[:place], text[place:]):
            connection.data_received(piece)
        assert (run.requests, run.tokens, run.failed) == (1, 2, {}), text[:place]
