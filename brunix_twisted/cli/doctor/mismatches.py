"""Why a client's conversation did not continue in its session, as the gateway reports it to the same caller."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from http import HTTPStatus
from typing import Any, Final

import attrs

from brunix_twisted.cli.doctor.findings import Finding, Level
from brunix_twisted.cli.http_client import MAX_PAGE_BYTES, Connection, FullResponse, Target

PATH: Final = "/health/sessions"
_CONNECTIONS_PER_PROCESS: Final = 4
_MAX_CONNECTIONS: Final = 64
_MIN_TIMEOUT_S: Final = 0.1


@attrs.frozen
class SessionReport:
    """What the gateway reports to this caller."""

    status: int
    """The HTTP status."""
    match: str = ""
    """``fitting``, ``exact`` or ``off``; empty if it is not known."""
    mismatches: Sequence[Mapping[str, Any]] = ()
    """The latest first."""

    def of(self, request_id: str) -> Mapping[str, Any] | None:
        """Return why a request got a new session, if that is known."""
        return next((each for each in self.mismatches if each.get("request_id") == request_id), None)


def measure_report(target: Target, processes: int, timeout_s: float) -> SessionReport:
    """
    Read the report. Raises network errors.

    :param processes: the number of gateway processes. Each reports only the requests that it has answered. Connections
        stay open until all processes have been asked, because the one with the fewest accepts the next.
    """
    deadline_s = time.monotonic() + timeout_s
    status, match = 0, ""
    asked: set[str] = set()
    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    with ExitStack() as stack:
        for _ in range(min(_CONNECTIONS_PER_PROCESS * processes, _MAX_CONNECTIONS)):
            connection = stack.enter_context(Connection(target))
            remaining_s = max(_MIN_TIMEOUT_S, deadline_s - time.monotonic())
            response = connection.request("GET", PATH, timeout_s=remaining_s).read(MAX_PAGE_BYTES)
            status, data = response.status, _object(response)
            match = str(data.get("match", match))
            listed = data.get("mismatches")
            for each in listed if isinstance(listed, list) else ():
                if isinstance(each, dict):
                    found[str(each.get("time")), str(each.get("request_id"))] = each
            asked.add(str(data.get("process")))
            if len(asked) >= processes or not response.ok or time.monotonic() > deadline_s:
                break
    return SessionReport(status, match, [found[key] for key in sorted(found, reverse=True)])


def _object(response: FullResponse) -> dict[str, Any]:
    data = response.json() if response.ok else None
    return data if isinstance(data, dict) else {}


@attrs.frozen
class _Advice:
    """What a reason means, and what to do."""

    level: Level
    means: str
    todo: str


_NAMES: Final = "let it send a session id in X-Session-Id or session_id."
_ADVICE: Final = {
    "busy": _Advice(
        "note",
        "A session answers one question at a time. The client sent two questions of one conversation at once, or the "
        "next one before the answer had ended.",
        "If that is not intended, let the client wait for the end of an answer.",
    ),
    "several": _Advice(
        "warning",
        "The gateway does not guess which session is meant: clients that look like one caller may be strangers.",
        "Give each client a key, list proxies in PROXY_TRUSTED_PROXIES, or let the client send the complete "
        "conversation or a session id.",
    ),
    "changed question": _Advice(
        "warning",
        "The client changes earlier questions before it sends them again, for example by adding or removing context.",
        f"Turn that off in the client, or {_NAMES}",
    ),
    "changed answer": _Advice(
        "warning",
        "The client changes the answers that it has received before it sends them back, for example by removing or "
        "formatting a part.",
        f"Turn that off in the client, or {_NAMES}",
    ),
    "changed": _Advice(
        "warning",
        "The client changes what it has sent or received before it sends it again.",
        f"Turn that off in the client, or {_NAMES}",
    ),
    "elsewhere": _Advice(
        "warning",
        "Another gateway or process answered that turn and does not share its state with this one, or the client has "
        "inserted the turn.",
        "Set PROXY_STATE to a store that all gateways and processes share.",
    ),
    "window": _Advice(
        "warning",
        "The client shortens or summarises its conversations. At most one other turn may come before the last ones, "
        "unless three of them match.",
        f"Let the client keep more of the last turns, or {_NAMES}",
    ),
    "unknown": _Advice(
        "warning",
        "The gateway was restarted and keeps conversations in memory; or another gateway or process gave the answers "
        "and does not share its state; or the session has expired or was displaced; or the caller's key or address, or "
        "its editor context, has changed; or no gateway gave the answers, as in examples within a prompt. Callers that "
        "differ never share a session.",
        "Set PROXY_STATE to a store that survives a restart and that all gateways share. If a proxy forwards the "
        "requests, list it in PROXY_TRUSTED_PROXIES. PROXY_SESSION_MAX and PROXY_SESSION_MAX_AGE_S limit how many "
        "sessions are kept, and for how long.",
    ),
    "exact": _Advice(
        "note",
        "The client went back in its conversation, shortened it or stopped an answer. The gateway requires complete "
        "conversations.",
        "If callers do not share an address and a key, set PROXY_SESSION_MATCH=fitting.",
    ),
    "unavailable": _Advice(
        "warning",
        "While the state is unavailable, every conversation gets a new session.",
        "Check PROXY_STATE. `twistd brunix --check` on the gateway's machine shows more.",
    ),
}
_UNKNOWN_REASON: Final = _Advice("warning", "", "This release of the doctor does not know the reason.")


def advice_for(mismatch: Mapping[str, Any]) -> _Advice:
    """Return what to do about a mismatch."""
    return _ADVICE.get(_kind(mismatch), _UNKNOWN_REASON)


def _kind(mismatch: Mapping[str, Any]) -> str:
    differs = mismatch.get("differs")
    return f"{mismatch.get('reason')} {differs}" if differs else str(mismatch.get("reason"))


def has_key(target: Target) -> bool:
    """Return whether the doctor's requests have a key, which is a part of the caller."""
    names = {name.lower() for name, _ in target.headers}
    return target.address.authorization is not None or not names.isdisjoint({"authorization", "x-api-key"})


def check_mismatches(report: SessionReport, *, has_key: bool) -> list[Finding]:
    """Explain why questions of this caller got a new session: one finding for each reason."""
    if report.status != HTTPStatus.OK:
        return [
            Finding(
                "clients",
                "note",
                f"not checked: {PATH} returns {report.status}",
                "The gateway is older than this doctor, or a proxy blocks this path.",
                f"Update the gateway, or let {PATH} through to it.",
            )
        ]
    if report.match == "off":
        return [
            Finding(
                "clients",
                "note",
                "conversations do not continue automatically: PROXY_SESSION_CONTINUITY is off",
                "Every request without a session id gets a new session.",
            )
        ]
    if not report.mismatches:
        key = "the same key" if has_key else "no key"
        return [
            Finding(
                "clients",
                "ok",
                "no conversation of this caller has lost its session recently",
                f"This caller is every client with this address and {key}. For another client, run the doctor on its "
                "machine with its key, in BRUNIX_API_KEY or --header.",
            )
        ]
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for mismatch in report.mismatches:
        kinds.setdefault(_kind(mismatch), []).append(mismatch)
    return [_check_kind(kind) for kind in kinds.values()]


def _check_kind(mismatches: Sequence[Mapping[str, Any]]) -> Finding:
    latest = mismatches[0]
    advice = advice_for(latest)
    count = "a question" if len(mismatches) == 1 else f"{len(mismatches)} questions"
    request = f"Request {latest.get('request_id')} to {latest.get('endpoint')} at {latest.get('time')}"
    return Finding(
        "clients",
        advice.level,
        f"{count} of a known conversation got a new session" if latest.get("session") else f"{count} got a new session",
        f"{request}: {latest.get('explanation')} {advice.means}",
        advice.todo,
        {"mismatches": list(mismatches)},
    )
