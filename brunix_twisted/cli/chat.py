"""``brunix chat``: a conversation that the engine keeps."""

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
_NO_TEXT: Final = "\udcff"
"""What Python makes of a byte that is no text, in most places."""
_HELP: Final = """\
/new            begin a conversation that knows nothing of this one
/session        say in which engine session this is; /session NAME goes on in that one
/help           this
/quit           leave, as Control-D does
Control-C stops an answer. Anything that does not begin with a slash is a question.
"""


@attrs.define
class _Chat:
    """What is kept from one question to the next."""

    target: Target
    model: str
    read_timeout_s: float
    session_id: str | None

    def answer(self, question: str) -> None:
        """Ask, and write the answer. Control-C ends the answer alone."""
        answer = ChatCompletion(self.target, question, model=self.model, session_id=self.session_id, stream=True)
        last = ""
        try:
            for text in answer.texts(self.read_timeout_s):
                print_out(text)
                last = text or last
            ended = ""
        except DiagnosisError as error:
            ended = f"{error.diagnosis.message}. {error.diagnosis.remedy}".strip()
        except KeyboardInterrupt:
            answer.close()
            ended = "stopped; the engine does not remember this question"
        # The session is known as soon as the answer begins, and goes on whatever became of it.
        self.session_id = answer.session_id
        if last and not last.endswith("\n"):
            print_out("\n")
        if ended:
            print_err(f"[{ended}]")
        print_out("\n")

    def obey(self, line: str) -> bool:
        """Do what a line that begins with a slash says, and give whether to go on."""
        command, _, rest = line.partition(" ")
        if command in {"/quit", "/exit"}:
            return False
        if command == "/new":
            self.session_id = None
            print_err("[a new conversation]")
        elif command == "/session":
            if not (rest.isascii() and rest.isprintable()):
                print_err("[a session's id is printable ASCII, without spaces]")
                return True
            self.session_id = rest.strip() or self.session_id
            print_err(f"[{self.session_id or 'no session yet: the first answer begins one'}]")
        elif command == "/help":
            print_out(_HELP)
        else:
            print_err(f"[there is no {command}; /help says what there is]")
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
    # Importing it is what gives input() its editing; not every system has it.
    readline: Any = None
    if terminal:
        with suppress(ImportError):
            import readline  # noqa: PLC0415 - see above
        print_err(f"{model} at {target.address}; /help says what else there is, Control-D leaves.")
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
            # As in a shell: what was typed is dropped.
            print_out("\n")
            continue
        if line.startswith("/"):
            if not running.obey(line):
                return 0
        elif line:
            running.answer(line)


def _read(prompt: str) -> str:
    """Read a line; what cannot be decoded is reported, and read as an empty one."""
    try:
        # Without a terminal input() writes as well, and its fault may be either's.
        line = (input(prompt) if prompt else _piped_line()).strip()
    except UnicodeDecodeError:
        line = _NO_TEXT
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"the {'terminal' if prompt else 'input'} fails: {error.strerror or error}") from error
    if is_text(line):
        return line
    print_err("[that was no text in this terminal's encoding]")
    return ""


def _piped_line() -> str:
    if line := sys.stdin.readline():
        return line
    raise EOFError


class _History:
    """The questions of former chats, in a file that somebody has asked for: questions are nobody else's business."""

    def __init__(self, readline: Any, path: str | None) -> None:  # noqa: ANN401 - a module that may not be there
        self._readline = readline
        self._path = None if path is None or readline is None else os.path.expanduser(path)  # noqa: PTH111 - text to text
        if self._path is not None:
            with suppress(FileNotFoundError):
                self._try(readline.read_history_file)

    def write(self) -> None:
        """Keep what was typed, readable by nobody else."""
        if self._path is None:
            return
        self._readline.set_history_length(1000)
        with suppress(OSError):
            # Before there is anything in it.
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600))
        self._try(self._readline.write_history_file)

    def _try(self, what: Any) -> None:  # noqa: ANN401 - a function of readline's
        try:
            what(self._path)
        except FileNotFoundError:
            raise
        except OSError as error:
            print_err(f"brunix chat: the history {self._path}: {error.strerror or error}")
