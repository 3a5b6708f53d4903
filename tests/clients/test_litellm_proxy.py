"""LiteLLM's proxy in front of the gateway, asked with OpenAI's package. It has a separate environment."""

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
from questions import FOLLOW_UP, KEY_FACT, MANY, QUESTION, TIMEOUT_S, collect, conversation, documented, tag

KEY: Final = f"sk-{uuid4().hex}"


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """Start the proxy as documented; return a client for it."""
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
        deadline_s = time.monotonic() + TIMEOUT_S
        while not answers(f"http://127.0.0.1:{port}/health/liveliness"):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline_s, log.read_text()
            time.sleep(0.2)
        with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY, max_retries=0) as made:
            yield made
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


def test_whole(proxy: openai.OpenAI) -> None:
    """The proxy as configured in docs/clients.md answers, with usage."""
    completion = proxy.chat.completions.create(model="brunix", messages=conversation(QUESTION))
    assert KEY_FACT in str(completion.choices[0].message.content)
    assert completion.usage is not None
    assert completion.usage.completion_tokens > MANY


async def test_streamed(proxy: openai.OpenAI) -> None:
    """A streamed answer arrives in several pieces."""
    chunks = await collect(proxy.chat.completions.create(model="brunix", messages=conversation(QUESTION), stream=True))
    assert KEY_FACT in "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert len(chunks) > MANY


def test_a_conversation(proxy: openai.OpenAI) -> None:
    """A follow-up is answered in the context of its conversation."""
    question = f"{QUESTION} {tag()}"
    answer = proxy.chat.completions.create(model="brunix", messages=conversation(question)).choices[0].message.content
    followed = proxy.chat.completions.create(model="brunix", messages=conversation(question, str(answer), FOLLOW_UP))
    assert KEY_FACT in str(followed.choices[0].message.content)


def test_refused(proxy: openai.OpenAI) -> None:
    """An unknown model is an error."""
    with pytest.raises(openai.APIStatusError):
        proxy.chat.completions.create(model="gpt-7", messages=conversation(QUESTION))
