"""
The gateway's log: a line for each request, the format of all events, and their destination.

The log never contains a prompt, an answer or a session id.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import syslog
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, Literal, cast

from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    eventAsText,
    formatTime,
)
from twisted.python.logfile import LogFile
from zope.interface import implementer

from brunix_twisted.observability.request_record import RequestRecord
from brunix_twisted.runtime.background import BackgroundWriter, write_all

Format = Literal["text", "json"]

# The format of an event whose text has been formatted already.
_LINE: Final = "{line}"

_PLAIN_VALUE: Final = re.compile(r"[!#-~]+")

_log = Logger("brunix.gateway")
_access_log = Logger("brunix.access")

# The standard fields, which an event's fields must not replace, and legacy fields of Twisted that repeat them.
_RESERVED_FIELDS: Final = frozenset(
    {"timestamp", "level", "logger", "message", "line", "time", "system", "format", "isError", "failure", "why"}
)


def log_request(record: RequestRecord) -> None:
    """
    Log the line of a request; the event also has the record's fields.

    Health checks are logged at the debug level, because they repeat every few seconds.
    """
    # Formatted here, since Twisted takes longer to format each field than this takes for all of them.
    first_token_s, status = record.first_token_s, record.status
    line = (
        f"{record.original_method} {record.path} {'gone' if record.gone else status} "
        f"{record.sent_bytes} bytes {record.total_s * 1000:.1f} ms request={record.request_id} "
        f"session={record.session or '-'} match={record.session_outcome or '-'} dialect={record.dialect} "
        f"first_ms={'-' if first_token_s is None else f'{first_token_s * 1000:.1f}'} tokens={record.tokens} "
        f"ended={record.reason}{f' side={record.side_request}' if record.side_request else ''}"
        f"{f' trace={record.trace_id}' if record.trace_id else ''}"
        f"{''.join(f' {name}={_quoted(value)}' for name, value in record.client.items())}"
    )
    _access_log.emit(
        LogLevel.debug if record.endpoint.startswith("/health") else LogLevel.info,
        _LINE,
        line=line,
        request_id=record.request_id,
        method=record.method,
        path=record.path,
        endpoint=record.endpoint,
        dialect=record.dialect,
        status=status,
        streamed=record.streamed,
        session=record.session,
        match=record.session_outcome,
        side=record.side_request,
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
        **record.client,
    )


def _quoted(value: str) -> str:
    """Quote a value that the client has chosen, unless it cannot be taken for something else in the line."""
    return value if _PLAIN_VALUE.fullmatch(value) else json.dumps(value)


def as_json(event: LogEvent) -> str:
    """Format an event as one line: a JSON object in ASCII, with those fields that JSON can represent."""
    level = event.get("log_level")
    fields = {
        "timestamp": datetime.fromtimestamp(event["log_time"], UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
        "level": "info" if level is None else level.name,
        "logger": event.get("log_namespace") or "-",
        "message": _text_of(event),
    }
    for name, value in event.items():
        if not name.startswith("log_") and name not in _RESERVED_FIELDS and _is_plain(value):
            fields[name] = round(value, 6) if isinstance(value, float) else value
    return json.dumps(fields) + "\n"


def _is_plain(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(item, str) for item in value)
    return value is None or isinstance(value, str | int | float)


def dropped_event(lines: int) -> LogEvent:
    """Return the event that reports the number of dropped lines."""
    events: list[LogEvent] = []
    log = Logger(_log.namespace, observer=cast("ILogObserver", events.append))
    log.warn("{dropped} log lines dropped: they were not read in time", dropped=lines)  # noqa: G010 - Twisted's method
    return events[0]


@implementer(ILogObserver)
class BackgroundObserver:
    """
    Logs without waiting for the log's reader.

    A background thread writes the lines, and lines are dropped while it is far behind. While the reactor does not run,
    at the start and at the exit of the process, each event waits briefly until it is written, so that it is not lost.
    """

    def __init__(
        self, write: Callable[[bytes], object], line: Callable[[LogEvent], bytes], runs: Callable[[], bool]
    ) -> None:
        """
        Write nothing yet.

        :param write: writes whole lines; may block.
        :param line: formats an event, including the newline.
        :param runs: returns whether the reactor runs.
        """
        self._line = line
        self._runs = runs
        self._writer = BackgroundWriter(write, lambda lines: line(dropped_event(lines)))

    def __call__(self, event: LogEvent) -> None:
        """Log an event. May be called from any thread."""
        if line := self._line(event):
            self._writer.put(line)
        if not self._runs():
            self._writer.flush()


def reactor_runs() -> bool:
    """Return whether the reactor runs; then its thread must not wait."""
    from twisted.internet import reactor  # noqa: PLC0415 - importing it installs one, and twistd chooses which

    return bool(getattr(reactor, "running", True))


def observer(
    write: Callable[[bytes], object],
    line: Callable[[LogEvent], bytes] | Format,
    runs: Callable[[], bool] | None = None,
) -> ILogObserver:
    """Return an observer that logs everything from level info; see :class:`BackgroundObserver`."""
    if line == "text":
        line = _as_text
    elif line == "json":
        line = _as_json_line
    shown = LogLevelFilterPredicate(defaultLogLevel=LogLevel.info)
    written = BackgroundObserver(write, line, runs or reactor_runs)
    return cast("ILogObserver", FilteringLogObserver(written, [shown]))


def twistd_observer(twistd: Mapping[str, Any], log_format: Format) -> ILogObserver | None:
    """
    Return the observer for twistd's logging options; None if twistd uses another logger.

    :param twistd: twistd's options.
    """
    name = twistd.get("logfile")
    if twistd.get("logger") or (name == "-" and not twistd.get("nodaemon") and not twistd.get("syslog")):
        _on_sigusr1(_do_nothing)
        return None
    if twistd.get("syslog"):
        _on_sigusr1(_do_nothing)
        return observer(_to_syslog(twistd.get("prefix") or "twisted"), _for_syslog)
    if name == "-" or (twistd.get("nodaemon") and not name):
        _on_sigusr1(_do_nothing)
        return observer(_to_standard_output(), log_format)
    path = os.path.abspath(name or "twistd.log")  # noqa: PTH100 - unlike resolve(), it follows no link
    if os.path.exists(path) and not os.path.isfile(path):  # noqa: PTH110, PTH113 - as above
        _on_sigusr1(_do_nothing)
        return observer(_to_pipe(path), log_format)
    return observer(_to_file(path), log_format)


def _on_sigusr1(do: Callable[[], None]) -> None:
    """Handle SIGUSR1, which otherwise kills the process. An ignored SIGUSR1 stays ignored."""
    from twisted.internet import reactor  # noqa: PLC0415 - see above

    if not signal.getsignal(signal.SIGUSR1):
        signal.signal(signal.SIGUSR1, lambda *_: cast("IReactorFromThreads", reactor).callFromThread(do))


def _do_nothing() -> None:
    """Ignore SIGUSR1: there is no file to reopen."""


def _text_of(event: LogEvent) -> str:
    """Return the text of an event. Twisted would format the line of a request once more."""
    if event.get("log_format") == _LINE:
        return str(event["line"])
    return eventAsText(event, includeTimestamp=False, includeSystem=False)


def _as_text(event: LogEvent) -> bytes:
    """Format an event as Twisted does."""
    if not (text := _text_of(event)):
        return b""
    time_s, level = event.get("log_time"), event.get("log_level")
    system = event.get("log_system") or f"{event.get('log_namespace', '-')}#{'-' if level is None else level.name}"
    line = f"{_formatted_time(None if time_s is None else int(time_s))} [{system}] {text}".replace("\n", "\n\t")
    return f"{line}\n".encode("utf-8", "backslashreplace")


@lru_cache(4)
def _formatted_time(time_s: int | None) -> str:
    # Once a second: formatting a time takes as long as everything else of a line.
    return formatTime(time_s)


def _as_json_line(event: LogEvent) -> bytes:
    return as_json(event).encode("ascii")


def _to_standard_output() -> Callable[[bytes], object]:
    out = sys.stdout
    try:
        descriptor = out.fileno()
    except (OSError, ValueError):
        # A program that embeds twistd has replaced sys.stdout.
        return lambda lines: (out.write(lines.decode("utf-8")), out.flush())
    # Keep the order with earlier output.
    out.flush()
    return lambda lines: write_all(descriptor, lines)


def _to_file(path: str) -> Callable[[bytes], object]:
    """Write to a file. SIGUSR1 reopens it, for programs that rename it, such as logrotate."""
    file = LogFile.fromFullPath(path)

    def write(lines: bytes) -> None:
        file.write(lines)

    def reopen() -> None:
        nonlocal file
        try:
            # The background thread may still use the old file, which is closed when it is garbage collected.
            file = LogFile.fromFullPath(path)
        except OSError as fault:
            _log.error("SIGUSR1: cannot open the log file {path}: {fault}", path=path, fault=fault.strerror)
        else:
            _log.info("SIGUSR1: opened the log file {path} again", path=path)

    _on_sigusr1(reopen)
    return write


def _to_pipe(path: str) -> Callable[[bytes], object]:
    """Write to a named pipe or the like. Opening it waits for a reader, so the background thread opens it."""
    opened: list[int] = []

    def write(lines: bytes) -> None:
        if not opened:
            opened.append(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOCTTY))
        try:
            write_all(opened[0], lines)
        except BrokenPipeError:
            # Reopen it with the next lines: another reader may open the pipe.
            os.close(opened.pop())

    return write


_SYSLOG_PRIORITIES: Final = {
    LogLevel.debug: syslog.LOG_DEBUG,
    LogLevel.info: syslog.LOG_INFO,
    LogLevel.warn: syslog.LOG_WARNING,
    LogLevel.error: syslog.LOG_ERR,
    LogLevel.critical: syslog.LOG_ALERT,
}


def _for_syslog(event: LogEvent) -> bytes:
    """Format each line of an event with its priority in front, for :func:`_to_syslog`."""
    first, *rest = eventAsText(event, includeTimestamp=False).split("\n")
    priority = _SYSLOG_PRIORITIES.get(event.get("log_level"), syslog.LOG_INFO)
    lines = (first, *(f"\t{line}" for line in rest if line))
    return "".join(f"{priority} {line}\n" for line in lines).encode("utf-8", "backslashreplace")


def _to_syslog(prefix: str) -> Callable[[bytes], object]:
    """Send lines to syslog, as twistd's observer does. The syslog daemon may be slow too."""
    syslog.openlog(prefix, 0, syslog.LOG_USER)

    def write(lines: bytes) -> None:
        for line in lines.decode("utf-8").split("\n")[:-1]:
            priority, _, text = line.partition(" ")
            syslog.syslog(int(priority), text.replace("\0", ""))

    return write
