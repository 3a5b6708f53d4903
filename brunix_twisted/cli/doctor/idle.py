"""How long an idle connection stays open."""

from __future__ import annotations

import time
from typing import Final

from brunix_twisted.cli.doctor.findings import Finding
from brunix_twisted.cli.doctor.time_budget import STEP_S
from brunix_twisted.cli.http_client import MAX_PAGE_BYTES, Connection, Target

MAX_IDLE_S: Final = 70.0
"""The gateway closes an idle connection after 60 seconds."""
_GATEWAY_IDLE_S: Final = 55.0
_SHORT_S: Final = 5.0


def measure_idle(target: Target, timeout_s: float) -> float | None:
    """Return the seconds until the connection is closed, or None if it stays open. Raises network errors."""
    with Connection(target) as connection:
        connection.request("GET", "/health/live", timeout_s=STEP_S).read(MAX_PAGE_BYTES)
        started_s = time.monotonic()
        return None if connection.is_open_after(timeout_s) else time.monotonic() - started_s


def check_idle(closed_s: float | None, waited_s: float) -> Finding:
    """Check whether a proxy closes idle connections earlier than the gateway."""
    if closed_s is None:
        says = f"an idle connection is still open after {waited_s:.0f} s"
        return Finding("idle", "ok", says, figures={"open_s": waited_s})
    figures = {"closed_after_s": round(closed_s, 1)}
    says = f"an idle connection is closed after {closed_s:.1f} s"
    if closed_s >= _GATEWAY_IDLE_S:
        return Finding("idle", "ok", f"{says}; the gateway closes it after 60", figures=figures)
    return Finding(
        "idle",
        "warning" if closed_s < _SHORT_S else "note",
        says,
        "The gateway keeps it for 60 seconds, so a proxy closes it earlier. A client that reuses it just then fails; "
        "most clients retry.",
        "nginx: keepalive_timeout. HAProxy: timeout http-keep-alive.",
        figures,
    )
