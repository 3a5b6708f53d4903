"""curl, with OpenAI's and Ollama's API."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from questions import KEY_FACT, MANY, shell_output

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def test_openai(tmp_path: Path) -> None:
    """The command in docs/clients.md shows the answer while it arrives."""
    events = shell_output("curl", tmp_path).split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert len(chunks) > MANY
    assert KEY_FACT in "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)


def test_ollama(tmp_path: Path) -> None:
    """The command in docs/clients.md shows the answer while it arrives."""
    parts = [json.loads(line) for line in shell_output("curl-ollama", tmp_path).splitlines()]
    assert len(parts) > MANY
    assert KEY_FACT in "".join(part["message"]["content"] for part in parts)
    assert parts[-1]["done"]
