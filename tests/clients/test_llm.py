"""The command line tool llm, with the gateway as an OpenAI-compatible server and, by its plugin, as an Ollama."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from asked import DOWN_URL, FOLLOW_UP, KEY_FACT, QUESTION, SCRIPTED_URL, URL, documented, script, shell_answers_of

LLM: Final = Path(sys.executable).with_name("llm")
MODELS: Final = {"openai": "brunix", "ollama": "ollama/brunix"}

pytestmark = pytest.mark.parametrize("api", MODELS)


def llm(folder: Path, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it with a configuration of its own."""
    if not (folder / "extra-openai-models.yaml").exists():
        (folder / "extra-openai-models.yaml").write_text(documented("llm", "yaml", url))
    return subprocess.run(  # noqa: S603 - the tool under test
        [LLM, *arguments],
        env=os.environ | {"LLM_USER_PATH": str(folder), "OLLAMA_HOST": url},
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=60,
        check=False,
    )


def test_models(tmp_path: Path, api: str) -> None:
    """The model would not be listed."""
    assert MODELS[api] in llm(tmp_path, URL, "models").stdout


@pytest.mark.parametrize("option", [[], ["--no-stream"]], ids=["streamed", "whole"])
def test_a_conversation(tmp_path: Path, api: str, option: list[str]) -> None:
    """There would be no answer, or the follow-up of --continue would lack its context."""
    asked = llm(tmp_path, URL, "-m", MODELS[api], *option, QUESTION)
    assert KEY_FACT in asked.stdout, asked.stderr
    assert KEY_FACT in llm(tmp_path, URL, *option, "--continue", FOLLOW_UP).stdout


def test_usage(tmp_path: Path, api: str) -> None:
    """It could not say how many tokens there were."""
    assert "output" in llm(tmp_path, URL, "-m", MODELS[api], "--usage", QUESTION).stderr


def test_refused(tmp_path: Path, api: str) -> None:
    """A failure would pass for an answer."""
    failed = llm(tmp_path, DOWN_URL, "-m", MODELS[api], QUESTION)
    assert (failed.returncode, failed.stdout.strip()) == (1, "")
    assert "cannot be reached" in failed.stderr


def test_fails_in_the_middle(tmp_path: Path, api: str) -> None:
    """Half an answer would pass for a whole one, or be lost."""
    failed = llm(tmp_path, SCRIPTED_URL, "-m", MODELS[api], script("one ", "two ", {"status": "INTERNAL"}))
    assert (failed.returncode, failed.stdout.strip()) == (1, "one two")
    assert "The engine failed to answer" in failed.stderr


def test_as_documented(tmp_path: Path, api: str) -> None:
    """What docs/clients.md says would not work."""
    # It is one text for both: once is enough.
    if api == "openai":
        (tmp_path / "extra-openai-models.yaml").write_text(documented("llm", "yaml"))
        assert shell_answers_of("llm", tmp_path, LLM_USER_PATH=str(tmp_path)).count(KEY_FACT) >= 2
