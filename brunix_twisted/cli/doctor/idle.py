"""How long a connection is kept over which nothing is asked."""

from __future__ import annotations

import time
from typing import Final

from brunix_twisted.cli.doctor.findings import Finding
from brunix_twisted.cli.doctor.time_budget import STEP_S
from brunix_twisted.cli.http_client import MAX_PAGE_BYTES, Connection, Target

MAX_IDLE_S: Final = 70.0
"""The gateway lets go of it after 60 seconds."""
_GATEWAY_S: Final = 55.0
_SHORT_S: Final = 5.0


def measure_idle(target: Target, timeout_s: float) -> float | None:
    """Give after how many seconds it is closed, None for not at all. Raises what asking over a network raises."""
    with Connection(target) as connection:
        connection.request("GET", "/health/live", timeout_s=STEP_S).read(MAX_PAGE_BYTES)
        began_s = time.monotonic()
        return None if connection.is_open_after(timeout_s) else time.monotonic() - began_s


def check_idle(closed_s: float | None, waited_s: float) -> Finding:
    """Say whether something lets go of it before the gateway does."""
    if closed_s is None:
        says = f"a connection without a request is still open after {waited_s:.0f} s"
        return Finding("idle", "ok", says, figures={"open_s": waited_s})
    figures = {"closed_after_s": round(closed_s, 1)}
    says = f"a connection without a request is closed after {closed_s:.1f} s"
    if closed_s >= _GATEWAY_S:
        return Finding("idle", "ok", f"{says}; the gateway itself does that after 60", figures=figures)
    return Finding(
        "idle",
        "warning" if closed_s < _SHORT_S else "note",
        says,
        "The gateway keeps it for 60 seconds: something in between lets go of it sooner. A client that uses it again "
        "just then fails, and most try once more.",
        "nginx: keepalive_timeout; HAProxy: timeout http-keep-alive.",
        figures,
    )
