"""Separate a question from what is pasted next to it: code, logs, files and their tags."""

import re
from collections.abc import Iterator, Sequence
from itertools import compress
from typing import Final

import attrs

_FENCE: Final = re.compile(r"\s*(`{3,}|~{3,})")
_TAG: Final = re.compile(r"\s*<(/?)([a-z][\w.-]*)(?:\s[^<>]*)?>", re.IGNORECASE)
# Tags in which editors send files. The text between other tags, such as <question>, is the user's.
_PASTED_TAGS: Final = frozenset(
    """
    attachment attachments code context current_file diff document documents editor environment environment_details
    error errors excerpt file file_content files log logs output search_results selected selection snippet source stdout
    terminal traceback workspace
    """.split()  # noqa: SIM905 - shorter than the list
)
_ANY_TAG: Final = re.compile(r"</?[a-zA-Z][^<>\n]{0,200}>")

# The beginnings of lines that people do not write.
_START: Final = re.compile(
    r"\s*(?:\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d|[A-Z][a-z]{2} [ \d]\d \d\d:\d\d|\[?\d\d:\d\d:\d\d|\d+ ?\| "
    r"|>>> |\$ \S|#!|@@ |--- a/|\+\+\+ b/"
    r"|Traceback \(|[\w.]*(?:Error|Exception|Warning): "
    r"|File \"|at [\w.$<>]+\(|goroutine \d|Caused by: |error\[|//|/\*|\* @|<\?|<!|#include|#define"
    r"|(?:import|package|using|use) [\w.:\\]+(?: as \w+)?;?\s*\Z|import [{*\"']|import \w.* from |from [\w.]+ import "
    r"|(?:async )?(?:def|function|func|fn) \w+ ?[(<]|(?:let|var) \w+ ?[=:;]"
    r"|(?:public|private|protected|static|export|const) \w"
    r"|(?:class|struct|interface|enum|type) \w+ ?(?:[{(:=]|\Z)"
    r"|(?:SELECT|INSERT|UPDATE|DELETE|ALTER|CREATE|DROP|WITH|WHERE|FROM|JOIN|GROUP BY|ORDER BY|VALUES)\b"
    r"|(?:if|for|while|elif|else|try|except|catch|switch|return|raise|throw|end|fi|done)\b[^?]*[{(;)]\s*\Z"
    r"|(?:else|try|end|fi|done|begin|return|break|continue|pass):?\s*\Z)"
)
_END: Final = re.compile(r"(?:[{};\[(\\|]|=>|->|&&|\|\||</\w+>|\)\s*:|,)\s*\Z")
_ASSIGNMENT: Final = re.compile(r"\s*(?:- )?[\w.\-/\"'\[\]$@]{1,80}\s*(?:[:=]|:=|\+=)\s*\S{0,200}\s*\Z")
_CALL: Final = re.compile(r"\w\(|\)\.|\w\.\w+\(|==|!=|::|\w\[\w|:=|\+\+|/\w+/\w+/")
_ERROR: Final = re.compile(
    r"\b\w*(?:errors?|exceptions?)\b|\b[45]\d\d\b(?! ms)"
    r"|\b(?:fatal|failed|failure|panic|denied|refused|cannot|invalid|critical)\b",
    re.IGNORECASE,
)
_SYMBOL: Final = re.compile(r"[^\w\s.,?!'’\"¿¡:;()-]")  # noqa: RUF001 - a typeset apostrophe
_COMMA: Final = re.compile(r"[^\s,],[^\s,]")
_DATA: Final = re.compile(r"[\d\"(){}\[\]=:<>]")
_MIN_SYMBOL_SHARE: Final = 0.12
_MIN_COMMAS: Final = 2
# A block of lines is pasted if this share of them looks so.
_MIN_MARKED_SHARE: Final = 0.3
_INDENTATION: Final = ("    ", "\t")


@attrs.frozen
class Separated:
    """A message, separated into what is asked and what is pasted."""

    asked: str
    pasted: str


def separate(text: str) -> Separated:
    """Separate a message. If all of it looks pasted, all of it is asked."""
    lines = text.splitlines()
    if len(lines) < 2:  # noqa: PLR2004 - people paste lines
        return Separated(_ANY_TAG.sub(" ", text) if "</" in text else text, "")
    is_pasted = _marked(lines)
    if not any(is_pasted):
        is_pasted = _looking_pasted(lines)
    else:
        rest = _looking_pasted([line if not marked else "" for line, marked in zip(lines, is_pasted, strict=True)])
        is_pasted = [marked or looking for marked, looking in zip(is_pasted, rest, strict=True)]
    asked = "\n".join(
        _ANY_TAG.sub(" ", line) for line, pasted in zip(lines, is_pasted, strict=True) if not pasted
    ).strip()
    pasted = "\n".join(line for line, pasted in zip(lines, is_pasted, strict=True) if pasted)
    if not re.search(r"\w", asked):
        return Separated(text, "")
    return Separated(asked, pasted)


def errors_in(text: str) -> str:
    """Return the lines of a pasted text that report an error."""
    return "\n".join(line for line in text.splitlines() if _ERROR.search(line))


def _marked(lines: Sequence[str]) -> list[bool]:
    """Find the lines in fences, and in the tags of files."""
    marks = []
    fence = tag = ""
    for line in lines:
        pasted = True
        fenced = _FENCE.match(line)
        tagged = _TAG.match(line)
        if fence:
            if fenced and fenced[1].startswith(fence):
                fence = ""
        elif tag:
            if f"</{tag}" in line.lower():
                tag = ""
        elif fenced:
            fence = fenced[1]
        elif tagged and not tagged[1] and tagged[2].lower() in _PASTED_TAGS:
            tag = tagged[2].lower()
            if f"</{tag}" in line.lower():
                tag = ""
        else:
            pasted = False
        marks.append(pasted)
    return marks


def _looking_pasted(lines: Sequence[str]) -> list[bool]:
    """Find lines that look like code, data or a log, and the lines around them that do not ask."""
    marks = [bool(line.strip()) and _looks_pasted(line) for line in lines]
    # One such line may be the user's, unless its beginning says what it is.
    if sum(marks) < 2 and not any(map(_START.match, compress(lines, marks))):  # noqa: PLR2004
        return [False] * len(lines)
    for start, end in _blocks(lines):
        share = sum(marks[start:end]) / (end - start)
        if share >= _MIN_MARKED_SHARE and end - start > 1 and not any(map(_asks, lines[start:end])):
            marks[start:end] = [True] * (end - start)
    written = [number for number, line in enumerate(lines) if line.strip()]
    for before, number, after in zip(written, written[1:], written[2:], strict=False):
        if marks[before] and marks[after] and not _asks(lines[number]):
            marks[number] = True
    return marks


def _blocks(lines: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Return the first line and the end of each block of lines between empty lines."""
    start = 0
    for end in range(len(lines) + 1):
        if end == len(lines) or not lines[end].strip():
            if end > start:
                yield start, end
            start = end + 1


def _asks(line: str) -> bool:
    return line.rstrip().endswith("?") and " " in line.strip()


def _looks_pasted(line: str) -> bool:
    stripped = line.strip()
    if _START.match(line) or (_END.search(line[-100:]) and not _is_list(stripped)):
        return True
    if _asks(line):
        return False
    symbols = len(_SYMBOL.findall(stripped))
    return (
        line.startswith(_INDENTATION)
        or bool(_ASSIGNMENT.match(line))
        or len(_COMMA.findall(stripped)) >= (_MIN_COMMAS if " " in stripped else 1)
        or symbols > _MIN_SYMBOL_SHARE * len(stripped)
        or (bool(_CALL.search(stripped)) and symbols > 0)
    )


def _is_list(stripped: str) -> bool:
    """Return whether a line that ends with a comma is prose, such as the beginning of a letter."""
    return stripped.endswith(",") and not _DATA.search(stripped)
