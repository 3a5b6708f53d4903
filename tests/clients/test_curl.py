"""curl, by each of the two APIs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from asked import KEY_FACT, MANY, shell_answers_of

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")


def test_openai(tmp_path: Path) -> None:
    """What docs/clients.md says would not work, or not show the answer as it comes."""
    events = shell_answers_of("curl", tmp_path).split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert len(chunks) > MANY
    assert KEY_FACT in "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)


def test_ollama(tmp_path: Path) -> None:
    """What docs/clients.md says would not work, or not show the answer as it comes."""
    parts = [json.loads(line) for line in shell_answers_of("curl-ollama", tmp_path).splitlines()]
    assert len(parts) > MANY
    assert KEY_FACT in "".join(part["message"]["content"] for part in parts)
    assert parts[-1]["done"]
