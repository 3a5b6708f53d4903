"""What the site has beside docs/: the papers at the top of the tree, what was measured in drawings, and its style."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).parent
PAPERS: Final = {name: f"{name.lower()}.md" for name in ("CONTRIBUTING", "SECURITY", "CHANGELOG")}
"""Each one's name at the top of the tree, and on the site."""
WIDE: Final = ("settings.md",)
"""Tables that need the room of the list of headings."""


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add them to what is in docs/."""
    for name, page in PAPERS.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / f"{name}.md")))
    for path in (ROOT / "mkdocs.css", *sorted((ROOT / "benchmarks" / "results").glob("quick-*.svg"))):
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:  # noqa: ANN401 - MkDocs gives more than is needed
    """Let links lead to where things are on the site: docs/ and the top of the tree are one folder there."""
    if page.file.src_uri in WIDE:
        page.meta["hide"] = ["toc"]
    markdown = re.sub(r"\]\((?:\.\./|docs/)", "](", markdown)
    return re.sub(rf"\]\(({'|'.join(PAPERS)})\.md", lambda found: f"]({PAPERS[found[1]]}", markdown)
