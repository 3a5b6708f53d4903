"""
The words in CONTRIBUTING's table are not used where users and contributors read them.

The table lists each word with a replacement. Code, quoted in backquotes or in a block, may contain every word.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import attrs
import pytest

from documented import PAGES
from paths import ROOT

PROSE: Final = (
    *PAGES,
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "changes").glob("+*.md")),
    *sorted((ROOT / "brunix_twisted").rglob("*.md")),
)
MODULES: Final = tuple(path for path in sorted((ROOT / "brunix_twisted").rglob("*.py")) if "_pb" not in path.parts)

# The benchmark writes the tables of this page.
REMAINING_IN_PAGES: Final = {"docs/performance.md": 2}
# These are words that the module removes from questions.
STOP_WORDS: Final = "embedded/tokenizer.py"

_CODE: Final = re.compile(
    r"^ *(```+).*?^ *\1 *$|`[^`]+`|<!--.*?-->|\]\([^)]*\)|^---\n.*?^---$", re.MULTILINE | re.DOTALL
)
_FEWEST_WORDS: Final = 3
"""A string with fewer words is a name, not a message."""


def word_list() -> dict[str, str]:
    """Read CONTRIBUTING's table: each word in lower case, and what to say instead."""
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    table = re.search(r"^\| not \| say \|\n\|---\|---\|\n((?:\|.*\n)+)", page, re.MULTILINE)
    assert table is not None, "CONTRIBUTING.md has no table | not | say |"
    rows = [line.strip("| ").split(" | ") for line in table[1].splitlines()]
    return {word: say for words, say in rows for word in re.findall(r"`([^`]+)`", words)}


WORDS: Final = word_list()
_PATTERN: Final = re.compile(
    r"\b(?:"
    + "|".join(re.escape(word).replace(r"\ ", r"\s+") for word in sorted(WORDS, key=len, reverse=True))
    + r")\b",
    re.IGNORECASE,
)


@attrs.frozen
class Finding:
    """A word that should not be there."""

    path: Path
    line: int
    word: str

    def __str__(self) -> str:
        """Name the place, the word and what to say instead."""
        place = self.path.relative_to(ROOT) if self.path.is_relative_to(ROOT) else self.path
        return f"{place}:{self.line}: {self.word!r}; say: {WORDS[self.word]}"


def findings(path: Path, text: str, first_line: int = 1) -> Iterator[Finding]:
    """Find the words in a text that begins in a line of a file."""
    for found in _PATTERN.finditer(text):
        line = first_line + text.count("\n", 0, found.start())
        yield Finding(path, line, " ".join(found[0].lower().split()))


def in_prose(path: Path) -> list[Finding]:
    """Find the words in a page, outside of its code."""
    text = _CODE.sub(lambda code: "\n" * code[0].count("\n"), path.read_text("utf-8"))
    return list(findings(path, text))


@cache
def in_module(path: Path) -> tuple[list[Finding], list[Finding]]:
    """Find the words in a module's docstrings, and in its other strings."""
    tree = ast.parse(path.read_text("utf-8"))
    # A string that is a statement is a docstring: of a module, a class, a function or an attribute.
    documented = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }
    docstrings: list[Finding] = []
    messages: list[Finding] = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            continue
        if id(node) in documented:
            docstrings += findings(path, re.sub(r"`[^`]+`", "", node.value), node.lineno)
        elif len(node.value.split()) >= _FEWEST_WORDS:
            messages += findings(path, node.value, node.lineno)
    return docstrings, messages


def report(found: list[Finding], allowed: int) -> str:
    return f"{len(found)} found, {allowed} allowed:\n" + "\n".join(map(str, found))


def test_the_table_is_read() -> None:
    """The words come from CONTRIBUTING's table, each with a replacement."""
    assert len(WORDS) >= 30
    assert WORDS["sign of life"] == "heartbeat, keep-alive"
    assert all(word == word.lower() and say for word, say in WORDS.items())


def test_a_word_is_reported_with_its_place(tmp_path: Path) -> None:
    """A finding names the file, the line, the word and its replacement, also across a line break and in any case."""
    page = tmp_path / "page.md"
    page.write_text("# A page\n\n```sh\nnobody\n```\n\nThe `nobody` user.\nNobody sends a sign of\nlife.\n", "utf-8")
    assert [(found.line, found.word) for found in in_prose(page)] == [(8, "nobody"), (8, "sign of life")]
    assert str(in_prose(page)[1]) == f"{page}:8: 'sign of life'; say: heartbeat, keep-alive"


def test_strings_of_a_module_are_read(tmp_path: Path) -> None:
    """Docstrings and messages are separate; names, comments and code in backquotes are not reported."""
    module = tmp_path / "module.py"
    module.write_text(
        '"""A module.\n\nSomebody reads it, and `nobody`."""\n\n'
        '# Nobody reads this.\nNAME = "nobody"\nTEXT = f"{NAME} is away now"\n',
        "utf-8",
    )
    docstrings, messages = in_module(module)
    assert [(found.line, found.word) for found in docstrings] == [(3, "somebody")]
    assert [(found.line, found.word) for found in messages] == [(7, "is away")]


@pytest.mark.parametrize("path", PROSE, ids=lambda path: str(path.relative_to(ROOT)))
def test_prose(path: Path) -> None:
    """The documentation and the changelog use none of the words."""
    allowed = REMAINING_IN_PAGES.get(str(path.relative_to(ROOT)), 0)
    found = in_prose(path)
    assert len(found) <= allowed, report(found, allowed)


def test_docstrings() -> None:
    """The package's docstrings use none of the words."""
    found = [each for path in MODULES for each in in_module(path)[0]]
    assert not found, report(found, 0)


def test_messages() -> None:
    """The package's messages, setting descriptions and help use none of the words."""
    found = [each for path in MODULES if not path.as_posix().endswith(STOP_WORDS) for each in in_module(path)[1]]
    assert not found, report(found, 0)
