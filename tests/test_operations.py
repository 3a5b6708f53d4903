"""What docs/operations.md names. Its commands are run by tests/test_documentation.py."""

from __future__ import annotations

import re
from typing import Final

from documented import ROOT

PAGE: Final = (ROOT / "docs" / "operations.md").read_text("utf-8")


def test_what_is_named_exists() -> None:
    """An operator would look for an alert, a metric or a setting that is not there."""
    files = ("docs/metrics.md", "docs/settings.md", "deploy/prometheus/brunix-gateway.rules.yml")
    known = "".join((ROOT / file).read_text("utf-8") for file in files)
    names = set(re.findall(r"\b(?:Brunix[A-Z]\w+|(?:PROXY|BRUNIX)_[A-Z_]+)\b", PAGE))
    watched = re.search(r"^\| number \|.*?\n\n", PAGE, re.MULTILINE | re.DOTALL)
    assert watched is not None
    names |= {f"brunix_gateway_{name}" for name in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", watched[0])}
    names -= {"brunix_gateway_engine_error"}
    assert len(names) >= 20
    assert {name for name in names if name not in known} == set()
    alerts = set(re.findall(r"- alert: (\w+)", known))
    assert set(re.findall(r"\bBrunix[A-Z]\w+", watched[0])) == alerts
