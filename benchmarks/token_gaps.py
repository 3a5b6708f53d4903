"""
Do tokens reach the client as the engine sends them? ``make gaps``.

An engine in a process of its own is paced at 20 tokens/s. It puts the time of sending into each token, and the client,
in another process, notes the time of arrival: both clocks are the same monotonic one of this machine. Streams are asked
through the gateway and, for comparison, straight over gRPC, in turns.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent import futures
from http.client import HTTPConnection
from pathlib import Path

import grpc

from brunix_twisted._pb import brunix_pb2, brunix_pb2_grpc

TOKENS = 60
PER_SECOND = 20.0


def ask_agent_stream(
    request: brunix_pb2.AgentRequest,  # noqa: ARG001 - the rpc's signature
    context: grpc.ServicerContext,  # noqa: ARG001 - the rpc's signature
) -> Iterator[brunix_pb2.AgentResponse]:
    """Send tokens at fixed times, each saying when it was sent."""
    began = time.monotonic()
    for number in range(TOKENS):
        time.sleep(max(0.0, began + number / PER_SECOND - time.monotonic()))
        yield brunix_pb2.AgentResponse(text=f"{time.monotonic():.6f} ")
    yield brunix_pb2.AgentResponse(is_final=True)


def serve_engine() -> None:
    """Serve until standard input ends; prints the port."""
    server = grpc.server(futures.ThreadPoolExecutor(64))
    handler = grpc.unary_stream_rpc_method_handler(
        ask_agent_stream,
        request_deserializer=brunix_pb2.AgentRequest.FromString,
        response_serializer=brunix_pb2.AgentResponse.SerializeToString,
    )
    handlers = grpc.method_handlers_generic_handler("brunix.AssistanceEngine", {"AskAgentStream": handler})
    server.add_generic_rpc_handlers((handlers,))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    sys.stdin.read()
    server.stop(None).wait()


Stamps = list[tuple[float, float]]
"""Of each token: when it was sent, and when it arrived, in seconds."""


def over_http(port: int) -> Stamps:
    """Ask through the gateway."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(
        "POST",
        "/v1/chat/completions",
        json.dumps({"model": "brunix", "stream": True, "messages": [{"role": "user", "content": "?"}]}),
    )
    stamps = []
    for line in connection.getresponse():
        arrived = time.monotonic()
        if line.startswith(b"data: {"):
            choice = json.loads(line[6:])["choices"][0]
            if text := choice["delta"].get("content"):
                stamps.append((float(text), arrived))
    connection.close()
    return stamps


def over_grpc(port: int) -> Stamps:
    """Ask the engine itself."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = brunix_pb2_grpc.AssistanceEngineStub(channel).AskAgentStream(brunix_pb2.AgentRequest(query="?"))
        return [(float(message.text), time.monotonic()) for message in call if message.text]


def report(name: str, streams: list[Stamps]) -> None:
    """Print the delays and how far the gaps differ from the engine's own, in milliseconds."""
    delays = [1000 * (arrived - sent) for stamps in streams for sent, arrived in stamps]
    differences = [
        1000 * abs((later[1] - earlier[1]) - (later[0] - earlier[0]))
        for stamps in streams
        for earlier, later in itertools.pairwise(stamps)
    ]
    for what, values in (("delay of a token", delays), ("difference of a gap", differences)):
        cuts = statistics.quantiles(values, n=100)
        print(
            f"{name:<16} {what:<20} median {statistics.median(values):6.2f} ms   "
            f"p95 {cuts[94]:6.2f} ms   p99 {cuts[98]:6.2f} ms   worst {max(values):6.2f} ms   n {len(values)}"
        )


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engine", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.engine:
        serve_engine()
        return
    engine = subprocess.Popen(
        [sys.executable, __file__, "--engine"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert engine.stdin is not None
    assert engine.stdout is not None
    engine_port = int(engine.stdout.readline())
    gateway = subprocess.Popen(
        [
            *(Path(sys.executable).with_name("twistd"), "--nodaemon", "--pidfile=", "brunix"),
            *("--listen=tcp:0:interface=127.0.0.1", f"--grpc-target=127.0.0.1:{engine_port}"),
        ],
        stdout=subprocess.PIPE,
        text=True,
        env={key: value for key, value in os.environ.items() if not key.startswith("PROXY_")},
    )
    assert gateway.stdout is not None
    gateway_port = next(int(line.split("port=")[1].split(")")[0]) for line in gateway.stdout if "Serving" in line)
    direct, through = [], []
    for _ in range(arguments.rounds):
        direct.append(over_grpc(engine_port))
        through.append(over_http(gateway_port))
    print(f"{TOKENS} tokens a stream at {PER_SECOND:g} tokens/s, {arguments.rounds} streams of each kind, in turns")
    report("gRPC", direct)
    report("through gateway", through)
    gateway.terminate()
    gateway.wait()
    engine.stdin.close()
    engine.wait()


if __name__ == "__main__":
    main()
