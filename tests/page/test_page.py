"""The page at ``GET /``: who gets it, what comes with it, and what it is made of. tests/page tries it in a browser."""

from __future__ import annotations

import json
import re
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest
import pytest_twisted

from brunix_twisted import connect
from brunix_twisted.config.allowed_hosts import Hosts
from brunix_twisted.page import CLIENTS, FILES, HTML, QUESTIONS, load, wants_page
from gateways import RunningGateway, run_gateway, stop_gateway
from paths import ROOT, TESTS
from scripted_engine import ScriptedEngine

FOLDER = ROOT / "brunix_twisted" / "page"
OWN = [name for name in FILES if not name.startswith("vendor/")]
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
RUNNING = b"Ollama is running"
CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("accept", "page"),
    [
        # What browsers send when somebody types an address.
        (BROWSER + ",application/signed-exchange;v=b3;q=0.7", True),  # Chromium
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),  # Firefox, Safari
        ("text/html", True),
        ("TEXT/HTML", True),
        ("text/html; q=0.5, text/plain; q=0.4", True),
        ("text/html;charset=utf-8;q=1", True),
        ("text/html,*/*;q=0.001", True),
        # What everything else sends.
        ("", False),
        ("*/*", False),  # curl, wget, fetch, requests, httpx
        ("application/json", False),  # OpenAI's and Ollama's packages
        ("application/json, text/plain, */*", False),  # axios
        ("application/json, text/event-stream", False),
        ("text/plain", False),
        ("text/*", False),
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", False),  # Java's URLConnection, unless told otherwise
        ("text/html, image/gif, image/jpeg, */*; q=0.2", False),
        ("text/html, text/plain, text/css, */*;q=0.01", False),  # a browser in a terminal, which has no scripts
        ("text/html;q=0.8, text/plain", False),
        ("text/html;q=0.5, */*", False),
        ("text/html;q=0", False),
        ("text/html;q=0, */*;q=0", False),
        ("text/html;q=two", False),
        ("text/html;q=7", False),
        ("xtext/html", False),
        ("text/html-not", False),
        (", ,;;q=,", False),
        ("\xff\xfe", False),
    ],
)
def test_who_wants_the_page(accept: str, page: bool) -> None:  # noqa: FBT001 - a column of the table
    """A client of Ollama's would take the gateway for something else, or a browser's user see three words of text."""
    assert wants_page(accept) is page


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest_twisted.ensureDeferred
async def test_for_a_browser(gateway: RunningGateway, method: str) -> None:
    """A user who opens the gateway's address would see no page."""
    reply = await gateway.ask(method, "/", headers={"Accept": BROWSER})
    written = (FOLDER / HTML).read_bytes()
    assert (reply.status, reply.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert reply.body == (written if method == "GET" else b"")
    # A cache must not hand it to one of Ollama's clients, nor one origin's answer to another.
    assert reply.headers["vary"] == "Origin, Accept"


@pytest.mark.parametrize("accept", [None, "*/*", "application/json", ["application/json", "text/plain"]])
@pytest_twisted.ensureDeferred
async def test_for_a_client(gateway: RunningGateway, accept: str | list[str] | None) -> None:
    """A client of Ollama's would say that no server is there."""
    reply = await gateway.ask("GET", "/", headers={} if accept is None else {"Accept": accept})
    assert (reply.status, reply.body) == (200, RUNNING)
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert reply.headers["vary"] == "Origin, Accept"
    assert "content-security-policy" not in reply.headers


@pytest_twisted.ensureDeferred
async def test_accept_in_two_lines(gateway: RunningGateway) -> None:
    """A browser behind a proxy that splits headers would see three words of text."""
    reply = await gateway.ask("GET", "/", headers={"Accept": ["text/html", "*/*;q=0.8"]})
    assert reply.headers["content-type"] == "text/html; charset=utf-8"


PATHS = ["/", *(f"/page/{name}" for name in FILES if name != HTML), f"/page/{CLIENTS}"]


@pytest.mark.parametrize("path", PATHS)
@pytest_twisted.ensureDeferred
async def test_what_comes_with_it(gateway: RunningGateway, path: str) -> None:
    """What an engine says could run in its reader's browser, or the page be shown within another."""
    reply = await gateway.ask("GET", path, headers={"Accept": BROWSER})
    assert reply.status == 200
    policy = dict(rule.partition(" ")[::2] for rule in reply.headers["content-security-policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        **dict.fromkeys(("script-src", "style-src", "img-src", "connect-src"), "'self'"),
        **dict.fromkeys(("base-uri", "form-action", "frame-ancestors", "trusted-types"), "'none'"),
        "require-trusted-types-for": "'script'",
    }
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["referrer-policy"] == "same-origin"
    assert reply.headers["cross-origin-resource-policy"] == "same-origin"
    assert reply.headers["cache-control"] == "no-cache"
    # What a script, a style and a picture are loaded as, since nosniff has the browser insist on it.
    kinds = {".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    kind = kinds.get(Path(path).suffix, "application/json" if path.endswith(".json") else "text/html")
    assert reply.headers["content-type"].partition(";")[0] == kind


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/", "/page/page.js", f"/page/{CLIENTS}"])
@pytest_twisted.ensureDeferred
async def test_what_the_browser_has_already(gateway: RunningGateway, path: str, method: str) -> None:
    """Each look at the page would load all of it anew, or a new release's page run with the old one's scripts."""
    first = await gateway.ask(method, path, headers={"Accept": BROWSER})
    etag = first.headers["etag"]
    assert re.fullmatch('"[0-9a-f]{32}"', etag)
    for held in (etag, f"W/{etag}", f'"another", W/{etag}', "*"):
        again = await gateway.ask(method, path, headers={"Accept": BROWSER, "If-None-Match": held})
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", etag)
        assert again.headers["cache-control"] == "no-cache"
        assert again.headers["vary"] == first.headers["vary"]
    for other in ('"another"', etag.strip('"'), ""):
        again = await gateway.ask(method, path, headers={"Accept": BROWSER, "If-None-Match": other})
        assert again.status == 200


@pytest.mark.parametrize(
    "name",
    [
        HTML,
        "",
        "nothing.js",
        "__init__.py",
        "vendor",
        "vendor/README.md",
        "../page/page.js",
        "..%2f__init__.py",
        "%2e%2e/__init__.py",
        "/etc/passwd",
        "page.js/",
        "page.js%00",
    ],
)
@pytest_twisted.ensureDeferred
async def test_nothing_else_is_there(gateway: RunningGateway, name: str) -> None:
    """A URL could name a file of the machine's."""
    reply = await gateway.ask("GET", f"/page/{name}")
    # A slash at the end does no harm anywhere.
    assert reply.status == (200 if name == "page.js/" else 404)
    if reply.status == 404:
        assert reply.json()["error"]["code"] == "unknown_url"


@pytest_twisted.ensureDeferred
async def test_turned_off(engine: ScriptedEngine) -> None:
    """An operator who wants no page would have one, or a piece of it."""
    gateway = await run_gateway(grpc_target=engine.target, page=False)
    root = await gateway.ask("GET", "/", headers={"Accept": BROWSER})
    replies = [await gateway.ask("GET", path, headers={"Accept": BROWSER}) for path in PATHS[1:]]
    await stop_gateway(gateway)
    assert (root.status, root.body, root.headers["vary"]) == (200, RUNNING, "Origin")
    assert {reply.status for reply in replies} == {404}


@pytest_twisted.ensureDeferred
async def test_clients(gateway: RunningGateway) -> None:
    """The page would show no client to connect."""
    reply = await gateway.ask("GET", f"/page/{CLIENTS}")
    assert reply.body == connect.clients_json()
    assert [each["id"] for each in reply.json()["clients"]] == [each.id for each in connect.clients()]


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("localhost:8000", "http://localhost:8000"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("192.168.1.5:8000", "http://192.168.1.5:8000"),
        ("gateway.internal", "https://gateway.internal"),
    ],
)
@pytest.mark.parametrize("beyond", [False, True], ids=["this machine", "every interface"])
@pytest_twisted.ensureDeferred
async def test_the_page_may_ask(gateway: RunningGateway, host: str, origin: str, *, beyond: bool) -> None:
    """The page would be shown, but its questions be refused as a stranger's."""
    gateway.service._site.hosts = None if beyond else Hosts(frozenset())  # noqa: SLF001 - as the service sets it
    page = await gateway.ask("GET", "/", headers={"Accept": BROWSER, "Host": host})
    body = {"model": "brunix", "messages": [{"role": "user", "content": "hello"}]}
    reply = await gateway.ask("POST", CHAT, json=body, headers={"Host": host, "Origin": origin})
    # Browsers name the origin of a module's page when they ask for it.
    module = await gateway.ask("GET", "/page/page.js", headers={"Host": host, "Origin": origin})
    assert (page.status, reply.status, module.status) == (200, 200, 200)


@pytest_twisted.ensureDeferred
async def test_a_stranger_may_not(gateway: RunningGateway) -> None:
    """A page elsewhere could be given the gateway's own page, by a name that it points here."""
    reply = await gateway.ask("GET", "/", headers={"Accept": BROWSER, "Host": "evil.example"})
    assert (reply.status, reply.json()["error"]["code"]) == (403, "host_not_allowed")


# What it is made of.


def test_every_file_is_listed() -> None:
    """A file would be there that nobody serves, so that the page breaks where it is loaded."""
    there = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file()}
    written = {name for name in there if not name.endswith((".py", ".pyc"))}
    assert written - {"vendor/README.md", "vendor/LICENSES.txt"} == set(FILES)
    assert load().keys() == {*FILES, CLIENTS}


def test_wheel(wheel: Path) -> None:
    """An installed gateway would fail to start, or break the licence of what it brings along."""
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {*FILES, "vendor/README.md", "vendor/LICENSES.txt"}
    assert {f"brunix_twisted/page/{name}" for name in wanted} <= names


@pytest.mark.parametrize("name", OWN)
def test_nothing_from_outside(name: str) -> None:
    """Somebody elsewhere would learn who uses the page, or decide what it does."""
    text = (FOLDER / name).read_text("utf-8")
    found = set(re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}[^\s\"'`)>]*", text))
    assert found <= {"http://www.w3.org/2000/svg"}
    # Below a proxy's path, what begins with a slash is somebody else's.
    assert re.findall(r"""(?:href|src|fetch\(|from|import)\s*=?\s*["'`]/""", text) == []
    assert "url(" not in text


def test_nothing_written_into_the_page() -> None:
    """The browser would refuse to run or draw it, as the policy says."""
    html = (FOLDER / HTML).read_text("utf-8")
    assert re.findall(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son[a-z]+=|javascript:|<base\b", html) == []


@pytest.mark.parametrize("name", [name for name in OWN if name.endswith(".js")])
def test_no_text_becomes_html(name: str) -> None:
    """What an engine says could become a part of the page, were the policy not there."""
    code = re.sub(r"^\s*//.*$", "", (FOLDER / name).read_text("utf-8"), flags=re.MULTILINE)
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\b|new Function|srcdoc"
    assert re.findall(forbidden, code) == []


def test_what_the_page_names() -> None:
    """The page would ask for a file that is not there."""
    for name in OWN:
        text = (FOLDER / name).read_text("utf-8")
        for path in re.findall(r'(?:href|src)="([^"#]+)"', text):
            assert path.removeprefix("page/") in FILES, f"{name}: {path}"
        for path in re.findall(r'from "\./([^"]+)"', text):
            assert path in FILES, f"{name}: {path}"
        for path in re.findall(r'fetch\("page/([^"]+)"', text):
            assert path in {*load(), QUESTIONS}, f"{name}: {path}"


def test_what_is_not_our_own() -> None:
    """Nobody could tell what the library in the page is, or whether it is still what it was."""
    told = (FOLDER / "vendor" / "README.md").read_text("utf-8")
    (library,) = (FOLDER / name for name in FILES if name.startswith("vendor/"))
    assert sha256(library.read_bytes()).hexdigest() in told
    package = json.loads((TESTS / "page" / "package.json").read_text("utf-8"))
    release = package["devDependencies"]["markdown-it"]
    assert f"| release | {release} |" in told
    assert library.read_text("utf-8").startswith(f"/*! markdown-it {release} ")


def test_the_same_rule_for_what_is_put_in() -> None:
    """The page would put an address into a configuration that the command line refuses, or the reverse."""
    code = (FOLDER / "connect.js").read_text("utf-8")
    for name, rule in (("FIT_URL", connect._URL), ("FIT_MODEL", connect._MODEL)):  # noqa: SLF001 - to compare them
        (written,) = re.findall(rf"const {name} = /\^(.*)\$/;", code)
        assert written.replace(r"\/", "/") == rule.pattern
