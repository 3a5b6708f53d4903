"""One measurement: one workload on one variant."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

import processes
from processes import Counting, Usage
from servers import Begun, Client, Fleet, Process
from variants import ENGINE, STUB, Behind, Variant
from workloads import Workload

Figures = dict[str, Any]
"""What was measured, by name; units stand in the names."""

# So long after the last of many streams has begun their memory is looked at.
HOLD_S = 1.0
KB = 1024


@attrs.frozen
class Mark:
    """What all that is looked at had taken at one moment."""

    said: dict[str, Any]
    """What the client had received."""
    server: Usage
    engine_s: float
    """CPU seconds of what stands behind the server."""
    client_s: float
    """CPU seconds of the client."""


@attrs.define
class Bench:
    """The engine, the stub and the clients, which stay, and the servers of one workload."""

    fleet: Fleet
    engine: Process
    stub: Process
    behind: Behind
    load: Client
    straight: Client
    counts_instructions: bool
    servers: dict[str, Begun] = attrs.Factory(dict)

    @classmethod
    def start(cls, fleet: Fleet, folder: Path) -> Bench:
        """Start what every workload needs."""
        engine, engine_port = fleet.stub("engine_stub.py")
        stub, stub_port = fleet.stub("openai_stub.py")
        behind = Behind(engine_port, stub_port, folder)
        load, straight = fleet.client("load.py"), fleet.client("straight.py")
        return cls(fleet, engine, stub, behind, load, straight, Counting.usable())

    def serve(self, variant: Variant, workload: Workload) -> Begun:
        """Start a variant's server."""
        return self.fleet.server(
            lambda port: variant.command(port, self.behind, workload.threads), variant.environment(), variant.kind
        )

    def check(self) -> None:
        """
        See that everything that stays is there.

        :raises ServerError: something is not.
        """
        for process in (self.engine, self.stub, self.load.process, self.straight.process):
            process.check()

    def drop(self) -> None:
        """End the servers."""
        for name in list(self.servers):
            self.fleet.end(self.servers.pop(name).process)

    def measure(self, variant: Variant, workload: Workload) -> Figures:
        """
        Measure once. The variant's server is started if it is not there.

        :raises ServerError: it did not start, or ended meanwhile.
        """
        if workload.kind == "start":
            begun = self.serve(variant, workload)
            self.fleet.end(begun.process)
            return {"complete": 1, "failed": {}, "start_s": begun.start_s}
        if variant.kind == ENGINE:
            return self._job(workload, self.straight, self.engine, self.behind.engine_port)
        if variant.kind == STUB:
            return self._job(workload, self.load, self.stub, self.behind.stub_port)
        if variant.name not in self.servers:
            self.servers[variant.name] = self.serve(variant, workload)
        begun = self.servers[variant.name]
        figures = self._job(workload, self.load, begun.process, begun.port)
        if workload.fresh:
            self.fleet.end(self.servers.pop(variant.name).process)
        return figures

    def _job(self, workload: Workload, client: Client, server: Process, port: int) -> Figures:
        pids = server.pids if client is self.load else [client.process.pid]
        behind = self.engine if server is not self.stub else self.stub
        marks: dict[str, Mark] = {}
        counting: list[Counting] = []
        instructions = None

        def marked(said: dict[str, Any]) -> None:
            nonlocal instructions
            if workload.kind == "hold":
                time.sleep(HOLD_S)
            engine_s, client_s = processes.cpu_s(behind.pid), processes.cpu_s(client.process.pid)
            # A process that has ended has no clock: the mark is missing then, and the job goes on to its end.
            with suppress(OSError):
                marks[said["mark"]] = Mark(said, processes.usage(pids), engine_s, client_s)
            if counting:
                instructions = counting.pop().stop()
            elif self.counts_instructions:
                counting.append(Counting(pids))
            if workload.kind == "hold":
                client.tell("")

        idle_bytes = processes.usage(pids).resident_bytes
        result = client.do(workload.job(port), marked)
        server.check()
        if len(marks) < (1 if workload.kind == "hold" else 2):
            raise server.failure("a process of it ended while it was measured")
        figures = outcome(result)
        if workload.kind == "hold":
            open_bytes = marks["begin"].server.resident_bytes
            return figures | {
                "idle_mb": idle_bytes / KB**2,
                "memory_kb_per_stream": (open_bytes - idle_bytes) / KB / workload.connections,
                "threads": marks["begin"].server.threads,
            }
        figures |= between(marks["begin"], marks["end"], workload)
        tokens = marks["end"].said["tokens"] - marks["begin"].said["tokens"]
        if instructions is not None and tokens:
            figures["instructions_per_token"] = instructions / tokens
        return figures


def outcome(result: dict[str, Any]) -> Figures:
    """What the client says of the whole job."""
    figures: Figures = {
        "complete": result["requests"],
        "failed": result["failed"],
        "elapsed_s": result["elapsed_s"],
    }
    for name in ("first", "delay", "late", "gap"):
        if percentiles := [1000 * value for value in result[f"{name}_s"]]:
            figures[f"{name}_ms"] = percentiles[50]
            figures[f"{name}_p99_ms"] = percentiles[99]
            figures[f"{name}_percentiles_ms"] = percentiles
    return figures


def between(begin: Mark, end: Mark, workload: Workload) -> Figures:
    """What was taken between two marks."""
    counted_s = end.said["at_s"] - begin.said["at_s"]
    tokens = end.said["tokens"] - begin.said["tokens"]
    requests = end.said["requests"] - begin.said["requests"]
    cpu_s = end.server.cpu_s - begin.server.cpu_s
    looked_s = end.server.at_s - begin.server.at_s
    figures: Figures = {
        "counted_s": counted_s,
        "tokens_per_s": tokens / counted_s,
        "requests_per_s": requests / counted_s,
        "cpu_share": cpu_s / looked_s,
        "engine_cpu_share": (end.engine_s - begin.engine_s) / looked_s,
        "client_cpu_share": (end.client_s - begin.client_s) / looked_s,
        "resident_mb": end.server.resident_bytes / KB**2,
        "threads": end.server.threads,
    }
    if requests and workload.kind == "closed":
        figures["cpu_us_per_request"] = 1e6 * cpu_s / requests
    if tokens and workload.form == "stream":
        voluntary, involuntary = end.server.switches_since(begin.server)
        figures |= {
            "cpu_us_per_token": 1e6 * cpu_s / tokens,
            "voluntary_per_token": voluntary / tokens,
            "involuntary_per_token": involuntary / tokens,
        }
    return figures
