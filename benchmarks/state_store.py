"""
What a store of state adds to the time to the first token: `python benchmarks/state_store.py [--busy 0.3]`.

Some callers continue conversations at the same time: each finds its session, claims it, and later writes it again, as
the gateway does for a question. Meanwhile the reactor is as busy as a gateway that sends tokens. The figures are the
time of finding and claiming, which a question waits for.
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.task import deferLater, react

from brunix_twisted.state import StateLimits, StateStore
from brunix_twisted.state.memory import MemoryStore
from brunix_twisted.state.redis import RedisStore
from brunix_twisted.state.sqlite import SqliteStore

reactor: Any = installed

LIMITS = StateLimits(max_sessions=10_000, max_age_s=86_400.0, max_bodies=1000, max_bytes=1 << 26)
TURNS = 8
_BURST_S = 0.0002
"""How long one iteration of a gateway's reactor takes that sends a token."""


class Load:
    """Keeps the reactor's thread busy for a share of the time, in short bursts with a system call after each."""

    def __init__(self, share: float) -> None:
        """Start, unless the share is 0."""
        self._share = share
        self._ends = socket.socketpair()
        if share:
            self._burst()

    def _burst(self) -> None:
        until_s = time.perf_counter() + _BURST_S
        while time.perf_counter() < until_s:
            pass
        self._ends[0].send(b"x")
        self._ends[1].recv(1)
        reactor.callLater(random.expovariate(1) * _BURST_S * (1 / self._share - 1), self._burst)


async def converse(store: StateStore, pause_s: float, took_s: list[float]) -> None:
    """Continue a conversation for some turns."""
    session_id, keys = os.urandom(16).hex(), [os.urandom(16) for _ in range(3)]
    await store.put(session_id, os.urandom(150), keys, version=0, held=True)
    await store.put(session_id, os.urandom(150), keys, version=1, held=False)
    for turn in range(1, TURNS):
        await deferLater(reactor, random.expovariate(1) * pause_s)
        began_s = time.perf_counter()
        (entry,) = await store.find(keys, 10)
        assert await store.put(session_id, entry.record, keys, version=entry.version, held=True)
        took_s.append(time.perf_counter() - began_s)
        keys += [os.urandom(16) for _ in range(3)]
        record = os.urandom(100 + 50 * turn)
        assert await store.put(session_id, record, keys, version=entry.version + 1, held=False)


async def measure(store: StateStore, callers: int, conversations: int, pause_s: float) -> list[float]:
    """Return how long finding and claiming took, in order."""
    await store.start()
    took_s: list[float] = []

    async def caller() -> None:
        for _ in range(conversations):
            await converse(store, pause_s, took_s)

    await gatherResults([ensureDeferred(caller()) for _ in range(callers)])
    await store.close()
    return sorted(took_s)


async def main(arguments: argparse.Namespace) -> None:
    """Print a line for each store."""
    Load(arguments.busy)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        stores: dict[str, StateStore] = {
            "memory": MemoryStore(time.monotonic, LIMITS),
            "sqlite": SqliteStore(reactor, Path(folder) / "state.sqlite", LIMITS),
        }
        if arguments.redis:
            stores["redis"] = RedisStore(reactor, arguments.redis, LIMITS)
        for name, store in stores.items():
            took_s = await measure(store, arguments.callers, arguments.conversations, arguments.pause_s)
            p50, p99 = (took_s[int(share * len(took_s))] * 1000 for share in (0.5, 0.99))
            turns = f"{len(took_s)} turns of {arguments.callers} callers, reactor {arguments.busy:.0%} busy"
            print(f"{name}: {turns}: p50 {p50:.2f} ms, p99 {p99:.2f} ms, max {took_s[-1] * 1000:.1f} ms")


def run(_: object, *argv: str) -> Deferred[None]:
    """Run with the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--callers", type=int, default=20)
    parser.add_argument("--conversations", type=int, default=20, help="of each caller (default: 20)")
    parser.add_argument("--pause-s", type=float, default=0.2, help="between the turns, on average (default: 0.2)")
    parser.add_argument("--busy", type=float, default=0.3, help="share of the reactor's time (default: 0.3)")
    parser.add_argument("--folder", help="where the database is (default: the folder for temporary files)")
    parser.add_argument("--redis", help="URL of a Redis server to measure as well, such as redis://127.0.0.1:6379/1")
    return ensureDeferred(main(parser.parse_args(argv)))


if __name__ == "__main__":
    import sys

    react(run, sys.argv[1:])
