"""The instructions of the Dockerfile."""

from __future__ import annotations

import re
import shlex

from paths import ROOT


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, each with what follows its name, on one line."""
    text = (ROOT / "Dockerfile").read_text("utf-8")
    lines = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", "").splitlines()
    found = [line.partition(" ") for line in lines if line.strip()]
    return [(name, rest.strip()) for name, _, rest in found]


def stages() -> list[list[tuple[str, str]]]:
    """The instructions of each stage, from its FROM on."""
    found: list[list[tuple[str, str]]] = []
    for name, rest in instructions():
        if name == "FROM":
            found.append([])
        if found:
            found[-1].append((name, rest))
    return found


def values(name: str) -> list[str]:
    """What follows an instruction of the last stage, wherever it is given."""
    return [rest for found, rest in stages()[-1] if found == name]


def value(name: str) -> str:
    (only,) = values(name)
    return only


def pairs(name: str) -> dict[str, str]:
    """The names and values of ENV or LABEL in the last stage."""
    return dict(word.split("=", 1) for rest in values(name) for word in shlex.split(rest))
