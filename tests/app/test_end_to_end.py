"""The whole, as ``make run`` starts it: entrypoint.sh, the embedded engine and the gateway, asked by the real SDKs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest

from isolation import CLEAN
from paths import ROOT
from twistd import free_port

# The SDKs are imported by the tests that use them: every worker imports this module, and they are large.
if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam

QUESTION = "Which variable sets the number of worker threads?"
KEY_FACT = "PROXY_THREAD_WORKERS"


@attrs.frozen
class System:
    """Two processes and the script that keeps them together."""

    process: subprocess.Popen[str]
    url: str
    banner: str


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    """Start everything from a clean environment, and stop it as a supervisor does."""
    port = free_port()
    engine = f"localhost:{free_port()}"
    process = subprocess.Popen(  # noqa: S603 - our own
        [ROOT / "entrypoint.sh"],
        env=CLEAN
        | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PROXY_LISTEN": f"tcp:{port}:interface=127.0.0.1",
            "BRUNIX_ENGINE_LISTEN": engine,
            "BRUNIX_GRPC_TARGET": engine,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    banner = ""
    for line in process.stdout:
        banner += line
        if "curl" in line:
            break
    try:
        yield System(process, f"http://127.0.0.1:{port}", banner)
    finally:
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0, rest


def test_banner(system: System) -> None:
    """Somebody who starts it for the first time would not know what to do next."""
    assert system.url in system.banner
    assert "brunix" in system.banner
    (line,) = [line for line in system.banner.splitlines() if "curl" in line]
    command = f"{line[line.index('curl') :]} --silent --show-error"
    answered = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)  # noqa: S602 - as told
    assert re.search(r"^data: .*\"finish_reason\":\"stop\"", answered.stdout, re.MULTILINE)


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_openai_sdk(system: System, *, stream: bool) -> None:
    """A program written for OpenAI, with its URL and model name changed, would get no answer about the documents."""
    import openai  # noqa: PLC0415 - as said above

    with openai.OpenAI(base_url=f"{system.url}/v1", api_key="unused") as client:
        messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": QUESTION}]
        if stream:
            chunks = list(client.chat.completions.create(model="brunix", messages=messages, stream=True))
            answer = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            assert chunks[-1].choices[0].finish_reason == "stop"
            assert len(chunks) > 3
        else:
            completion = client.chat.completions.create(model="brunix", messages=messages)
            answer = completion.choices[0].message.content or ""
    assert KEY_FACT in answer


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_ollama_sdk(system: System, *, stream: bool) -> None:
    """A program written for Ollama, with its URL and model name changed, would get no answer about the documents."""
    import ollama  # noqa: PLC0415 - as said above

    messages = [{"role": "user", "content": QUESTION}]
    with ollama.Client(host=system.url) as client:
        if stream:
            parts = list(client.chat(model="brunix", messages=messages, stream=True))
            answer = "".join(part.message.content or "" for part in parts)
            assert parts[-1].done
            assert len(parts) > 3
        else:
            answer = client.chat(model="brunix", messages=messages).message.content or ""
    assert KEY_FACT in answer


def test_a_session_keeps_its_context(system: System) -> None:
    """A follow-up in the same session would be answered as if nothing had been said before."""
    import openai  # noqa: PLC0415 - as said above

    with openai.OpenAI(base_url=f"{system.url}/v1", api_key="unused") as client:

        def ask(question: str) -> str:
            completion = client.chat.completions.create(
                model="brunix",
                messages=[{"role": "user", "content": question}],
                extra_body={"session_id": "a-session-of-its-own"},
            )
            return completion.choices[0].message.content or ""

        assert KEY_FACT in ask(QUESTION)
        assert KEY_FACT in ask("And what is its default?")
