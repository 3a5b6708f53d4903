"""
The table of side requests in ``docs/sessions.md``, generated from the data.

Run as a script, it writes the table into the page.
"""

from __future__ import annotations

import re
from typing import Final

from brunix_twisted.api.side_requests import known
from paths import ROOT

PAGE: Final = ROOT / "docs" / "sessions.md"

BEGIN: Final = "<!-- From here on written by `make docs-tables`, from brunix_twisted/api/side_requests.toml. -->\n"
END: Final = "<!-- Up to here. -->\n"


def rows() -> str:
    """Render one row for each client, in the order of the file."""
    lines = ["| client | side requests | of these, needed | read in |", "|---|---|---|---|"]
    for client in dict.fromkeys(kind.client for kind in known()):
        kinds = [kind for kind in known() if kind.client == client]
        purposes = ", ".join(dict.fromkeys(kind.purpose for kind in kinds))
        needed = ", ".join(dict.fromkeys(kind.purpose for kind in kinds if kind.wanted))
        releases = "; ".join(dict.fromkeys(kind.release for kind in kinds))
        lines.append(f"| {client} | {purposes} | {needed or '–'} | {releases} |")
    return "".join(f"{line}\n" for line in lines)


def rewritten(page: str) -> str:
    """Replace the table in the page."""
    between = re.compile(f"(?<={re.escape(BEGIN)}).*?(?={re.escape(END)})", re.DOTALL)
    assert between.search(page), "the page lacks the two lines around its table"
    return between.sub(lambda _: f"\n{rows()}\n", page, count=1)


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text("utf-8")), "utf-8")
