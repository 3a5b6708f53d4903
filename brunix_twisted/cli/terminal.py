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


def harmless(text: str, stream: TextIO) -> str:
    """Take away what a terminal would obey; a file or a pipe gets the text as it is."""
    return _CONTROLS.sub("", text) if stream.isatty() else text


def coloured(text: str, colour: str, stream: TextIO, environment: Mapping[str, str]) -> str:
    """Colour a text where there is somebody to see it, and who has not said no: https://no-color.org."""
    if not stream.isatty() or environment.get("NO_COLOR") or environment.get("TERM") == "dumb":
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def out(text: str) -> None:
    """Write to the standard output, at once."""
    sys.stdout.write(harmless(text, sys.stdout))
    sys.stdout.flush()


def told(line: str) -> None:
    """Write a line for the person who runs the command, beside its output."""
    sys.stderr.write(harmless(line, sys.stderr) + "\n")
    sys.stderr.flush()


def prepare() -> None:
    """Let no character stop the command that the terminal's encoding does not have."""
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="replace")


def abandon_output() -> None:
    """Let the interpreter's end not complain of a pipe whose reader has gone."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
