"""Whether follow-up questions continue their session, and whether a disconnect frees the engine."""

from __future__ import annotations

import time
from typing import Final
from urllib.parse import urlsplit

import attrs

from brunix_twisted.cli import address
from brunix_twisted.cli.api_formats import CHAT
from brunix_twisted.cli.diagnosis import EXPECTED
from brunix_twisted.cli.doctor.findings import Finding
from brunix_twisted.cli.doctor.mismatches import SessionReport, advice_for
from brunix_twisted.cli.doctor.streams import StreamObservation
from brunix_twisted.cli.http_client import Connection, Target, get

_CANCEL_TIMEOUT_S: Final = 5.0
_POLL_S: Final = 0.05
_SLOW_S: Final = 2.0


def check_sessions(
    first: StreamObservation,
    unnamed: StreamObservation | None,
    named: StreamObservation | None,
    named_id: str,
    report: SessionReport | None = None,
) -> list[Finding]:
    """
    Check whether follow-up questions continue the session of the first question.

    :param unnamed: the follow-up that sends the conversation so far, as most clients do; None if there was none.
    :param named: the follow-up that sends ``named_id`` as its session id; None if there was none.
    :param report: the gateway's explanations after these questions, if they were read.
    """
    if not first.session_id:
        if first.diagnosis or not first.text_s:
            return []
        return [
            Finding(
                "sessions",
                "warning",
                "X-Session-Id is missing from the response",
                "Clients cannot continue a conversation by its session id.",
                "Let the proxy pass response headers through.",
            )
        ]
    found = []
    if named is not None and named.session_id:
        if named.session_id == named_id:
            found.append(Finding("sessions", "ok", "a follow-up question with X-Session-Id continues its session"))
        else:
            found.append(
                Finding(
                    "sessions",
                    "problem",
                    "a follow-up question with X-Session-Id gets another session",
                    "The engine does not know the previous question.",
                    "The header does not reach the gateway. Let the proxy pass X-Session-Id through.",
                )
            )
    if unnamed is not None and unnamed.session_id:
        # A proxy may remove one header and not the other.
        is_found = unnamed.session_outcome == "found" or unnamed.session_id == first.session_id
        if is_found:
            found.append(Finding("sessions", "ok", "a follow-up question without a session id continues its session"))
        else:
            found.append(_new_session(unnamed, report))
    return found


def _new_session(unnamed: StreamObservation, report: SessionReport | None) -> Finding:
    """Explain why a follow-up question got a new session."""
    says = "a follow-up question without a session id gets a new session"
    if report is not None and report.match == "off":
        return Finding(
            "sessions",
            "note",
            says,
            "PROXY_SESSION_CONTINUITY is off.",
            "Set it to on, or let each client send X-Session-Id.",
        )
    mismatch = None if report is None else report.of(unnamed.request_id)
    if mismatch is not None:
        advice = advice_for(mismatch)
        means = f"{mismatch.get('explanation')} {advice.means}"
        return Finding("sessions", "warning", says, means, advice.todo, {"mismatch": dict(mismatch)})
    return Finding(
        "sessions",
        "warning",
        says,
        "Another gateway or process received it and does not share its state with the first, or a proxy changes the "
        "caller's key or address between two requests.",
        "Set PROXY_STATE to a store that all gateways and processes share. List proxies in PROXY_TRUSTED_PROXIES.",
    )


@attrs.frozen
class CancelObservation:
    """What was observed after disconnecting from an answer."""

    began: bool
    """Whether there was an answer to disconnect from."""
    cancelled_s: float | None = None
    """Seconds until the engine call was cancelled; None if it was not."""
    error: str = ""
    """Why nothing could be observed."""


def _metric(text: str, name: str, label: str = "") -> float | None:
    """Sum the series of a metric in Prometheus' text format."""
    values = [
        float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if line.startswith((f"{name} ", f"{name}{{")) and label in line
    ]
    return sum(values) if values else None


def measure_cancellation(
    target: Target, model: str, question: str, metrics: str, timeout_s: float
) -> CancelObservation:
    """Start an answer, disconnect, and wait until the metrics show that the engine call was cancelled."""
    try:
        parts = urlsplit(metrics if "://" in metrics else f"http://{metrics}")
        where, _ = address.parse(f"{parts.scheme}://{parts.netloc}")
        watched, path = Target(where, ca=target.ca), parts.path or "/metrics"
        before = _cancelled_calls(watched, path)
        with Connection(target) as connection:
            body = CHAT.request(model, [{"role": "user", "content": question}])
            response = connection.request("POST", CHAT.path, body, timeout_s=timeout_s)
            event = next((event for event in CHAT.events(response.chunks()) if CHAT.text_of(event.data)), None)
            if event is None or CHAT.is_end(event.data):
                return CancelObservation(began=False)
        disconnected_s = time.monotonic()
        while time.monotonic() - disconnected_s < _CANCEL_TIMEOUT_S:
            if _cancelled_calls(watched, path) > before:
                return CancelObservation(began=True, cancelled_s=time.monotonic() - disconnected_s)
            time.sleep(_POLL_S)
    except (*EXPECTED, ValueError) as error:
        return CancelObservation(began=False, error=str(error) or type(error).__name__)
    return CancelObservation(began=True)


def _cancelled_calls(target: Target, path: str) -> float:
    response = get(target, path, timeout_s=_CANCEL_TIMEOUT_S)
    text = response.body.decode("utf-8", "replace")
    if not response.ok or _metric(text, "brunix_gateway_workers") is None:
        raise ValueError("the address does not serve a gateway's metrics")
    return _metric(text, "brunix_gateway_engine_calls_total", 'code="CANCELLED"') or 0.0


def check_cancellation(seen: CancelObservation | None) -> Finding:
    """Check whether a disconnect frees the engine."""
    if seen is None:
        return Finding(
            "cancelling",
            "note",
            "not checked: whether a disconnect cancels the engine call is visible only in the metrics",
            todo="Use --metrics with the address of PROXY_METRICS_LISTEN.",
        )
    if seen.error:
        return Finding("cancelling", "note", f"the metrics cannot be read: {seen.error}", todo="Check --metrics.")
    if not seen.began:
        return Finding("cancelling", "note", "not checked: no answer was long enough to disconnect from")
    if seen.cancelled_s is None:
        return Finding(
            "cancelling",
            "warning",
            f"the engine call was not cancelled within {_CANCEL_TIMEOUT_S:.0f} s after a disconnect",
            "The answer was already complete, or a proxy keeps reading it and the engine works for no client.",
            "HAProxy: option abortonclose. nginx: no proxy_ignore_client_abort.",
        )
    figures = {"cancelled_after_ms": round(seen.cancelled_s * 1000, 1)}
    if seen.cancelled_s > _SLOW_S:
        return Finding(
            "cancelling",
            "warning",
            f"the engine call was cancelled only {seen.cancelled_s:.1f} s after a disconnect",
            "A proxy is slow to notice that a client has disconnected.",
            figures=figures,
        )
    return Finding(
        "cancelling",
        "ok",
        f"the engine call is cancelled {seen.cancelled_s * 1000:.0f} ms after a disconnect",
        figures=figures,
    )
