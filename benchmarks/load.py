"""
The client of the benchmark: as many connections as are asked for, on raw protocols, reading no more than it must.

It does jobs that come as JSON lines on standard input. While it does one it prints ``{"mark": …}`` at the beginning
and at the end of the time that counts, for whoever reads the processes' clocks meanwhile, and then the job's result.

A job of kind *closed* keeps each of its connections busy with one question after another for some seconds; one of kind
*open* asks on all connections at once, each one question, and waits for all answers; *hold* is the same, but leaves
once every stream has begun and the main process says so.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import re
import sys
import time
from collections.abc import Callable
from typing import Any, cast

from figures import quantiles
from jobs import WIRES, Job, say

STAMP = re.compile(rb"~([0-9a-f]{12})")
SPAN_BYTES = 13
# Of so many streams each token's arrival is noted, for the pauses between them.
WATCHED = 20
TAIL_BYTES = 1000
SETTLE_S = 0.2


def now() -> float:
    """Seconds of the clock that the engine's stamps are of."""
    return time.monotonic()


class Run:
    """One job under way, and what has been seen of it."""

    def __init__(self, job: Job) -> None:
        """Begin with nothing seen."""
        self.job = job
        self.request = job.request
        self.wire = WIRES[job.dialect]
        self.tokens = 0
        self.requests = 0
        self.failed: dict[str, int] = {}
        self.firsts_s: list[float] = []
        self.delays_s: list[float] = []
        self.lateness_s: list[float] = []
        self.arrivals: list[list[float]] = []
        self.begun = 0
        self.ended = 0
        self.chunks = 0
        self.stopping = False
        self.last_s = 0.0
        self.changed = asyncio.Event()

    def fail(self, why: str) -> None:
        """Count an answer that was not one."""
        self.failed[why] = self.failed.get(why, 0) + 1


class Connection(asyncio.Protocol):
    """One connection, and the answer on it."""

    def __init__(self, run: Run) -> None:
        """Prepare to ask the job's question."""
        self.run = run
        self.opened_s = now()
        self.tokens = 0
        self._rest_bytes: int | None = None
        self._repeats = False
        self._head: bytes | None = b""
        self._tail = b""
        self._span = b""
        self._asked = False
        self._arrivals: list[float] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask. For the first question the time counts from before the connection was made."""
        self.transport = cast("asyncio.Transport", transport)
        if len(self.run.arrivals) < WATCHED and self.run.job.form == "stream":
            self._arrivals = []
            self.run.arrivals.append(self._arrivals)
        self._ask()

    def _ask(self) -> None:
        self._head = b""
        self._rest_bytes = None
        self._repeats = False
        self._tail = self._span = b""
        self.tokens = 0
        self._asked = True
        self.transport.write(self.run.request)

    def data_received(self, data: bytes) -> None:
        """Count what came, and see whether it was the end."""
        at_s = now()
        run = self.run
        if self._head is not None:
            data = self._read_head(self._head + data)
            if not data:
                return
        new = self._news(data)
        if count := new.count(b"~"):
            self._take(new, count, at_s)
        if self._span or b"^" in data:
            self._take_span(data, at_s)
        if self._rest_bytes is not None:
            self._rest_bytes -= len(data)
            if self._rest_bytes <= 0:
                self._end(self.tokens == run.job.tokens)
            return
        tail = self._tail + data[-TAIL_BYTES:]
        if tail.endswith(b"0\r\n\r\n"):
            self._end(self.tokens == run.job.tokens and run.wire.end in tail)
        self._tail = tail[-TAIL_BYTES:]

    def _read_head(self, data: bytes) -> bytes:
        """Take the head off; returns what of the body came with it."""
        head, blank, rest = data.partition(b"\r\n\r\n")
        if not blank:
            self._head = data
            return b""
        self._head = None
        if not head.startswith(b"HTTP/1.1 200"):
            self.run.fail(head.partition(b"\r\n")[0].decode(errors="replace"))
            self._asked = False
            self._over()
            return b""
        lower = head.lower()
        if (at := lower.find(b"\r\ncontent-length:")) >= 0:
            self._rest_bytes = int(lower[at + 17 :].partition(b"\r\n")[0])
        return rest

    def _news(self, data: bytes) -> bytes:
        """Leave out what only repeats the tokens that have come."""
        again = self.run.wire.again
        if again is None or self._rest_bytes is not None:
            return data
        if self._repeats:
            return b""
        known = self._tail[-len(again) :]
        at = (known + data).find(again)
        self._repeats = at >= 0
        return data if at < 0 else data[: max(0, at - len(known))]

    def _take(self, data: bytes, count: int, at_s: float) -> None:
        run = self.run
        if not self.tokens:
            run.firsts_s.append(at_s - self.opened_s)
            run.begun += 1
            if run.begun == run.job.connections:
                run.changed.set()
        self.tokens += count
        run.tokens += count
        if run.job.form == "whole":
            return
        run.chunks += 1
        if run.chunks % run.job.sample_every == 0:
            at_us = at_s * 1e6
            run.delays_s += [(at_us - int(stamp, 16)) / 1e6 for stamp in STAMP.findall(data)]
        if self._arrivals is not None:
            self._arrivals += [at_s] * count

    def _take_span(self, data: bytes, at_s: float) -> None:
        span = self._span + (data if self._span else data[data.index(b"^") :])
        if len(span) < SPAN_BYTES:
            self._span = span
            return
        self._span = b""
        self.run.lateness_s.append(at_s - self.opened_s - int(span[1:SPAN_BYTES], 16) / 1e6)
        self.run.last_s = at_s

    def _end(self, complete: bool) -> None:  # noqa: FBT001 - the only thing there is to say
        run = self.run
        self._asked = False
        if complete:
            run.requests += 1
        else:
            run.fail("incomplete")
        if run.job.kind == "closed" and not run.stopping:
            self._arrivals = None
            self.opened_s = now()
            self._ask()
        else:
            self._over()

    def _over(self) -> None:
        self.run.ended += 1
        self.transport.close()
        if self.run.ended == self.run.job.connections:
            self.run.changed.set()

    def connection_lost(self, error: Exception | None) -> None:
        """Count an answer that was broken off."""
        if self._asked:
            self._asked = False
            if self.run.job.kind != "hold":
                self.run.fail(f"lost: {error}")
            self._over()


def mark(which: str, run: Run) -> None:
    """Say what has been received until now."""
    say(mark=which, at_s=now(), tokens=run.tokens, requests=run.requests)


async def until(done: Callable[[], bool], run: Run, deadline_s: float) -> bool:
    """Wait for something that an answer brings about; returns whether it came before the deadline."""
    while not done():
        run.changed.clear()
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + deadline_s - now()):
                await run.changed.wait()
        except TimeoutError:
            return done()
    return True


async def do(job: Job, go_on: Callable[[], Any]) -> None:
    """Do one job."""
    loop = asyncio.get_running_loop()
    run = Run(job)
    gc.collect()
    gc.disable()
    began_s = now()
    made = await asyncio.gather(
        *(loop.create_connection(lambda: Connection(run), "127.0.0.1", job.port) for _ in range(job.connections)),
        return_exceptions=True,
    )
    connections = [each[1] for each in made if not isinstance(each, BaseException)]
    for each in made:
        if isinstance(each, BaseException):
            run.fail(f"not connected: {each}")
            run.ended += 1
    if job.kind == "closed":
        await asyncio.sleep(SETTLE_S)
        mark("begin", run)
        await asyncio.sleep(job.seconds)
        mark("end", run)
        run.stopping = True
        await until(lambda: run.ended == job.connections, run, now() + 20)
    else:
        # What counts is the time in which all streams are open, from the last one's first token to the first one's end;
        # where tokens come too late for that, as much time from whenever they do come.
        nominal_s = began_s + job.nominal_s
        await until(lambda: job.connections in (run.begun, run.ended), run, nominal_s)
        mark("begin", run)
        if job.kind == "hold":
            await go_on()
        else:
            await until(lambda: run.ended == job.connections, run, max(nominal_s, now() + job.nominal_s / 2))
            mark("end", run)
            await until(lambda: run.ended == job.connections, run, began_s + job.seconds)
    unfinished = 0 if job.kind == "hold" else job.connections - run.ended
    if unfinished:
        run.fail("unfinished")
        run.failed["unfinished"] = unfinished
    for connection in connections:
        connection.transport.abort()
    gc.enable()
    gaps_s = [later - earlier for each in run.arrivals for earlier, later in itertools.pairwise(each)]
    say(
        result={
            "requests": run.requests,
            "failed": run.failed,
            "tokens": run.tokens,
            "elapsed_s": (run.last_s or now()) - began_s,
            "first_s": quantiles(run.firsts_s),
            "delay_s": quantiles(run.delays_s),
            "late_s": quantiles(run.lateness_s),
            "gap_s": quantiles(gaps_s),
        }
    )


async def main() -> None:
    """Do jobs until standard input ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        await do(Job(**json.loads(line)), reader.readline)


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
