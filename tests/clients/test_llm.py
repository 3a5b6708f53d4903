"""The command line tool llm, with the gateway as an OpenAI-compatible server and, with its plugin, as Ollama."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from questions import (
    DOWN_URL,
    FOLLOW_UP,
    KEY_FACT,
    QUESTION,
    SCRIPTED_URL,
    TIMEOUT_S,
    URL,
    documented,
    script,
    shell_output,
)

LLM: Final = Path(sys.executable).with_name("llm")
MODELS: Final = {"openai": "brunix", "ollama": "ollama/brunix"}

pytestmark = pytest.mark.parametrize("api", MODELS)


def llm(folder: Path, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it with a separate configuration."""
    if not (folder / "extra-openai-models.yaml").exists():
        (folder / "extra-openai-models.yaml").write_text(documented("llm", "yaml", url))
    return subprocess.run(  # noqa: S603 - the tool under test
        [LLM, *arguments],
        env=os.environ | {"LLM_USER_PATH": str(folder), "OLLAMA_HOST": url},
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def test_models(tmp_path: Path, api: str) -> None:
    """The model is listed."""
    assert MODELS[api] in llm(tmp_path, URL, "models").stdout


@pytest.mark.parametrize("option", [[], ["--no-stream"]], ids=["streamed", "whole"])
def test_a_conversation(tmp_path: Path, api: str, option: list[str]) -> None:
    """A question is answered, and --continue answers a follow-up in its context."""
    answered = llm(tmp_path, URL, "-m", MODELS[api], *option, QUESTION)
    assert KEY_FACT in answered.stdout, answered.stderr
    assert KEY_FACT in llm(tmp_path, URL, *option, "--continue", FOLLOW_UP).stdout


def test_usage(tmp_path: Path, api: str) -> None:
    """--usage prints the number of tokens."""
    assert "output" in llm(tmp_path, URL, "-m", MODELS[api], "--usage", QUESTION).stderr


def test_refused(tmp_path: Path, api: str) -> None:
    """An unreachable engine is an error without an answer."""
    failed = llm(tmp_path, DOWN_URL, "-m", MODELS[api], QUESTION)
    assert (failed.returncode, failed.stdout.strip()) == (1, "")
    assert "unreachable" in failed.stderr


def test_fails_in_the_middle(tmp_path: Path, api: str) -> None:
    """A failure in the middle prints the text so far and is an error."""
    failed = llm(tmp_path, SCRIPTED_URL, "-m", MODELS[api], script("one ", "two ", {"status": "INTERNAL"}))
    assert (failed.returncode, failed.stdout.strip()) == (1, "one two")
    assert "The engine failed to answer" in failed.stderr


def test_as_documented(tmp_path: Path, api: str) -> None:
    """The commands in docs/clients.md print their answers."""
    # One text for both APIs.
    if api == "openai":
        (tmp_path / "extra-openai-models.yaml").write_text(documented("llm", "yaml"))
        assert shell_output("llm", tmp_path, LLM_USER_PATH=str(tmp_path)).count(KEY_FACT) >= 2
