"""``brunix chat``: a conversation in the terminal, kept by the engine."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from contextlib import suppress
from typing import Any, Final

import attrs

from brunix_twisted.cli.chat_client import DEFAULT_MODEL, ChatCompletion, listed_model
from brunix_twisted.cli.diagnosis import DiagnosisError
from brunix_twisted.cli.http_client import Target
from brunix_twisted.cli.terminal import INTERRUPTED, OutputError, is_text, print_err, print_out

_PROMPT: Final = "> "
_UNDECODABLE: Final = "\udcff"
"""How Python decodes an invalid byte."""
_HELP: Final = """\
/new            start a new conversation
/session        show the engine session; /session NAME switches to another one
/help           show this help
/quit           leave; so does Control-D
Control-C stops an answer. Every line that does not start with a slash is a question.
"""


@attrs.define
class _Chat:
    """The state that is kept between questions."""

    target: Target
    model: str
    idle_timeout_s: float
    session_id: str | None

    def answer(self, question: str) -> None:
        """Ask, and print the answer. Control-C stops only the answer."""
        answer = ChatCompletion(self.target, question, model=self.model, session_id=self.session_id, stream=True)
        last = ""
        try:
            for text in answer.texts(self.idle_timeout_s):
                print_out(text)
                last = text or last
            ended = ""
        except DiagnosisError as error:
            ended = f"{error.diagnosis.message}. {error.diagnosis.remedy}".strip()
        except KeyboardInterrupt:
            answer.close()
            ended = "stopped; the engine does not keep this question"
        # The session is known as soon as the answer starts, and continues even if the answer failed.
        self.session_id = answer.session_id
        if last and not last.endswith("\n"):
            print_out("\n")
        if ended:
            print_err(f"[{ended}]")
        print_out("\n")

    def run_command(self, line: str) -> bool:
        """Run a line that starts with a slash, and return whether the chat continues."""
        command, _, rest = line.partition(" ")
        if command in {"/quit", "/exit"}:
            return False
        if command == "/new":
            self.session_id = None
            print_err("[new conversation]")
        elif command == "/session":
            if not (rest.isascii() and rest.isprintable()):
                print_err("[a session id must be printable ASCII without spaces]")
                return True
            self.session_id = rest.strip() or self.session_id
            print_err(f"[{self.session_id or 'no session yet; the first answer starts one'}]")
        elif command == "/help":
            print_out(_HELP)
        else:
            print_err(f"[unknown command {command}; /help lists the commands]")
        return True


def chat(options: Namespace, target: Target) -> int:
    """Run the command."""
    try:
        model = options.model or listed_model(target) or DEFAULT_MODEL
    except DiagnosisError as error:
        print_err(f"brunix chat: {error.diagnosis.message}")
        if error.diagnosis.remedy:
            print_err(f"  {error.diagnosis.remedy}")
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    terminal = sys.stdin.isatty()
    # Importing it adds line editing to input(). Not every system has it.
    readline: Any = None
    if terminal:
        with suppress(ImportError):
            import readline  # noqa: PLC0415 - see above
        print_err(f"{model} at {target.address}. /help lists the commands, Control-D leaves.")
    history = _History(readline, options.history)
    running = _Chat(target, model, options.timeout, options.session)
    try:
        return _converse(running, _PROMPT if terminal else "")
    finally:
        history.write()


def _converse(running: _Chat, prompt: str) -> int:
    while True:
        try:
            line = _read(prompt)
        except EOFError:
            if prompt:
                print_out("\n")
            return 0
        except KeyboardInterrupt:
            # Drop the current line, as a shell does.
            print_out("\n")
            continue
        if line.startswith("/"):
            if not running.run_command(line):
                return 0
        elif line:
            running.answer(line)


def _read(prompt: str) -> str:
    """Read a line. A line that cannot be decoded is reported and returned as empty."""
    try:
        # Without a terminal, input() also writes, and its error could come from either side.
        line = (input(prompt) if prompt else _piped_line()).strip()
    except UnicodeDecodeError:
        line = _UNDECODABLE
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"cannot read the {'terminal' if prompt else 'input'}: {error.strerror or error}") from error
    if is_text(line):
        return line
    print_err("[the line is not valid text in this terminal's encoding]")
    return ""


def _piped_line() -> str:
    if line := sys.stdin.readline():
        return line
    raise EOFError


class _History:
    """The history file. It exists only if the user asked for it, and only they can read it."""

    def __init__(self, readline: Any, path: str | None) -> None:  # noqa: ANN401 - a module that may be missing
        self._readline = readline
        self._path = None if path is None or readline is None else os.path.expanduser(path)  # noqa: PTH111 - text to text
        if self._path is not None:
            with suppress(FileNotFoundError):
                self._try(readline.read_history_file)

    def write(self) -> None:
        """Write the history, readable only by its owner."""
        if self._path is None:
            return
        self._readline.set_history_length(1000)
        with suppress(OSError):
            # Set the permissions before anything is written.
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600))
        self._try(self._readline.write_history_file)

    def _try(self, what: Any) -> None:  # noqa: ANN401 - a function of readline
        try:
            what(self._path)
        except FileNotFoundError:
            raise
        except OSError as error:
            print_err(f"brunix chat: history file {self._path}: {error.strerror or error}")
