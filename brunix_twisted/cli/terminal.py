"""Write to standard output and standard error, and keep control characters away from terminals."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, TextIO

CLOSED_PIPE: Final = 141
"""The exit status that shells report for SIGPIPE."""
INTERRUPTED: Final = 130
"""The exit status that shells report for SIGINT."""

# All but line breaks and tabs: they could move the cursor, rename the window, or worse.
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_COLOURS: Final = {"ok": "32", "note": "36", "warning": "33", "problem": "31", "strong": "1"}


def strip_controls(text: str, stream: TextIO) -> str:
    """Remove control characters if the stream is a terminal; files and pipes get the text unchanged."""
    return _CONTROLS.sub("", text) if stream.isatty() else text


def coloured(text: str, colour: str, stream: TextIO, environment: Mapping[str, str]) -> str:
    """Colour the text if the stream is a terminal and NO_COLOR is not set (https://no-color.org)."""
    if not stream.isatty() or environment.get("NO_COLOR") or environment.get("TERM") == "dumb":
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


class OutputError(Exception):
    """The output or the terminal failed. A pipe whose reader has closed it raises BrokenPipeError instead."""


def write(text: str) -> None:
    """
    Write to standard output unchanged, and flush.

    :raises OutputError: it cannot be written, for example because the disk is full.
    :raises BrokenPipeError: the reader of the pipe has closed it.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        _abandon(sys.stdout)
        if isinstance(error, BrokenPipeError):
            raise
        raise OutputError(f"cannot write the output: {error.strerror or error}") from error


def print_out(text: str) -> None:
    """Write text to standard output without control characters. Raises what :func:`write` raises."""
    write(strip_controls(text, sys.stdout))


def print_err(line: str) -> None:
    """Write a line to standard error. Errors are ignored."""
    try:
        sys.stderr.write(strip_controls(line, sys.stderr) + "\n")
        sys.stderr.flush()
    except OSError:
        # It cannot be reported anywhere, and the output and the exit status can still be correct.
        _abandon(sys.stderr)


def prepare() -> None:
    """
    Make the standard streams usable, even if they are closed.

    :raises OutputError: standard output is closed.
    """
    # Python sets a closed stream to None.
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115 - stays open
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - stays open
    if sys.stdout is None:
        raise OutputError("standard output is closed")
    for stream in (sys.stdout, sys.stderr):
        # A character that the encoding lacks must not stop the command.
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="replace")


def is_text(text: str) -> bool:
    """Whether an argument or a line could be decoded."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _abandon(stream: TextIO) -> None:
    """Discard what is still buffered, so that Python does not report it again at exit."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
