"""Whether a conversation goes on where it was left, and whether leaving one frees the engine."""

from __future__ import annotations

import time
from typing import Final
from urllib.parse import urlsplit

import attrs

from brunix_twisted.cli import address
from brunix_twisted.cli.api_formats import CHAT
from brunix_twisted.cli.diagnosis import EXPECTED
from brunix_twisted.cli.doctor.findings import Finding
from brunix_twisted.cli.doctor.streams import StreamObservation
from brunix_twisted.cli.http_client import Connection, Target, get

_CANCEL_LIMIT_S: Final = 5.0
_POLL_S: Final = 0.05
_SLOW_S: Final = 2.0


def check_sessions(
    first: StreamObservation, unnamed: StreamObservation | None, named: StreamObservation | None, named_id: str
) -> list[Finding]:
    """
    Say whether follow-up questions go on in the session of the first.

    :param unnamed: asked with the conversation so far, as most clients do; None: it was not.
    :param named: asked with a session's id; None: it was not.
    :param named_id: that session's id.
    """
    if not first.session_id:
        if first.diagnosis or not first.text_s:
            return []
        return [
            Finding(
                "sessions",
                "warning",
                "X-Session-Id does not arrive with an answer",
                "Clients that keep a conversation by it cannot.",
                "Let the proxy pass the answers' headers on.",
            )
        ]
    found = []
    if named is not None and named.session_id:
        if named.session_id == named_id:
            found.append(Finding("sessions", "ok", "a follow-up question with X-Session-Id goes on in its session"))
        else:
            found.append(
                Finding(
                    "sessions",
                    "problem",
                    "a follow-up question with X-Session-Id is asked in another session",
                    "The engine knows nothing of the question before it.",
                    "The header does not reach the gateway: let the proxy pass X-Session-Id on.",
                )
            )
    if unnamed is not None and unnamed.session_id:
        if unnamed.session_id == first.session_id:
            found.append(
                Finding("sessions", "ok", "a follow-up question without an id is recognised by its conversation")
            )
        else:
            found.append(
                Finding(
                    "sessions",
                    "note",
                    "a follow-up question without an id got a fresh session",
                    "Each gateway process remembers its own conversations: with several, the question may have met "
                    "another. Or PROXY_SESSION_CONTINUITY is off.",
                    "Send a client to the same gateway always, or have it name the session.",
                )
            )
    return found


@attrs.frozen
class CancelObservation:
    """What was seen of an answer that was left."""

    began: bool
    """Whether there was an answer to leave."""
    seen_s: float | None = None
    """How long after it was left the engine was seen free; None: it was not."""
    diagnosis: str = ""
    """Why nothing could be seen."""


def _metric(text: str, name: str, label: str = "") -> float | None:
    """Add up a metric's series in what Prometheus is given."""
    values = [
        float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if line.startswith((f"{name} ", f"{name}{{")) and label in line
    ]
    return sum(values) if values else None


def _cancelled(text: str) -> float:
    return _metric(text, "brunix_gateway_engine_calls_total", 'code="CANCELLED"') or 0.0


def measure_cancellation(
    target: Target, model: str, question: str, metrics: str, timeout_s: float
) -> CancelObservation:
    """Begin an answer, leave it, and see in the metrics when the engine's call has ended."""
    try:
        parts = urlsplit(metrics if "://" in metrics else f"http://{metrics}")
        where, _ = address.read(f"{parts.scheme}://{parts.netloc}")
        watched, path = Target(where, ca=target.ca), parts.path or "/metrics"
        before = _scrape(watched, path)
        with Connection(target) as connection:
            body = CHAT.request(model, [{"role": "user", "content": question}])
            response = connection.request("POST", CHAT.path, body, timeout_s=timeout_s)
            event = next((event for event in CHAT.events(response.chunks()) if CHAT.text_of(event.data)), None)
            if event is None or CHAT.is_end(event.data):
                return CancelObservation(began=False)
        left_s = time.monotonic()
        while time.monotonic() - left_s < _CANCEL_LIMIT_S:
            if _cancelled(_scrape(watched, path)) > _cancelled(before):
                return CancelObservation(began=True, seen_s=time.monotonic() - left_s)
            time.sleep(_POLL_S)
    except (*EXPECTED, ValueError) as error:
        return CancelObservation(began=False, diagnosis=str(error) or type(error).__name__)
    return CancelObservation(began=True)


def _scrape(target: Target, path: str) -> str:
    response = get(target, path, timeout_s=_CANCEL_LIMIT_S)
    text = response.body.decode("utf-8", "replace")
    if not response.ok or _metric(text, "brunix_gateway_workers") is None:
        raise ValueError("there are no metrics of a gateway's")
    return text


def check_cancellation(seen: CancelObservation | None) -> Finding:
    """Say whether an answer that is left frees the engine."""
    if seen is None:
        return Finding(
            "cancelling",
            "note",
            "whether the engine stops when a client leaves cannot be seen from here",
            todo="--metrics with the address of PROXY_METRICS_LISTEN shows it.",
        )
    if seen.diagnosis:
        return Finding(
            "cancelling", "note", f"the metrics cannot be read: {seen.diagnosis}", todo="Is --metrics right?"
        )
    if not seen.began:
        return Finding("cancelling", "note", "there was no answer long enough to be left")
    if seen.seen_s is None:
        return Finding(
            "cancelling",
            "warning",
            f"an answer was left, and the engine's call had not been cancelled {_CANCEL_LIMIT_S:.0f} s later",
            "The answer had ended already, or something in between reads on for clients that have gone, and the engine "
            "works for nobody.",
            "HAProxy: option abortonclose; nginx: no proxy_ignore_client_abort.",
        )
    figures = {"cancelled_after_ms": round(seen.seen_s * 1000, 1)}
    if seen.seen_s > _SLOW_S:
        return Finding(
            "cancelling",
            "warning",
            f"an answer was left, and the engine's call was cancelled only after {seen.seen_s:.1f} s",
            "Something in between notices late that a client has gone.",
            figures=figures,
        )
    return Finding(
        "cancelling",
        "ok",
        f"an answer was left, and the engine is free {seen.seen_s * 1000:.0f} ms later",
        figures=figures,
    )
