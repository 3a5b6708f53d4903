"""The guides for operators name only what exists. Their commands are run by tests/project/test_documentation.py."""

from __future__ import annotations

import re
from typing import Final

from paths import ROOT

MONITORING: Final = (ROOT / "docs" / "monitoring.md").read_text("utf-8")
GUIDES: Final = MONITORING + "".join(
    (ROOT / "docs" / f"{name}.md").read_text("utf-8") for name in ("production", "troubleshooting")
)


def test_alerts_metrics_and_settings_exist() -> None:
    """Every alert, metric and setting in the guides exists, and the table of alerts lists every rule."""
    files = (
        "docs/metrics.md",
        "docs/settings.md",
        "docs/embedded-engine.md",
        "docs/command-line.md",
        "deploy/prometheus/brunix-gateway.rules.yml",
    )
    known = "".join((ROOT / file).read_text("utf-8") for file in files)
    # Those of `entrypoint.sh` are documented in the guide itself.
    known += "".join(re.findall(r"^\| `BRUNIX_.*$", GUIDES, re.MULTILINE))
    names = set(re.findall(r"\b(?:Brunix[A-Z]\w+|(?:PROXY|BRUNIX)_[A-Z_]+)\b", GUIDES))
    alerts = re.search(r"^\| alert \|.*?\n\n", MONITORING, re.MULTILINE | re.DOTALL)
    assert alerts is not None
    metrics = {line.split("|")[2] for line in alerts[0].splitlines()[2:] if line}
    names |= {f"brunix_gateway_{name}" for name in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", "".join(metrics))}
    names -= {"brunix_gateway_engine_error"}
    assert len(names) >= 30
    assert {name for name in names if name not in known} == set()
    rules = set(re.findall(r"- alert: (\w+)", known))
    assert set(re.findall(r"\bBrunix[A-Z]\w+", alerts[0])) == rules
