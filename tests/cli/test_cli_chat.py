"""``brunix chat`` in a terminal."""

from __future__ import annotations

import os
import pty
import select
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from cli_commands import COMMAND, brunix
from cli_gateways import Gateway, free_port
from fake_reactor import LIMIT_S
from isolation import CLEAN
from scripted_engine import ScriptedEngine, script

CONTROL_C: Final = b"\x03"
CONTROL_D: Final = b"\x04"
UP: Final = b"\x1b[A"
LEFT: Final = b"\x1b[D"
PROMPT: Final = b"> "


class Terminal:
    """A terminal in which a chat runs."""

    def __init__(self, process: subprocess.Popen[bytes], leader: int) -> None:
        self.process = process
        self._leader = leader
        self.shown = b""
        """What was shown since the last :meth:`until`."""

    def type(self, keys: bytes) -> None:
        """Press these keys."""
        os.write(self._leader, keys)

    def until(self, wanted: bytes) -> bytes:
        """Wait until this is shown, and return what was shown before it."""
        deadline_s = time.monotonic() + LIMIT_S
        while wanted not in self.shown:
            ready, _, _ = select.select([self._leader], [], [], max(0, deadline_s - time.monotonic()))
            assert ready, f"{wanted!r} was not shown: {self.shown!r}"
            try:
                self.shown += os.read(self._leader, 4096)
            except OSError:
                raise AssertionError(f"{wanted!r} was not shown, and the chat has ended: {self.shown!r}") from None
        before, _, self.shown = self.shown.partition(wanted)
        return before

    def wait_for_prompt(self) -> None:
        """
        Wait until the chat waits for a key.

        While it still echoes the previous key, Python handles a signal only with the next one.
        """
        deadline_s = time.monotonic() + LIMIT_S
        stat = Path(f"/proc/{self.process.pid}/stat")
        while stat.read_text("utf-8").rpartition(")")[2].split()[0] != "S":
            assert time.monotonic() < deadline_s
            time.sleep(0.001)

    def end(self) -> int:
        """Wait for the end and return the exit status, discarding the rest of the output."""
        with suppress(OSError):
            while select.select([self._leader], [], [], LIMIT_S)[0] and os.read(self._leader, 4096):
                pass
        return self.process.wait(LIMIT_S)


@contextmanager
def chat(url: str, *arguments: str) -> Iterator[Terminal]:
    """Start a chat in a new terminal."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(  # noqa: S603 - this interpreter
        # In a new session, the terminal becomes the controlling terminal, so that Control-C reaches the chat.
        ["setsid", "--ctty", *COMMAND, "chat", "--url", url, *arguments],  # noqa: S607 - Linux
        env=CLEAN | {"TERM": "xterm", "INPUTRC": os.devnull},
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    try:
        yield Terminal(process, leader)
    finally:
        process.kill()
        process.wait()
        os.close(leader)


def test_a_conversation(served: Gateway, shared_engine: ScriptedEngine) -> None:
    """Each question continues the session; /new and /session change it."""
    known = len(shared_engine.calls)
    with chat(served.url) as terminal:
        assert b"brunix at " in terminal.until(PROMPT)
        terminal.type(b"one two\n")
        terminal.until(b"one two \r\n\r\n")
        terminal.until(PROMPT)
        terminal.type(b"three\n")
        terminal.until(b"three \r\n\r\n")
        terminal.until(PROMPT)
        session = shared_engine.calls[known].request.session_id
        terminal.type(b"/session\n")
        terminal.until(f"[{session}]".encode())
        terminal.until(PROMPT)
        terminal.type(b"/new\n")
        terminal.until(b"[new conversation]")
        terminal.until(PROMPT)
        terminal.type(b"four\n")
        terminal.until(b"four \r\n\r\n")
        terminal.until(PROMPT)
        terminal.type(b"/session ticket-7\n")
        terminal.until(b"[ticket-7]")
        terminal.until(PROMPT)
        terminal.type(b"five\n")
        terminal.until(b"five \r\n\r\n")
        terminal.until(PROMPT)
        terminal.type(b"/quit\n")
        assert terminal.end() == 0
    sessions = [call.request.session_id for call in shared_engine.calls[known:]]
    assert sessions[:2] == [session, session]
    assert sessions[2] not in {session, "ticket-7"}
    assert sessions[3:] == ["ticket-7"]


def test_control_c_stops_only_the_answer(served: Gateway, shared_engine: ScriptedEngine) -> None:
    """Control-C cancels the engine call, and the chat continues in the same session."""
    known = len(shared_engine.calls)
    with chat(served.url, "--session", "kept") as terminal:
        terminal.until(PROMPT)
        terminal.type(script("begun ", {"hang": True}).encode() + b"\n")
        terminal.until(b"\r\nbegun ")
        terminal.wait_for_prompt()
        terminal.type(CONTROL_C)
        terminal.until(b"[stopped;")
        assert shared_engine.calls[known].ended.wait(LIMIT_S)
        terminal.until(PROMPT)
        terminal.type(b"and now\n")
        terminal.until(b"and now \r\n")
        assert shared_engine.calls[known + 1].request.session_id == "kept"


def test_control_c_at_the_prompt(served: Gateway) -> None:
    """Control-C at the prompt drops the line, and the chat continues."""
    with chat(served.url) as terminal:
        terminal.until(PROMPT)
        terminal.type(b"half a quest")
        terminal.until(b"half a quest")
        terminal.wait_for_prompt()
        terminal.type(CONTROL_C)
        terminal.until(PROMPT)
        terminal.type(b"one\n")
        terminal.until(b"one \r\n")


def test_control_d_leaves(served: Gateway) -> None:
    """Control-D ends the chat with exit status 0."""
    with chat(served.url) as terminal:
        terminal.until(PROMPT)
        terminal.type(CONTROL_D)
        assert terminal.end() == 0


def test_a_line_can_be_edited(served: Gateway, shared_engine: ScriptedEngine) -> None:
    """The arrow keys move the cursor and recall lines."""
    with chat(served.url) as terminal:
        terminal.until(PROMPT)
        terminal.type(b"acd" + LEFT + LEFT + b"b\n")
        terminal.until(b"abcd \r\n\r\n")
        assert shared_engine.calls[-1].request.query == "abcd"
        terminal.until(PROMPT)
        terminal.type(UP + b"e\n")
        terminal.until(b"abcde \r\n\r\n")


def test_commands(served: Gateway) -> None:
    """Commands start with a slash, unknown ones are never sent as questions, and empty lines are ignored."""
    with chat(served.url) as terminal:
        terminal.until(PROMPT)
        terminal.type(b"/help\n")
        terminal.until(b"Control-C stops an answer")
        terminal.until(PROMPT)
        terminal.type(b"/hlep\n")
        terminal.until(b"[unknown command /hlep; /help lists the commands]")
        terminal.until(PROMPT)
        terminal.type(b"/session\n")
        terminal.until(b"no session yet")
        terminal.until(PROMPT)
        terminal.type(b"\n")
        terminal.until(PROMPT)
        terminal.type(b"/exit\n")
        assert terminal.end() == 0


def test_a_failed_question(served: Gateway) -> None:
    """The chat continues after a question that failed."""
    with chat(served.url) as terminal:
        terminal.until(PROMPT)
        terminal.type(script("half ", {"status": "INTERNAL"}).encode() + b"\n")
        terminal.until(b"\r\nhalf \r\n[")
        terminal.until(PROMPT)
        terminal.type(b"one\n")
        terminal.until(b"one \r\n")


def test_history(served: Gateway, tmp_path: Path) -> None:
    """The history is kept only with --history, and only its owner can read it."""
    keep_alive = tmp_path / "history"
    with chat(served.url) as terminal:
        terminal.until(PROMPT)
        terminal.type(b"secret\n")
        terminal.until(b"secret \r\n\r\n")
        terminal.until(PROMPT)
        terminal.type(CONTROL_D)
        assert terminal.end() == 0
    assert not keep_alive.exists()
    for question in (b"first", b"second"):
        with chat(served.url, "--history", os.fspath(keep_alive)) as terminal:
            terminal.until(PROMPT)
            terminal.type(question + b"\n")
            terminal.until(question + b" \r\n\r\n")
            terminal.until(PROMPT)
            terminal.type(CONTROL_D)
            assert terminal.end() == 0
    assert keep_alive.read_text("utf-8").split() == ["first", "second"]
    assert stat.S_IMODE(keep_alive.stat().st_mode) == 0o600


def test_without_a_terminal(served: Gateway) -> None:
    """A script can have a conversation."""
    done = brunix("chat", "--url", served.url, stdin="one\n\ntwo\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "one \n\ntwo \n\n", "")


def test_connection_refused() -> None:
    """If nothing listens at the address, the chat ends before the first question."""
    done = brunix("chat", "--url", f"http://127.0.0.1:{free_port()}", stdin="one\n")
    assert (done.returncode, done.stdout) == (1, "")
    assert "nothing listens at" in done.stderr
