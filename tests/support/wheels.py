"""The wheel that this tree builds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from isolation import unmeasured
from paths import ROOT


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel as ``pip install .`` does, but with the tools that are here."""
    folder = tmp_path_factory.mktemp("wheel")
    pip(Path(sys.executable), "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


def pip(python: Path, *arguments: object) -> None:
    """Run this environment's pip for another environment."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", python, *arguments]
    subprocess.run(list(map(str, command)), check=True, capture_output=True, env=unmeasured(os.environ))  # noqa: S603 - our own
