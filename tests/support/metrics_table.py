"""The table of metrics in docs/metrics.md: as it follows from what is served, and as it stands there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import cast

import attrs
from prometheus_client.core import Metric
from twisted.internet.task import Clock

from brunix_twisted.model import Processes
from brunix_twisted.observability.metrics import PREFIX, Metrics
from brunix_twisted.observability.request_record import EngineCall, Readings, RequestInProgress, RequestRecord
from brunix_twisted.runtime.reactors import Reactor
from brunix_twisted.state import StateReadings
from paths import ROOT

PAGE = ROOT / "docs" / "metrics.md"


@attrs.define
class Counted:
    """The text of an answer, as far as it is counted."""

    tokens: int


def readings(processes: Processes | None = None) -> Readings:
    state = StateReadings(is_up=True, failures=2, durations=(5, 4, 3, 2, 1, 0, 0, 0), total_s=0.02)
    return Readings(
        requests=3, streams=2, waiting=1, queue_size=80, busy=2, places=20, processes=processes, state=state
    )


def record(path: str = "/v1/chat/completions", *, session: str = "", status: int | None = 200) -> RequestRecord:
    """Make the record of a streamed question: half a second in the queue, and one with the engine."""
    in_progress = RequestInProgress(10.0, streamed=True, reason="complete", prompt_tokens=12, first_text_s=11.0)
    in_progress.session_outcome = "found"
    in_progress.queued(10.0)
    in_progress.admitted(10.5)
    in_progress.calls.append(EngineCall("AskAgentStream", ["UNAVAILABLE", "OK"], Counted(34), 10.5, 11.5))
    return in_progress.finish(
        12.0,
        request_id="req-1",
        method="POST",
        path=path,
        status=status,
        gone=status is None,
        session=session,
        sent_bytes=56,
    )


def families() -> Iterator[Metric]:
    """Go through what a gateway serves that has been asked something."""
    metrics = Metrics(cast("Reactor", Clock()), readings)
    metrics.observe(record())
    yield from metrics.registry.collect()


def rows() -> str:
    lines = ["| metric | type | labels | what it says |", "|---|---|---|---|"]
    for family in families():
        if family.name.startswith(PREFIX):
            suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
            labels = dict.fromkeys(f"`{name}`" for sample in family.samples for name in sample.labels if name != "le")
            kind = {"info": "gauge"}.get(family.type, family.type)
            lines.append(f"| `{family.name}{suffix}` | {kind} | {', '.join(labels)} | {family.documentation} |")
    return "".join(f"{line}\n" for line in lines)


def rewritten(page: str) -> str:
    """Put the table into the page in place of the one that is there."""
    return re.sub(r"^\| metric \| type .*\n(?:^\|.*\n)+", lambda _: rows(), page, count=1, flags=re.MULTILINE)


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text("utf-8")), "utf-8")
