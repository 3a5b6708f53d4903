"""
Does the gateway stay as it is? ``make soak``.

A mix of questions goes through the gateway, in both APIs: whole and streamed answers, some broken off by the client,
some failed by the engine before and after the first word, some read slowly. Threads, file descriptors and resident
memory of the gateway are noted every second, and are to be flat after the first minute. Ends after 100,000 requests or
30 minutes, whichever is first; ``--requests`` and ``--seconds`` make it shorter.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs

ROOT = Path(__file__).parent.parent
WORDS = [f"word{number} " for number in range(20)]
# Of each: how often, the question's script, and what the client does.
MIX = [
    (50, json.dumps(WORDS), "read"),
    (15, json.dumps([*WORDS[:5], {"hang": True}]), "leave"),
    (10, json.dumps([{"status": "UNAVAILABLE"}]), "read"),
    (10, json.dumps([*WORDS[:5], {"status": "INTERNAL"}]), "read"),
    (10, json.dumps([{"repeat": ["x" * 1000, 100]}]), "read slowly"),
    (5, json.dumps([{"hang": True}]), "leave at once"),
]
STREAMED = 0.7
# The parameter that has the question, and whether that is a list of messages.
ENDPOINTS = {
    "/v1/chat/completions": ("messages", True),
    "/v1/completions": ("prompt", False),
    "/v1/responses": ("input", False),
    "/v1/messages": ("messages", True),
    "/api/chat": ("messages", True),
    "/api/generate": ("prompt", False),
}


@attrs.frozen
class Sample:
    """What the gateway's process takes."""

    at_s: float
    requests: int
    threads: int
    descriptors: int
    resident_kib: int


def sample(pid: int, at_s: float, requests: int) -> Sample:
    """Look at a process."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines() if ":" in line
    )
    return Sample(
        at_s,
        requests,
        int(status["Threads"]),
        len(os.listdir(f"/proc/{pid}/fd")),  # noqa: PTH208 - only their number
        int(status["VmRSS"].split()[0]),
    )


async def ask(port: int, number: int, seen: Counter[str]) -> None:
    """Send one request of the mix."""
    dice = random.Random(number)  # noqa: S311 - the same mix each time
    _, script, manner = dice.choices(MIX, [weight for weight, _, _ in MIX])[0]
    path, (question, converses) = list(ENDPOINTS.items())[number % len(ENDPOINTS)]
    asked = {question: [{"role": "user", "content": script}] if converses else script}
    stream = "leave" in manner or dice.random() < STREAMED
    body = json.dumps({"model": "brunix", "stream": stream, **asked}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        if manner == "leave at once":
            await writer.drain()
            seen["left before the first word"] += 1
            return
        status = (await reader.readline()).split()[1].decode()
        if manner == "leave":
            await reader.readuntil(b"word4")
            seen[f"{status}, left in the middle"] += 1
            return
        while data := await reader.read(4096 if manner == "read slowly" else 65536):
            if manner == "read slowly":
                await asyncio.sleep(0.001 if data else 0)
        seen[f"{status}, {manner}"] += 1
    finally:
        writer.close()


async def run(port: int, pid: int, most_requests: int, most_s: float) -> tuple[list[Sample], Counter[str]]:
    """Keep 40 requests under way until there were enough."""
    began, numbers, seen, samples = time.monotonic(), itertools.count(), Counter[str](), list[Sample]()
    stop = asyncio.Event()

    async def client() -> None:
        while not stop.is_set() and (number := next(numbers)) < most_requests:
            await ask(port, number, seen)

    async def watch() -> None:
        while not stop.is_set():
            at_s = time.monotonic() - began
            samples.append(sample(pid, at_s, seen.total()))
            if at_s > most_s:
                stop.set()
            await asyncio.sleep(1)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(client() for _ in range(40)))
    stop.set()
    await watching
    return samples, seen


def report(samples: list[Sample], seen: Counter[str], settled_s: float) -> bool:
    """Print what was seen, and say whether it was flat."""
    for what, times in sorted(seen.items()):
        print(f"{times:8} {what}")
    last = samples[-1]
    print(f"{last.requests:8} requests in {last.at_s:.0f} s, {last.requests / last.at_s:.0f} a second")
    settled = [each for each in samples if each.at_s >= settled_s] or samples[-2:]
    flat = True
    for name, slack in (("threads", 2), ("descriptors", 45), ("resident_kib", 16 * 1024)):
        values = [getattr(each, name) for each in settled]
        half = len(values) // 2 or 1
        growth = statistics.median(values[half:] or values) - statistics.median(values[:half])
        flat = flat and growth <= slack
        print(f"{name:>14}: median {statistics.median(values):.0f}, most {max(values)}, second half {growth:+.0f}")
    return flat


def plot(samples: list[Sample], to: Path) -> None:
    """Draw the three over time."""
    import matplotlib as mpl  # noqa: PLC0415 - only make soak has it

    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - likewise

    figure, axes = plt.subplots(3, sharex=True, figsize=(8, 6), layout="constrained")
    names = ("threads", "descriptors", "resident_kib")
    for axis, name, label in zip(axes, names, ("threads", "file descriptors", "resident KiB"), strict=True):
        axis.plot([each.at_s for each in samples], [getattr(each, name) for each in samples])
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
    axes[-1].set_xlabel("seconds")
    axes[0].set_title(f"The gateway over {samples[-1].requests:,} requests")
    to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(to, metadata={"Date": None})


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--client", choices=("blocking", "aio"), default="blocking", help="PROXY_ENGINE_CLIENT")
    parser.add_argument("--settled", type=float, default=60, help="seconds after which it is to be flat")
    arguments = parser.parse_args()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PROXY_", "BRUNIX_"))}
    environment["PYTHONPATH"] = str(ROOT)
    engine = subprocess.Popen(
        [sys.executable, ROOT / "tests" / "support" / "scripted_engine.py", "localhost:0"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert engine.stdout is not None
    target = engine.stdout.readline().split()[-1]
    folder = TemporaryDirectory()
    log = Path(folder.name) / "log"
    gateway = subprocess.Popen(
        [
            *(Path(sys.executable).with_name("twistd"), "--nodaemon", "--pidfile=", f"--logfile={log}"),
            *(f"--reactor={'asyncio' if arguments.client == 'aio' else 'default'}", "brunix"),
            f"--engine-client={arguments.client}",
            *("--listen=tcp:0:interface=127.0.0.1", f"--grpc-target={target}", "--thread-workers=60"),
        ],
        env=environment,
    )
    try:
        while not (log.exists() and "port=" in log.read_text("utf-8")):
            time.sleep(0.1)
        port = int(log.read_text("utf-8").split("port=")[1].split(")")[0])
        samples, seen = asyncio.run(run(port, gateway.pid, arguments.requests, arguments.seconds))
    finally:
        gateway.terminate()
        gateway.wait()
        engine.terminate()
        engine.wait()
        folder.cleanup()
    flat = report(samples, seen, arguments.settled)
    to = ROOT / "benchmarks" / "results" / "soak.svg"
    plot(samples, to)
    print(f"plot: {to.relative_to(ROOT)}; {'flat' if flat else 'NOT FLAT'}")
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
