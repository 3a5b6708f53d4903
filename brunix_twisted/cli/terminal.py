"""What is written to a terminal, and what must not reach one."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, TextIO

CLOSED_PIPE: Final = 141
"""The status of a program that SIGPIPE ended, as a shell tells it."""
INTERRUPTED: Final = 130
"""Likewise of SIGINT."""

# Anything but a line break and a tab may move the cursor, rename the window or worse: text is only to be read.
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_COLOURS: Final = {"ok": "32", "note": "36", "warning": "33", "problem": "31", "strong": "1"}


def strip_controls(text: str, stream: TextIO) -> str:
    """Take away what a terminal would obey; a file or a pipe gets the text as it is."""
    return _CONTROLS.sub("", text) if stream.isatty() else text


def coloured(text: str, colour: str, stream: TextIO, environment: Mapping[str, str]) -> str:
    """Colour a text where there is somebody to see it, and who has not said no: https://no-color.org."""
    if not stream.isatty() or environment.get("NO_COLOR") or environment.get("TERM") == "dumb":
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


class OutputError(Exception):
    """The output or the terminal fails; the text says how. The reader of a pipe having gone is a BrokenPipeError."""


def write(text: str) -> None:
    """
    Write to the standard output, at once, whatever a terminal makes of it.

    :raises OutputError: it cannot be written, as on a full disk.
    :raises BrokenPipeError: its reader has gone.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        _abandon(sys.stdout)
        if isinstance(error, BrokenPipeError):
            raise
        raise OutputError(f"the output cannot be written: {error.strerror or error}") from error


def print_out(text: str) -> None:
    """Write to the standard output what is only to be read; raises as :func:`write` does."""
    write(strip_controls(text, sys.stdout))


def print_err(line: str) -> None:
    """Write a line for the person who runs the command, beside its output."""
    try:
        sys.stderr.write(strip_controls(line, sys.stderr) + "\n")
        sys.stderr.flush()
    except OSError:
        # There is no other place where it could be said, and the output and the status still can be right.
        _abandon(sys.stderr)


def prepare() -> None:
    """
    Make the standard streams usable, however the command was started.

    :raises OutputError: the standard output is closed.
    """
    # Python has None in place of a stream that is closed.
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115 - open until the end
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - likewise
    if sys.stdout is None:
        raise OutputError("the standard output is closed")
    for stream in (sys.stdout, sys.stderr):
        # Let no character stop the command that the terminal's encoding does not have.
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="replace")


def is_text(text: str) -> bool:
    """Whether an argument or a line is text, and not bytes that could not be decoded."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _abandon(stream: TextIO) -> None:
    """Drop what is still to be written, at the interpreter's end too, which would complain of it."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
