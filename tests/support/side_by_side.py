"""
Run commands at the same time, and keep what they write apart: ``side_by_side.py "COMMAND" "COMMAND" …``.

What the first one writes is shown as it comes. It should be the one that takes longest: what the others have written is
shown when it has ended. The status is 0 if all have succeeded.
"""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack


def say(text: str) -> None:
    """Write a line, before what is written past Python's own buffer."""
    print(text, flush=True)  # noqa: T201 - a command of its own


def main(commands: Sequence[str]) -> int:
    """Run them all to their ends, whichever fails."""
    # As an exception, so that nobody is left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    begun_s = time.monotonic()
    with ExitStack() as stack:
        written = [stack.enter_context(tempfile.TemporaryFile()) for _ in commands[1:]]
        running = [
            stack.enter_context(
                subprocess.Popen(shlex.split(command), stdout=output, stderr=output)  # noqa: S603 - the caller's
            )
            for command, output in zip(commands, [None, *written], strict=True)
        ]
        try:
            statuses = [process.wait() for process in running]
        except KeyboardInterrupt:
            for process in running:
                process.send_signal(signal.SIGINT)
            return 130
        for command, output in zip(commands[1:], written, strict=True):
            output.seek(0)
            say(f"\n$ {command}")
            sys.stdout.buffer.write(output.read())
    failed = [command for command, status in zip(commands, statuses, strict=True) if status]
    say(f"\n{len(commands)} commands in {time.monotonic() - begun_s:.0f} s")
    for command in failed:
        say(f"failed: {command}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
