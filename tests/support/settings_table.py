"""
The table of ``docs/settings.md``, made from the settings themselves.

Run as a script, it writes the table into the page.
"""

from __future__ import annotations

import re
from typing import Final

from brunix_twisted.config.settings import table
from paths import ROOT

PAGE: Final = ROOT / "docs" / "settings.md"


def rows() -> str:
    """Render the settings as a Markdown table."""
    lines = ["| variable | option | default | allowed | what it does |", "|---|---|---|---|---|"]
    for _, row in table():
        default = f"`{row.default}`" if row.default else "empty"
        lines.append(f"| `{row.variable}` | `--{row.option}` | {default} | {row.rule.allowed} | {row.meaning} |")
    return "".join(f"{line}\n" for line in lines)


def rewritten(page: str) -> str:
    """Put the table in place of the one in the page."""
    return re.sub(r"(?:^\| variable \| option .*\n)(?:^\|.*\n)+", lambda _: rows(), page, count=1, flags=re.MULTILINE)


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text("utf-8")), "utf-8")
