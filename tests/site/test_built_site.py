"""The documentation as `make docs` has just built it: what a browser finds there."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from markdown_it import MarkdownIt

from paths import ROOT

SITE: Final = ROOT / "site"
KINDS: Final = ("Get started", "Guides", "Reference", "Explanation")
PAPERS: Final = ("CONTRIBUTING", "SECURITY", "CHANGELOG")
SOURCES: Final = {
    **{path.stem: path for path in sorted((ROOT / "docs").glob("*.md"))},
    **{name.lower(): ROOT / f"{name}.md" for name in PAPERS},
}

FETCHED: Final = {
    "audio": ("src",),
    "embed": ("src",),
    "iframe": ("src",),
    "image": ("href", "xlink:href"),
    "img": ("src", "srcset"),
    "input": ("src",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src", "srcset"),
    "track": ("src",),
    "use": ("href", "xlink:href"),
    "video": ("src", "poster"),
}
"""Where a page names what a browser fetches by itself; a link element is one of them by what it is for."""
ONLY_SAID: Final = frozenset(("canonical", "next", "prev"))
"""What a link element is for when nothing is fetched by it."""

BLOCKS: Final = {"bullet_list": "ul", "ordered_list": "ol", "list_item": "li", "table": "table", "tr": "tr"}


class Page(HTMLParser):
    """What is in a page: what it fetches, where it leads, what can be led to, and how often what is in its text."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: set[str] = set()
        self.links: set[str] = set()
        self.names: set[str] = set()
        self.classes: set[str] = set()
        self.schemes: set[str] = set()
        self.without_words: set[str] = set()
        self.styles = ""
        self.counted: Counter[str] = Counter()
        self._in_article = self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {name: text or "" for name, text in attrs}
        self.fetched |= {said[name] for name in FETCHED.get(tag, ()) if name in said}
        if tag == "link" and not ONLY_SAID.issuperset(said["rel"].split()):
            self.fetched.add(said["href"])
        if tag == "a" and "href" in said:
            self.links.add(said["href"])
        self.names |= {said[name] for name in ("id", "name") if name in said}
        self.classes |= set(said.get("class", "").split())
        self.styles += said.get("style", "")
        self.schemes |= {said["data-md-color-scheme"]} if "data-md-color-scheme" in said else set()
        if tag == "img" and not said.get("alt"):
            self.without_words.add(said["src"])
        self._in_article |= tag == "article"
        self._in_style = tag == "style"
        if self._in_article:
            self.counted[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        self._in_article &= tag != "article"
        self._in_style &= tag != "style"

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.styles += data


def read(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text("utf-8"))
    return page


@pytest.fixture(scope="module")
def pages() -> dict[str, Page]:
    """Give every page of the site, by its name."""
    found = {path.stem: read(path) for path in sorted(SITE.glob("*.html"))}
    assert found, "The site is not there: make docs"
    return found


def within(style: str) -> Iterator[str]:
    """Find what a style sheet fetches, but for what it has in it."""
    for found in re.finditer(r"url\(\s*['\"]?([^)'\"]*)|@import\s+['\"]([^'\"]*)", style):
        if not (address := found[1] or found[2] or "").startswith(("data:", "#")):
            yield address


def is_here(address: str, folder: Path) -> bool:
    """Whether an address leads to a file of the site."""
    parts = urlsplit(address)
    return not parts.scheme and not parts.netloc and (folder / unquote(parts.path)).is_file()


def test_every_page_is_built(pages: dict[str, Page]) -> None:
    """A page of the documentation would be missing on the site."""
    assert set(pages) == {*SOURCES, "404"}


def test_nothing_comes_from_elsewhere(pages: dict[str, Page]) -> None:
    """Whoever reads the documentation would be told of to somebody, or see half of it without a way out."""
    for name, page in pages.items():
        # The page for what is not there is shown at any address, and so names what it needs from the top.
        addresses = {address.lstrip("/") for address in page.fetched} if name == "404" else page.fetched
        assert addresses
        assert {address for address in addresses if not is_here(address, SITE)} == set(), name
        assert list(within(page.styles)) == [], name
        # Only these make the theme fetch a program from a network of others.
        assert page.classes.isdisjoint(("mermaid", "glightbox", "arithmatex")), name
    sheets = sorted(SITE.rglob("*.css"))
    assert len(sheets) >= 2
    for sheet in sheets:
        for address in within(sheet.read_text("utf-8")):
            assert is_here(address, sheet.parent), f"{sheet.name}: {address}"
    for drawing in SITE.rglob("*.svg"):
        found = read(drawing)
        assert {address for address in found.fetched if not address.startswith(("#", "data:"))} == set(), drawing.name
        assert list(within(found.styles)) == [], drawing.name


def test_links_lead_somewhere(pages: dict[str, Page]) -> None:
    """A reader would follow a link to nowhere, or to the top of a page in place of the section."""
    for name, page in pages.items():
        for link in page.links if name != "404" else ():
            parts = urlsplit(link)
            if parts.scheme in ("http", "https"):
                continue
            assert not parts.scheme, f"{name}: {link}"
            target = Path(parts.path).stem or name
            if parts.path and Path(parts.path).suffix != ".html":
                assert is_here(link, SITE), f"{name}: {link}"
                continue
            assert target in pages, f"{name}: {link}"
            assert not parts.fragment or unquote(parts.fragment) in pages[target].names, f"{name}: {link}"


def test_search(pages: dict[str, Page]) -> None:
    """A word that stands on a page would not be found."""
    index = json.loads((SITE / "search" / "search_index.json").read_text("utf-8"))
    found: dict[str, str] = {}
    for entry in index["docs"]:
        name = Path(urlsplit(entry["location"]).path).stem or "index"
        found[name] = found.get(name, "") + entry["title"] + entry["text"]
    assert set(found) == set(pages) - {"404"}
    assert "PROXY_THREAD_WORKERS" in found["settings"]
    config = re.search(
        r'<script id="__config" type="application/json">(.*?)</script>', (SITE / "index.html").read_text()
    )
    assert config is not None
    assert is_here(json.loads(config[1])["search"], SITE)


def test_colours(pages: dict[str, Page]) -> None:
    """Somebody who reads in the dark would be dazzled."""
    for page in pages.values():
        assert page.schemes >= {"default", "slate"}


def test_pictures_have_words(pages: dict[str, Page]) -> None:
    """Somebody who does not see a picture would not be told what it shows."""
    assert {name: page.without_words for name, page in pages.items() if page.without_words} == {}


def test_each_page_is_of_a_kind() -> None:
    """A reader who looks for a how-to, say, would not find it among them."""
    entries = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]
    kinds = [kind for entry in entries for kind in entry]
    assert kinds == ["Home", *KINDS, "Project"]
    named = [page for entry in entries for part in entry.values() if isinstance(part, list) for page in part]
    assert Counter(path.removesuffix(".md") for page in named for path in page.values()) == Counter(
        [name for name in SOURCES if name != "index"]
    )


def test_the_first_page_names_every_page() -> None:
    """A reader who begins at the beginning would not learn of a page."""
    first = (ROOT / "docs" / "index.md").read_text("utf-8")
    assert [name for name, path in SOURCES.items() if f"]({path.name})" not in first.replace("](../", "](")] == [
        "index"
    ]


@pytest.mark.parametrize("name", SOURCES)
def test_a_page_is_read_as_it_is_meant(pages: dict[str, Page], name: str) -> None:
    """A list would become a paragraph on the site, or a block of code a line of dots and bars."""
    tokens = MarkdownIt("commonmark").enable("table").parse(SOURCES[name].read_text("utf-8"))
    meant = Counter(
        BLOCKS[kind] for token in tokens if (kind := token.type.removesuffix("_open")) in BLOCKS and token.nesting == 1
    )
    meant["pre"] = sum(token.type == "fence" for token in tokens)
    meant += Counter(token.tag for token in tokens if token.type == "heading_open")
    seen = Counter(
        {
            tag: count
            for tag, count in pages[name].counted.items()
            if tag in {*BLOCKS.values(), "pre"} or re.fullmatch("h[1-6]", tag)
        }
    )
    assert seen == meant
