"""LiteLLM's proxy before the gateway, asked by OpenAI's package; it runs in an environment of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Final
from urllib.error import URLError
from urllib.request import urlopen
from uuid import uuid4

import openai
import pytest
from asked import FOLLOW_UP, KEY_FACT, MANY, QUESTION, asking, documented, pieces, tag

KEY: Final = f"sk-{uuid4().hex}"
_STARTED_WITHIN_S: Final = 90


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """Start the proxy as documented, and ask it."""
    folder = tmp_path_factory.mktemp("proxy")
    (folder / "config.yaml").write_text(documented("litellm-proxy", "yaml"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    command = documented("litellm-proxy", "sh").replace("4000", str(port))
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own documentation
            ["sh", "-ec", f"exec {command}"],  # noqa: S607 - of any system
            cwd=folder,
            env=os.environ
            | {"PATH": f"{os.environ['LITELLM_PROXY_BIN']}:{os.environ['PATH']}", "LITELLM_MASTER_KEY": KEY},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline_s = time.monotonic() + _STARTED_WITHIN_S
        while not answers(f"http://127.0.0.1:{port}/health/liveliness"):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline_s, log.read_text()
            time.sleep(0.2)
        with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY, max_retries=0) as asker:
            yield asker
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as response:  # noqa: S310 - our own
            return bool(response.status == 200)
    except (URLError, ConnectionError, TimeoutError):
        return False


def test_whole(client: openai.OpenAI) -> None:
    """Who asks the proxy that docs/clients.md configures would get no answer."""
    completion = client.chat.completions.create(model="brunix", messages=asking(QUESTION))
    assert KEY_FACT in str(completion.choices[0].message.content)
    assert completion.usage is not None
    assert completion.usage.completion_tokens > MANY


async def test_streamed(client: openai.OpenAI) -> None:
    """The answer would come in one piece."""
    chunks = await pieces(client.chat.completions.create(model="brunix", messages=asking(QUESTION), stream=True))
    assert KEY_FACT in "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert len(chunks) > MANY


def test_a_conversation(client: openai.OpenAI) -> None:
    """A follow-up would be answered as if nothing had been said before."""
    question = f"{QUESTION} {tag()}"
    answer = client.chat.completions.create(model="brunix", messages=asking(question)).choices[0].message.content
    followed = client.chat.completions.create(model="brunix", messages=asking(question, str(answer), FOLLOW_UP))
    assert KEY_FACT in str(followed.choices[0].message.content)


def test_refused(client: openai.OpenAI) -> None:
    """A failure would pass for an answer."""
    with pytest.raises(openai.APIStatusError):
        client.chat.completions.create(model="gpt-7", messages=asking(QUESTION))
