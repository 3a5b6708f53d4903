"""
A process that uses a state database, for tests of several at once.

It prints ``ready`` once it has opened the file, and begins at the first line on its standard input.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from brunix_twisted.state import StateLimits, StateUnavailableError
from brunix_twisted.state.sqlite_database import DatabaseFile

LIMITS = StateLimits(max_sessions=10_000, max_age_s=86_400.0, max_bodies=1000, max_bytes=1 << 26)


def say(what: object) -> None:
    print(what, flush=True)  # noqa: T201 - to the test


def claim(database: DatabaseFile, count: int) -> None:
    """Claim each session that no other process has claimed, and print its number."""
    for number in range(count):
        (entry,) = database.find([b"%016d" % number], 1)
        if not entry.held and database.put(str(number), b"", [b"%016d" % number], entry.version, held=True):
            say(number)


def hold(database: DatabaseFile, session_id: str) -> None:
    """Hold a session until the process is killed."""
    assert database.put(session_id, b"", [b"key"], 0, held=True)
    say("held")
    time.sleep(600)


def write(database: DatabaseFile) -> None:
    """Write sessions until the process is killed."""
    number = 0
    while True:
        number += 1
        assert database.put(str(number), b"x" * 5000, [b"%016d" % number, b"all"], 0, held=False)
        say(number)


def fill(database: DatabaseFile, filler: Path) -> None:
    """Write sessions until the disk is full, free some space, and write again."""
    number = 0
    try:
        while True:
            number += 1
            database.put(str(number), b"x" * 5000, [b"key"], 0, held=False)
    except StateUnavailableError as error:
        say(error)
    say(database.get("1") is not None)
    filler.unlink()
    say(database.put("again", b"x" * 5000, [b"key"], 0, held=False))


def read(database: DatabaseFile) -> None:
    """Read a session, and print what is wrong with that, if anything is."""
    try:
        database.open()
        say(database.get("one"))
    except StateUnavailableError as error:
        say(error)


if __name__ == "__main__":
    task, path, *arguments = sys.argv[1:]
    file = DatabaseFile(Path(path), LIMITS, time.time, durable=True)
    if task == "read" and os.geteuid() == 0:
        # The superuser may write everything.
        os.setuid(65534)
    if task not in {"read", "fill"}:
        file.open()
        say("ready")
        sys.stdin.readline()
    if task == "claim":
        claim(file, int(arguments[0]))
    elif task == "hold":
        hold(file, arguments[0])
    elif task == "write":
        write(file)
    elif task == "fill":
        fill(file, Path(arguments[0]))
    else:
        read(file)
