"""
What does a proxy cost the first token? ``python benchmarks/proxy_delay.py``.

The same question is asked straight of the gateway, through nginx and through HAProxy, in turns, each time over a new
connection. The engine says one word and then waits until the client has it, so a proxy that held the stream back would
never end. The proxies run with the files of ``deploy/``; they and the gateway are processes of their own on this
machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from proxies import KINDS, find, proxy
from scripted_engine import ScriptedEngine, script

PATHS = ("/v1/chat/completions", "/api/chat")


def first_token_s(engine: ScriptedEngine, url: str, path: str, name: str) -> float:
    """Ask, and say how long it took to the line with the first word."""
    query = script("word ", {"wait": name}, "end")
    body = json.dumps({"model": "brunix", "stream": True, "messages": [{"role": "user", "content": query}]})
    began = time.perf_counter()
    connection = HTTPConnection(url.removeprefix("http://"), timeout=60)
    connection.request("POST", path, body)
    response = connection.getresponse()
    assert response.status == HTTPStatus.OK, response.status
    while b'"word "' not in response.readline():
        pass
    took_s = time.perf_counter() - began
    engine.go(name)
    response.read()
    connection.close()
    return took_s


def report(name: str, taken: list[float], direct: list[float]) -> None:
    """Print how long the first word took, and how much longer than without a proxy, in milliseconds."""
    cuts = statistics.quantiles(taken, n=100)
    more = [1000 * (through - without) for through, without in zip(taken, direct, strict=True)]
    print(
        f"{name:<10} first token: median {1000 * statistics.median(taken):6.2f} ms   p95 {1000 * cuts[94]:6.2f} ms   "
        f"worst {1000 * max(taken):6.2f} ms   later than direct: median {statistics.median(more):6.2f} ms   "
        f"worst {max(more):6.2f} ms   n {len(taken)}"
    )


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    with ExitStack() as stack:
        engine = ScriptedEngine()
        stack.callback(engine.stop)
        gateway = stack.enter_context(
            subprocess.Popen(
                [
                    *(Path(sys.executable).with_name("twistd"), "--nodaemon", "--pidfile=", "brunix"),
                    *("--listen=tcp:0:interface=127.0.0.1", f"--grpc-target={engine.target}"),
                ],
                stdout=subprocess.PIPE,
                text=True,
                env={key: value for key, value in os.environ.items() if not key.startswith(("PROXY_", "BRUNIX_"))},
            )
        )
        stack.callback(gateway.terminate)
        assert gateway.stdout is not None
        port = next(int(line.split("port=")[1].split(")")[0]) for line in gateway.stdout if "Serving" in line)
        # Its log: once the pipe is full of it, the gateway would stand still.
        threading.Thread(target=gateway.stdout.read, daemon=True).start()
        urls = {"direct": f"http://127.0.0.1:{port}"}
        for kind in KINDS:
            if find(kind) is None:
                print(f"{kind} is not installed")
            else:
                urls[kind] = stack.enter_context(proxy(kind, [f"127.0.0.1:{port}"])).url
        taken: dict[tuple[str, str], list[float]] = {(path, name): [] for path in PATHS for name in urls}
        for number in range(rounds):
            for (path, name), so_far in taken.items():
                so_far.append(first_token_s(engine, urls[name], path, f"{number} {path} {name}"))
        for path in PATHS:
            print(path)
            for name in urls:
                report(name, taken[path, name], taken[path, "direct"])


if __name__ == "__main__":
    main()
