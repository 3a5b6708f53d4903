"""What is told of changes, in changes/, is well formed, and makes a changelog."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest

from paths import ROOT

TOWNCRIER: Final = Path(sys.executable).with_name("towncrier")
KINDS: Final = {
    kind["directory"]: kind["name"]
    for kind in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["towncrier"]["type"]
}
FRAGMENTS: Final = sorted(path for path in (ROOT / "changes").iterdir() if path.name != "README.md")


def in_one_line(text: str) -> str:
    return " ".join(text.split())


def misshapen(name: str, text: str) -> str:
    """Say what is wrong with what is told of a change; empty: nothing."""
    if re.fullmatch(rf"(?:\+[a-z0-9]+(?:-[a-z0-9]+)*|[0-9]+)\.(?:{'|'.join(KINDS)})\.md", name) is None:
        return f"the name is not +words-with-dashes.kind.md, with one of the kinds {', '.join(KINDS)}"
    if text != f"{text.strip()}\n" or "\n\n" in text:
        return "it is not one paragraph with one line end after it"
    if any(len(line) > 120 or line != line.strip() for line in text.splitlines()):
        return "a line is longer than 120 characters, or begins or ends with a space"
    if re.match(r"[A-Z`]", text) is None or not text.endswith(".\n"):
        return "it does not begin with a capital letter or a backquote, or does not end with a full stop"
    return ""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("page.feature.md", "The page.\n"),
        ("+page.md", "The page.\n"),
        ("+The page.feature.md", "The page.\n"),
        ("+page.new.md", "The page.\n"),
        ("+page.feature.txt", "The page.\n"),
        ("+page.feature.md", ""),
        ("+page.feature.md", "The page."),
        ("+page.feature.md", "The page.\n\nThe rest.\n"),
        ("+page.feature.md", "- The page.\n"),
        ("+page.feature.md", "The page\n"),
        ("+page.feature.md", "The\n page.\n"),
        ("+page.feature.md", f"The {'page ' * 30}.\n"),
    ],
)
def test_what_is_misshapen(name: str, text: str) -> None:
    """A slip in a file of changes/ would get into the changelog."""
    assert misshapen(name, text)


def test_what_is_well_formed() -> None:
    """Somebody who keeps to what changes/README.md says would be told that it is wrong."""
    readme = (ROOT / "changes" / "README.md").read_text("utf-8")
    example = re.search(r"```md\n(.*?)```", readme, re.DOTALL)
    assert example is not None
    assert misshapen("+page.operations.md", example[1]) == misshapen("123.feature.md", example[1]) == ""
    assert dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", readme, re.MULTILINE)) == KINDS


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda path: path.name)
def test_each_change(path: Path) -> None:
    """The changelog would have a line that says nothing, or none at all for a change."""
    assert misshapen(path.name, path.read_text("utf-8")) == ""


def test_release(tmp_path: Path) -> None:
    """A release would lose what was told of a change, or what stood in the changelog before."""
    for name in ("pyproject.toml", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "changes", tmp_path / "changes")
    told = [in_one_line(path.read_text("utf-8")) for path in FRAGMENTS]
    before = (tmp_path / "CHANGELOG.md").read_text("utf-8")
    for version, change in (("97.0.0", ""), ("98.0.0", "Another change.")):
        if change:
            (tmp_path / "changes" / "+another.breaking.md").write_text(f"{change}\n", "utf-8")
        subprocess.run(  # noqa: S603 - the maintainer's
            [TOWNCRIER, "build", "--version", version, "--date", "2027-01-01", "--yes"],
            cwd=tmp_path,
            check=True,
            capture_output=True,
        )
        assert [path.name for path in (tmp_path / "changes").iterdir()] == ["README.md"]
    changelog = (tmp_path / "CHANGELOG.md").read_text("utf-8")
    kept, marker, rest = before.partition("<!-- towncrier release notes start -->\n")
    assert marker
    assert changelog.startswith(f"{kept}{marker}")
    assert changelog.endswith(rest)
    newest, heading, older = changelog.partition("\n## 97.0.0 (2027-01-01)\n")
    assert heading
    assert "\n## 98.0.0 (2027-01-01)\n\n### Breaking changes\n\n- Another change.\n" in newest
    assert [text for text in told if f"- {text}" not in in_one_line(older)] == []
