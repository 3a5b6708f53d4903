"""What the documentation says of files and tests is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from test_architecture import LEVELS

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])


def test_every_promise_has_its_test() -> None:
    """A promise would be made that nothing holds."""
    page = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| promise")]
    assert len(rows) >= 20
    for row in rows:
        tests = row.rsplit("|", 2)[1]
        file = ""
        for name in re.findall(r"`([^`]+)`", tests):
            file = name.partition("::")[0] or file
            source = (ROOT / "tests" / file).read_text("utf-8")
            if test := name.partition("::")[2]:
                assert f"def {test}(" in source, row
        assert file, row


def test_every_room_is_on_the_map() -> None:
    """Somebody who looks for a module in the architecture's table would not find it."""
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    table = page[page.index("| level |") : page.index("*Pure* means")]
    assert {room for room in LEVELS if f"`{room}`" not in table and f"`{room}/`" not in table} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page: Path) -> None:
    """A reader would follow a link to nowhere."""
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target


def test_units() -> None:
    """Somebody who copies a unit from the page would get another than the file."""
    page = (ROOT / "docs" / "systemd.md").read_text("utf-8")
    for name in ("brunix-gateway.service", "brunix-gateway.socket"):
        unit = (ROOT / "deploy" / "systemd" / name).read_text("utf-8")
        assert f"```ini\n{unit}```" in page
