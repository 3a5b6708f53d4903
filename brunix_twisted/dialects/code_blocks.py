"""The fenced code blocks of an answer in Markdown."""

from __future__ import annotations

from io import StringIO
from typing import Final

# A line that is indented further is not a fence.
_MAX_FENCE_INDENT: Final = 3


def code_blocks(answer: str) -> list[dict[str, str]]:
    """Return the language and the text of each fenced code block in an answer; the last one may have no end."""
    blocks: list[dict[str, str]] = []
    lines: list[str] | None = None
    marker, count = "", 0
    # Line by line, and not with one expression: an answer may be one line of 16 MiB.
    for line in StringIO(answer):
        text = line.strip(" \t\r\n")
        is_fence = text.startswith(("```", "~~~")) and len(line) - len(line.lstrip(" ")) <= _MAX_FENCE_INDENT
        if lines is None:
            rest = text.lstrip(text[:1])
            if is_fence and line.endswith("\n") and not (text[0] == "`" and "`" in rest):
                marker, count, lines = text[0], len(text) - len(rest), []
                blocks.append({"language": rest.split(maxsplit=1)[0] if rest.split() else "", "text": ""})
        elif is_fence and len(text) >= count and not text.strip(marker):
            blocks[-1]["text"], lines = "".join(lines), None
        else:
            lines.append(line)
    if lines is not None:
        blocks[-1]["text"] = "".join(lines)
    return blocks
