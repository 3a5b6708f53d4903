"""What every client is asked, and how its answers are gathered, whether it waits or awaits."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen
from uuid import uuid4

URL: Final = os.environ["BRUNIX_URL"]
SCRIPTED_URL: Final = os.environ["SCRIPTED_URL"]
FULL_URL: Final = os.environ["FULL_URL"]
DOWN_URL: Final = os.environ["DOWN_URL"]
_ENGINE_URL: Final = os.environ["ENGINE_URL"]
_CLIENTS: Final[dict[str, Any]] = {
    client["id"]: client for client in json.loads(Path(os.environ["CLIENTS_JSON"]).read_text())["clients"]
}

QUESTION: Final = "Which variable sets the number of worker threads?"
KEY_FACT: Final = "PROXY_THREAD_WORKERS"
FOLLOW_UP: Final = "And what is its default?"
"""Answered with the key fact only by an engine that knows what the question before it was."""
MANY: Final = 3
"""An answer in more pieces than this was streamed."""


def asking(*texts: str) -> list[Any]:
    """Write a conversation: the user's turn, the assistant's, and so on."""
    roles = ("user", "assistant")
    return [{"role": roles[number % 2], "content": text} for number, text in enumerate(texts)]


def script(*steps: object) -> str:
    """Write the question that makes the scripted engine do this."""
    return json.dumps(steps)


def tag() -> str:
    """Make a word that no other call holds; as a step it is a part of the answer."""
    return f"tag-{uuid4().hex} "


async def engine_saw(word: str) -> dict[str, Any]:
    """Wait for the end of the call with this tag: how many there were, whether the last ended and was finished."""

    def ask() -> dict[str, Any]:
        with urlopen(f"{_ENGINE_URL}/{word.strip()}", timeout=20) as response:  # noqa: S310 - our own
            told: dict[str, Any] = json.load(response)
            return told

    # An asynchronous client may still have to close its connection meanwhile.
    return await asyncio.to_thread(ask)


BROKEN_OFF: Final = {"calls": 1, "ended": True, "finished": False}
"""What the engine saw of a call that its caller broke off, and did not repeat."""


async def now(value: Any) -> Any:  # noqa: ANN401 - of any client
    """Return the value, which an asynchronous client makes one wait for."""
    return await value if inspect.isawaitable(value) else value


async def pieces(
    stream: Any,  # noqa: ANN401 - of any client
    into: list[Any] | None = None,
    at_most: int = sys.maxsize,
    *,
    asynchronous: bool = False,
) -> list[Any]:
    """
    Gather a stream, or its beginning.

    :param into: holds what came before the stream failed.
    :param asynchronous: it was awaited already, so that it does not show by itself which of its two ways to be read is
        the right one.
    """
    gathered = [] if into is None else into
    asynchronous = asynchronous or inspect.isawaitable(stream)
    stream = await now(stream)
    async for piece in stream if asynchronous or not isinstance(stream, Iterable) else _awaiting(stream):
        gathered.append(piece)
        if len(gathered) == at_most:
            break
    return gathered


async def _awaiting(stream: Iterable[Any]) -> AsyncIterator[Any]:
    for piece in stream:
        yield piece


def documented(client: str, language: str, url: str = URL, model: str = "brunix") -> str:
    """Give the text in this language that a client is documented to be told, for a gateway at this URL."""
    (code,) = (each["code"] for each in _CLIENTS[client]["snippets"] if each["language"] == language)
    # The runner looks whether every text was asked for.
    with Path(os.environ["DOCUMENTED"]).open("a") as taken:
        taken.write(f"{client} {language}\n")
    return str(code).replace("@URL@", url).replace("@MODEL@", model)


def answers_of(client: str) -> str:
    """Run the program in Python that a client is documented to be, and return what it printed."""
    return _printed([sys.executable, "-c", documented(client, "python")], {}, None)


def shell_answers_of(client: str, folder: Path, then: str = "", **environment: str) -> str:
    """Run the commands that a client is documented to be, and more, in this folder, and return what they printed."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return _printed(["sh", "-ec", documented(client, "sh") + then], {"PATH": path} | environment, folder)


def _printed(command: list[str], environment: dict[str, str], folder: Path | None) -> str:
    ran = subprocess.run(  # noqa: S603 - our own documentation
        command,
        cwd=folder,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
