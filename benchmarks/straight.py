"""
The same jobs as the client's, done straight at the engine: blocking gRPC calls, a thread for each.

What a gateway adds is what it takes beyond this. On one thread it also shows how fast the engine is.
"""

from __future__ import annotations

import json
import sys
import threading
import time

import grpc
import grpc.experimental

from brunix_twisted._pb import brunix_pb2, brunix_pb2_grpc
from figures import quantiles
from jobs import Job, say

SETTLE_S = 0.2


class Run:
    """One job under way; each of its threads has a list of its own to append to."""

    def __init__(self, job: Job, stub: brunix_pb2_grpc.AssistanceEngineStub) -> None:
        """Begin with nothing seen."""
        self.job = job
        self.rpc = stub.AskAgent if job.form == "whole" else stub.AskAgentStream
        self.request = brunix_pb2.AgentRequest(query=job.script)
        self.tokens = [0] * job.connections
        self.requests = [0] * job.connections
        self.firsts_s: list[float] = []
        self.delays_s: list[float] = []
        self.lateness_s: list[float] = []
        self.failed: dict[str, int] = {}
        self.stopping = False

    def mark(self, which: str) -> None:
        """Say what has been received until now."""
        say(mark=which, at_s=time.monotonic(), tokens=sum(self.tokens), requests=sum(self.requests))

    def worker(self, number: int) -> None:
        """Ask once, or as long as the job says."""
        while True:
            try:
                self._ask(number)
            except grpc.RpcError as error:
                self.failed[str(error)] = self.failed.get(str(error), 0) + 1
            if self.job.kind != "closed" or self.stopping:
                return

    def _ask(self, number: int) -> None:
        opened_s = time.monotonic()
        first = True
        for message in self.rpc(self.request):
            at_s = time.monotonic()
            text = message.text
            if not text:
                continue
            if first:
                self.firsts_s.append(at_s - opened_s)
                first = False
            if self.job.form == "whole":
                self.tokens[number] += self.job.tokens
                continue
            self.tokens[number] += 1
            self.delays_s.append(at_s - int(text[1:13], 16) / 1e6)
            if (at := text.find("^")) >= 0:
                self.lateness_s.append(at_s - opened_s - int(text[at + 1 : at + 13], 16) / 1e6)
        self.requests[number] += 1


def do(job: Job) -> None:
    """Do one job."""
    options = [(grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1)]
    with grpc.insecure_channel(f"127.0.0.1:{job.port}", options=options) as channel:
        grpc.channel_ready_future(channel).result(5)
        run = Run(job, brunix_pb2_grpc.AssistanceEngineStub(channel))
        threads = [threading.Thread(target=run.worker, args=(number,)) for number in range(job.connections)]
        began_s = time.monotonic()
        for thread in threads:
            thread.start()
        time.sleep(SETTLE_S if job.kind == "closed" else job.nominal_s / 4)
        run.mark("begin")
        time.sleep(job.seconds if job.kind == "closed" else job.nominal_s / 2)
        run.mark("end")
        run.stopping = True
        for thread in threads:
            thread.join()
    say(
        result={
            "requests": sum(run.requests),
            "failed": run.failed,
            "tokens": sum(run.tokens),
            "elapsed_s": time.monotonic() - began_s,
            "first_s": quantiles(run.firsts_s),
            "delay_s": quantiles(run.delays_s[:: job.sample_every]),
            "late_s": quantiles(run.lateness_s),
            "gap_s": [],
        }
    )


if __name__ == "__main__":
    for line in sys.stdin:
        do(Job(**json.loads(line)))
