"""``brunix ask``: print the answer to one question."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from typing import Final

from brunix_twisted.cli.chat_client import DEFAULT_MODEL, ChatCompletion, listed_model
from brunix_twisted.cli.diagnosis import Diagnosis, DiagnosisError
from brunix_twisted.cli.http_client import Target
from brunix_twisted.cli.terminal import INTERRUPTED, print_err, print_out

_MAX_PIPED_BYTES: Final = 64 << 20
"""Far more than a gateway accepts by default."""


class NoQuestionError(Exception):
    """There is no usable question; the message says why."""


def question(words: str | None, stdin_is_terminal: bool, read: bytes) -> str:  # noqa: FBT001 - a value, no switch
    """
    Join the argument and the piped text, in this order.

    :param words: the argument; with ``-`` or None the question is the piped text.
    :param read: the content of standard input, unless it is an unused terminal.
    :raises NoQuestionError: both are empty, or the piped text cannot be decoded.
    """
    try:
        piped = read.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise NoQuestionError("the piped text is not valid UTF-8") from None
    asked = "\n\n".join(text for text in ("" if words in {None, "-"} else (words or "").strip(), piped) if text)
    if asked:
        return asked
    if words is None and stdin_is_terminal:
        raise NoQuestionError("no question given. Example: brunix ask 'How do I …?'")
    raise NoQuestionError("the question is empty")


def ask(options: Namespace, target: Target) -> int:
    """Run the command."""
    terminal = sys.stdin.isatty()
    try:
        wanted = options.question == "-" or not terminal
        words = question(options.question, terminal, _piped() if wanted else b"")
        return _answer(words, options, target)
    except NoQuestionError as error:
        print_err(f"brunix ask: {error}")
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED


def _piped() -> bytes:
    """Read standard input. Raises NoQuestionError if it cannot be read, or is too long."""
    try:
        read = sys.stdin.buffer.read(_MAX_PIPED_BYTES + 1)
    except OSError as error:
        raise NoQuestionError(f"cannot read standard input: {error.strerror or error}") from None
    if len(read) > _MAX_PIPED_BYTES:
        raise NoQuestionError(f"the piped text is longer than {_MAX_PIPED_BYTES >> 20} MiB")
    return read


def _answer(words: str, options: Namespace, target: Target) -> int:
    answer: ChatCompletion | None = None
    try:
        model = options.model or listed_model(target) or DEFAULT_MODEL
        answer = ChatCompletion(target, words, model=model, session_id=options.session, stream=options.stream)
        return _as_json(answer, options.timeout) if options.json else _as_text(answer, options.timeout)
    except DiagnosisError as error:
        return _failed(error.diagnosis, answer, as_json=options.json)
    finally:
        # However it ended: the gateway cancels the engine call when its client disconnects.
        if answer is not None:
            answer.close()


def _as_text(answer: ChatCompletion, idle_timeout_s: float) -> int:
    last = ""
    try:
        for text in answer.texts(idle_timeout_s):
            print_out(text)
            last = text or last
    finally:
        # An error message must start on a new line.
        if last and not last.endswith("\n"):
            print_out("\n")
    return 0


def _as_json(answer: ChatCompletion, idle_timeout_s: float) -> int:
    text = "".join(answer.texts(idle_timeout_s))
    print_out(
        json.dumps(
            {
                "answer": text,
                "model": answer.model,
                "session_id": answer.session_id,
                "request_id": answer.request_id,
                "finish_reason": answer.finish_reason,
                "usage": answer.usage,
            },
            ensure_ascii=False,
        )
        + "\n"
    )
    return 0


def _failed(diagnosis: Diagnosis, answer: ChatCompletion | None, *, as_json: bool) -> int:
    request_id = answer.request_id if answer else ""
    if as_json:
        print_out(json.dumps({"error": diagnosis.as_json(), "request_id": request_id}, ensure_ascii=False) + "\n")
    print_err(f"brunix ask: {diagnosis.message}")
    if diagnosis.remedy:
        print_err(f"  {diagnosis.remedy}")
    if request_id:
        print_err(f"  Request id in the gateway's log: {request_id}")
    return 1
