"""The questions that all clients ask, and helpers for synchronous and asynchronous answers."""

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
HEARTBEAT_URL: Final = os.environ["HEARTBEAT_URL"]
FULL_URL: Final = os.environ["FULL_URL"]
DOWN_URL: Final = os.environ["DOWN_URL"]
_ENGINE_URL: Final = os.environ["ENGINE_URL"]
_CLIENTS: Final[dict[str, Any]] = {
    client["id"]: client for client in json.loads(Path(os.environ["CLIENTS_JSON"]).read_text())["clients"]
}

QUESTION: Final = "Which variable sets the number of worker threads?"
KEY_FACT: Final = "PROXY_THREAD_WORKERS"
FOLLOW_UP: Final = "And what is its default?"
"""The answer contains the key fact only if the engine knows the question before it."""
MANY: Final = 3
"""An answer with more pieces than this was streamed."""
CANCELLED: Final = {"calls": 1, "ended": True, "finished": False}
"""What the engine saw of a call that was cancelled and not repeated."""
TIMEOUT_S: Final = 120


def conversation(*texts: str) -> list[Any]:
    """Return the messages of a conversation: user, assistant, and so on."""
    roles = ("user", "assistant")
    return [{"role": roles[number % 2], "content": text} for number, text in enumerate(texts)]


def script(*steps: object) -> str:
    """Return the question that makes the scripted engine perform these steps."""
    return json.dumps(steps)


NUMBERS: Final = conversation(script("one ", "two ", "three ", "four"))
PAUSES: Final = conversation(script({"sleep": 0.4}, "one ", {"sleep": 0.4}, "two"))
"""The engine is silent for longer than the heartbeat interval of HEARTBEAT_URL."""
BUSY: Final = conversation(script({"status": "RESOURCE_EXHAUSTED"}))
FAILS: Final = conversation(script({"status": "INTERNAL"}))
FAILS_IN_THE_MIDDLE: Final = conversation(script("one ", "two ", {"status": "INTERNAL"}))


def hanging(word: str) -> list[Any]:
    """Ask for an answer that starts with a word and never ends."""
    return conversation(script(word, "two ", "three ", {"hang": True}))


def tag() -> str:
    """Return a unique word. As a step of a script it is part of the answer."""
    return f"tag-{uuid4().hex} "


async def engine_saw(word: str) -> dict[str, Any]:
    """Wait for the end of the call with this tag; return the number of calls and how the last one ended."""

    def ask() -> dict[str, Any]:
        with urlopen(f"{_ENGINE_URL}/{word.strip()}", timeout=20) as response:  # noqa: S310 - our own
            seen: dict[str, Any] = json.load(response)
            return seen

    # In a thread: an asynchronous client may still be closing its connection.
    return await asyncio.to_thread(ask)


async def resolve(value: Any) -> Any:  # noqa: ANN401 - of any client
    """Return the value, awaiting it if necessary."""
    return await value if inspect.isawaitable(value) else value


async def collect(
    stream: Any,  # noqa: ANN401 - of any client
    into: list[Any] | None = None,
    max_pieces: int = sys.maxsize,
    *,
    asynchronous: bool = False,
) -> list[Any]:
    """
    Read a stream, or its beginning.

    :param into: receives the pieces that arrive before the stream fails.
    :param asynchronous: iterate asynchronously although the stream also supports synchronous iteration.
    """
    collected = [] if into is None else into
    asynchronous = asynchronous or inspect.isawaitable(stream)
    stream = await resolve(stream)
    async for piece in stream if asynchronous or not isinstance(stream, Iterable) else _asynchronous(stream):
        collected.append(piece)
        if len(collected) == max_pieces:
            break
    return collected


async def _asynchronous(stream: Iterable[Any]) -> AsyncIterator[Any]:
    for piece in stream:
        yield piece


def documented(client: str, language: str, url: str = URL, model: str = "brunix") -> str:
    """Return a client's documented text in a language, for a gateway at this URL."""
    (code,) = (each["code"] for each in _CLIENTS[client]["snippets"] if each["language"] == language)
    # The runner checks that the tests have used all texts.
    with Path(os.environ["DOCUMENTED"]).open("a") as used:
        used.write(f"{client} {language}\n")
    return str(code).replace("@URL@", url).replace("@MODEL@", model)


def python_output(client: str) -> str:
    """Run a client's documented Python program and return its output."""
    return _output([sys.executable, "-c", documented(client, "python")], {}, None)


def shell_output(client: str, folder: Path, then: str = "", **environment: str) -> str:
    """Run a client's documented commands, and more, in this folder; return their output."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return _output(["sh", "-ec", documented(client, "sh") + then], {"PATH": path} | environment, folder)


def _output(command: list[str], environment: dict[str, str], folder: Path | None) -> str:
    ran = subprocess.run(  # noqa: S603 - our own documentation
        command,
        cwd=folder,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
