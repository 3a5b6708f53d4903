"""
What the gateway writes to its log: a line for each request, and the form of everything that is logged.

Never a prompt, never an answer, never a session's id.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import IO, Any, Final, Literal, cast

from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    eventAsText,
    textFileLogObserver,
)
from twisted.python.logfile import LogFile

from brunix_twisted.records import Record

Format = Literal["text", "json"]

_log = Logger()

# What an event's own fields may not replace, and what older parts of Twisted add that is told already.
_TOLD: Final = frozenset(
    {"time", "level", "namespace", "text", "line", "message", "system", "format", "isError", "failure", "why"}
)


def log_request(record: Record) -> None:
    """
    Write the line of a request; the record's fields stand beside it in the event.

    Those of health checks come every few seconds and tell nothing new: they are for who debugs.
    """
    # Made here, since Twisted takes longer for each field than this does for all of them.
    first_token_s, status = record.first_token_s, record.status
    line = (
        f"{record.spelled_method} {record.path} {'gone' if record.gone else status} "
        f"{record.sent_bytes} bytes {record.total_s * 1000:.1f} ms request={record.request_id} "
        f"session={record.session or '-'} dialect={record.dialect} "
        f"first_ms={'-' if first_token_s is None else f'{first_token_s * 1000:.1f}'} tokens={record.tokens} "
        f"ended={record.reason}{f' trace={record.trace_id}' if record.trace_id else ''}"
    )
    _log.emit(
        LogLevel.debug if record.endpoint.startswith("/health") else LogLevel.info,
        "{line}",
        line=line,
        request_id=record.request_id,
        method=record.method,
        path=record.path,
        endpoint=record.endpoint,
        dialect=record.dialect,
        status=status,
        streamed=record.streamed,
        session=record.session,
        trace=record.trace_id,
        queue_s=record.queue_s,
        first_token_s=first_token_s,
        engine_s=record.engine_s,
        total_s=record.total_s,
        tokens=record.tokens,
        prompt_tokens=record.prompt_tokens,
        calls=[f"{rpc} {name}" for rpc, name in record.calls],
        ended=record.reason,
        sent_bytes=record.sent_bytes,
    )


def as_json(event: LogEvent) -> str:
    """Write an event as one line: a JSON object of ASCII, with the fields that JSON has a form for."""
    level = event.get("log_level")
    told = {
        "time": datetime.fromtimestamp(event["log_time"], UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
        "level": "info" if level is None else level.name,
        "namespace": event.get("log_namespace") or "-",
        "text": eventAsText(event, includeTimestamp=False, includeSystem=False),
    }
    for name, value in event.items():
        if not name.startswith("log_") and name not in _TOLD and _is_plain(value):
            told[name] = round(value, 6) if isinstance(value, float) else value
    return json.dumps(told) + "\n"


def _is_plain(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(item, str) for item in value)
    return value is None or isinstance(value, str | int | float)


def observer(out: IO[Any], log_format: Format) -> ILogObserver:
    """Write to a file whatever is logged, but for what only who debugs wants to see."""
    written = textFileLogObserver(out) if log_format == "text" else FileLogObserver(out, as_json)
    shown = LogLevelFilterPredicate(defaultLogLevel=LogLevel.info)
    return cast("ILogObserver", FilteringLogObserver(written, [shown]))


def twistd_observer(twistd: Mapping[str, Any], log_format: Format) -> ILogObserver | None:
    """
    Log where twistd's own options say; None: that is left to twistd, which has been told of another logger.

    :param twistd: its options.
    """
    name = twistd.get("logfile")
    if twistd.get("logger") or twistd.get("syslog") or (name == "-" and not twistd.get("nodaemon")):
        return None
    if name == "-" or (twistd.get("nodaemon") and not name):
        return observer(sys.stdout, log_format)
    file = LogFile.fromFullPath(name or "twistd.log")
    if not signal.getsignal(signal.SIGUSR1):
        # As twistd has it.
        signal.signal(signal.SIGUSR1, lambda *_: _rotate(file))
    return observer(cast("IO[Any]", file), log_format)


def _rotate(file: LogFile) -> None:
    from twisted.internet import reactor  # noqa: PLC0415 - importing it installs one, and which is twistd's to choose

    cast("IReactorFromThreads", reactor).callFromThread(file.rotate)
