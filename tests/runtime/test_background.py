"""Lines that are written by a thread, whoever reads them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from brunix_twisted.runtime.background import FLUSH_S, BackgroundWriter
from fake_reactor import LIMIT_S
from threads import Threads


class Gate:
    """A place to write to that blocks while it is closed, as a pipe does that is not read."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.open = threading.Event()
        self.entered = threading.Semaphore(0)

    def write(self, lines: bytes) -> None:
        self.entered.release()
        assert self.open.wait(LIMIT_S)
        self.written.append(lines)

    @property
    def lines(self) -> list[bytes]:
        return b"".join(self.written).splitlines()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


def writer_of(gate: Gate, max_bytes: int = 1000) -> BackgroundWriter:
    return BackgroundWriter(gate.write, lambda lines: b"%d dropped\n" % lines, max_bytes)


def flushed(writer: BackgroundWriter) -> None:
    """Wait for as long as it takes; one call alone gives up after a short time."""
    writer._flush_s = LIMIT_S  # noqa: SLF001 - as said
    assert writer.flush(LIMIT_S)


def test_lines_are_written_in_order(gate: Gate) -> None:
    """All lines are written, in the order in which they came."""
    gate.open.set()
    writer = writer_of(gate, 1_000_000)
    for number in range(1000):
        writer.put(b"%d\n" % number)
    flushed(writer)
    assert gate.lines == [b"%d" % number for number in range(1000)]


def test_lines_that_do_not_fit_are_counted(gate: Gate) -> None:
    """A writer whose reader is stuck keeps a bounded number of lines and tells how many it dropped, in their place."""
    writer = writer_of(gate, max_bytes=100)
    writer.put(b"first\n")
    assert gate.entered.acquire(timeout=LIMIT_S)
    for number in range(1000):
        writer.put(b"%08d\n" % number)
    gate.open.set()
    flushed(writer)
    writer.put(b"last\n")
    flushed(writer)
    kept = gate.lines[1:-2]
    assert kept == [b"%08d" % number for number in range(len(kept))]
    assert gate.lines[0] == b"first"
    assert gate.lines[-2:] == [b"%d dropped" % (1000 - len(kept)), b"last"]
    assert 5 <= len(kept) <= 12


def test_what_must_be_said_is_not_dropped(gate: Gate) -> None:
    """A message that another process waits for is written although the queue is full."""
    writer = writer_of(gate, max_bytes=10)
    for _ in range(10):
        writer.put(b"12345678\n")
    writer.put(b"ready\n", keep=True)
    gate.open.set()
    flushed(writer)
    assert b"ready" in gate.lines


def test_a_signal_handler_logs(gate: Gate) -> None:
    """A signal that comes while its thread is about to log, and whose handler logs, does not stop the gateway."""
    gate.open.set()
    writer = writer_of(gate)
    done = threading.Event()

    def interrupted() -> None:
        with writer._changed:  # noqa: SLF001 - there is no other way to be there at the right moment
            writer.put(b"Received SIGTERM\n")
        done.set()

    with Threads() as threads:
        threads.start(interrupted)
        assert done.wait(LIMIT_S)
    flushed(writer)
    assert gate.lines == [b"Received SIGTERM"]


def test_flushing_has_an_end(gate: Gate) -> None:
    """A process whose log is not read can end: all flushes together wait a limited time."""
    writer = writer_of(gate)
    writer.put(b"first\n")
    assert not writer.flush(FLUSH_S / 10)
    assert not writer.flush(LIMIT_S)
    # Nothing is left of the time: a thousand of these would otherwise take a quarter of an hour.
    for _ in range(1000):
        assert not writer.flush(LIMIT_S)


def test_a_reader_that_is_gone_does_no_harm() -> None:
    """The writer goes on when what it writes to is closed."""
    said: list[bytes] = []

    def write(lines: bytes) -> None:
        if not said:
            said.append(b"lost")
            raise BrokenPipeError
        said.append(lines)

    writer = BackgroundWriter(write, lambda _: b"")
    writer.put(b"one\n")
    flushed(writer)
    writer.put(b"two\n")
    flushed(writer)
    assert said == [b"lost", b"two\n"]


# What Python warns of, a fork beside a thread, is what is tested.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_that_forked_still_writes() -> None:
    """A daemon, whose parent has logged already, writes what it logs itself and nothing twice."""
    reading, writing = os.pipe()
    writer = BackgroundWriter(lambda lines: os.write(writing, lines), lambda _: b"")
    writer.put(b"parent\n")
    flushed(writer)
    if (child := os.fork()) == 0:
        writer.put(b"child\n")
        writer.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    os.close(writing)
    with open(reading, "rb") as pipe:  # noqa: PTH123 - a descriptor, no path
        assert pipe.read() == b"parent\nchild\n"


def test_no_thread_can_be_started(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a limit of threads a line raises in whatever logs it, and nothing is logged any more after that."""
    gate.open.set()
    writer = writer_of(gate)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as limit:
        limit.setattr(threading.Thread, "start", refuse)
        writer.put(b"one\n")
    writer.put(b"two\n")
    flushed(writer)
    assert gate.lines == [b"one", b"two"]
