"""What clients are told of the gateway: that it is well formed, and stays so whatever the gateway is called."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import yaml

from brunix_twisted import connect
from brunix_twisted.config.settings import table
from brunix_twisted.connect import Client, Snippet, UnfitValueError, UnknownClient, client, clients, filled
from client_sections import AGENTS_PAGE, PAGE, rewritten, shown
from paths import ROOT, TESTS

CLIENTS: Final = TESTS / "clients"
PINNED: Final = "\n".join(
    path.read_text("utf-8")
    for path in (
        *CLIENTS.glob("*.txt"),
        CLIENTS / "package.json",
        ROOT / "benchmarks" / "baselines" / "litellm.txt",
    )
)

TEXTS: Final = {f"{each.id}-{text.language}": (each, text) for each in clients() for text in each.snippets}
every_text = pytest.mark.parametrize(("of", "text"), TEXTS.values(), ids=TEXTS)
every_client = pytest.mark.parametrize("of", clients(), ids=lambda of: of.id)

PLAIN: Final = ("http://gateway.example", "gateway-model")
"""Where each of the two has been put in, it is found again by this."""
ODD: Final = [
    ("http://127.0.0.1:8000", "null"),
    ("https://[::1]:8000", "7"),
    ("https://company.example/brunix/v2", "true"),
    ("http://a.b-c_d:80/~u%20v/w.x", "1e3"),
    ("http://localhost", "a:b"),
    ("http://localhost", "12:30:00"),
    ("http://localhost", "2026-11-22"),
    ("http://localhost", "0x1F"),
    ("http://localhost", "acme/brunix@2.0+q4_k-m:latest"),
    ("http://localhost", "x@URL@"),
]
"""What an operator may choose, and some language could take for something else."""


@attrs.frozen
class Programs:
    """The constants of a program in Python, and its form without them."""

    constants: Sequence[object]
    form: str


def read_python(code: str) -> Programs:
    tree = ast.parse(code)
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    values = [node.value for node in constants]
    for node in constants:
        node.value = None
    return Programs(values, ast.dump(tree))


def read_sh(code: str) -> list[str]:
    shell = shutil.which("sh")
    assert shell is not None
    done = subprocess.run([shell, "-n"], input=code, text=True, capture_output=True, check=False)  # noqa: S603 - our own
    assert (done.returncode, done.stderr) == (0, "")
    return shlex.split(code)


def read_js(code: str) -> list[str]:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    command = [node, "--check", "--input-type=module"]
    done = subprocess.run(command, input=code, text=True, capture_output=True, check=False)  # noqa: S603 - our own
    assert (done.returncode, done.stderr) == (0, "")
    return read_brackets(code)


def read_brackets(code: str) -> list[str]:
    """Read what nothing here can run: whatever is opened is closed, and the strings are these."""
    strings = re.findall(r'"[^"]*"', code)
    rest = re.sub(r'"[^"]*"|[^()\[\]{}"]', "", code)
    while (shorter := re.sub(r"\(\)|\[\]|\{\}", "", rest)) != rest:
        rest = shorter
    assert rest == ""
    return strings


READ: Final[dict[str, Callable[[str], Any]]] = {
    "python": read_python,
    "js": read_js,
    "json": json.loads,
    "yaml": yaml.safe_load,
    "toml": tomllib.loads,
    "sh": read_sh,
    "lua": read_brackets,
    "elisp": read_brackets,
    "text": str,
}


def with_values(read: Any, url: str, model: str) -> Any:  # noqa: ANN401 - whatever was read
    """Put an address and a model's name in place of the plain ones in what was read of a text."""
    if isinstance(read, str):
        return read.replace(PLAIN[0], url).replace(PLAIN[1], model)
    if isinstance(read, dict):
        return {with_values(key, url, model): with_values(value, url, model) for key, value in read.items()}
    if isinstance(read, list):
        return [with_values(each, url, model) for each in read]
    if isinstance(read, Programs):
        return Programs([with_values(each, url, model) for each in read.constants], read.form)
    return read


def told(of: Client, text: Snippet, url: str, model: str) -> str:
    """Fill in one text."""
    return filled(of, url, model).snippets[of.snippets.index(text)].code


@every_text
def test_a_text_can_be_read(of: Client, text: Snippet) -> None:
    """Somebody who copies a configuration would be told that it is none."""
    assert READ[text.language](told(of, text, "http://127.0.0.1:8000", "brunix"))


@every_text
@pytest.mark.parametrize(("url", "model"), ODD)
def test_a_text_means_the_same_whatever_is_put_in(of: Client, text: Snippet, url: str, model: str) -> None:
    """A gateway whose model is called 7 would be asked for another, or its configuration would say something else."""
    # One start of Node for each text is enough.
    read = read_brackets if text.language == "js" else READ[text.language]
    assert read(told(of, text, url, model)) == with_values(read(told(of, text, *PLAIN)), url, model)


@every_text
def test_a_shell_finds_no_pattern_in_an_address(of: Client, text: Snippet) -> None:
    """The brackets of an address such as [::1] would be taken for a pattern of file names."""
    if text.language == "sh":
        for found in re.finditer("@URL@", text.code):
            before = text.code[: found.start()]
            assert re.search(r"=$|[\"'][^\"'\n]*$", before), of.id


@pytest.mark.parametrize(
    "url",
    [
        "",
        "gateway.example",
        "//gateway.example",
        "ftp://gateway.example",
        "javascript:alert(1)",
        "http://",
        "http://gateway.example/",
        "http://gateway.example/v1/",
        "http://gateway.example//v1",
        "http://somebody:secret@gateway.example",
        "http://gateway.example?a=b",
        "http://gateway.example#a",
        "http://gateway.example:port",
        "http://gateway.example/a b",
        'http://gateway.example/"',
        "http://gateway.example/'",
        "http://gateway.example/`id`",
        "http://gateway.example/$(id)",
        "http://gateway.example/a\\b",
        "http://gateway.example/a\nb",
        "http://gateway.example\n",
        "http://gateway.example;id",
        "http://gateway.example/{a,b}",
        "http://gatewáy.example",
    ],
)
def test_an_address_that_could_mean_something_else(url: str) -> None:
    """A line break or a quotation mark in an address would write a configuration of its own."""
    with pytest.raises(UnfitValueError, match="cannot be used in a configuration"):
        filled(client("curl"), url, "brunix")


@pytest.mark.parametrize(
    "model", ["", "-brunix", "a b", 'a"b', "a'b", "a`b`", "$a", "a\\b", "a\nb", "a\n", "a;b", "{a}", "é", "a" * 129]
)
def test_a_name_that_could_mean_something_else(model: str) -> None:
    """A line break or a quotation mark in a model's name would write a configuration of its own."""
    with pytest.raises(UnfitValueError, match="cannot be used in a configuration"):
        filled(client("curl"), "http://127.0.0.1:8000", model)
    with pytest.raises(ValueError, match=r".*"):
        model_rule()(model)


def model_rule() -> Callable[[str], object]:
    """Find the rule of the gateway's setting for its model's name."""
    (rule,) = (row.rule for _, row in table() if row.variable == "PROXY_MODEL_ID")
    return rule.read


@pytest.mark.parametrize("model", sorted({model for _, model in ODD}))
def test_what_a_gateway_may_call_its_model(model: str) -> None:
    """A gateway's own model could not be put into any configuration."""
    assert model_rule()(model) == model


def test_everything_is_filled_in() -> None:
    """A placeholder would be left in what somebody copies, or in what he is told beside it."""
    whole = Client(
        id="any",
        name="Any",
        api="openai",
        group="Any",
        snippets=(Snippet("text", "@URL@ @HOST@ @MODEL@ @URL@\n", "@MODEL@.txt", "At @HOST@."), Snippet("text", "@X@")),
        note="@MODEL@ is at @URL@.",
    )
    assert filled(whole, "https://company.example:8443/brunix", "small") == attrs.evolve(
        whole,
        note="small is at https://company.example:8443/brunix.",
        snippets=(
            Snippet(
                "text",
                "https://company.example:8443/brunix company.example:8443 small https://company.example:8443/brunix\n",
                "small.txt",
                "At company.example:8443.",
            ),
            Snippet("text", "@X@"),
        ),
    )


@every_client
def test_a_client_is_told_well(of: Client) -> None:
    """Somebody would be shown a text without its name, an empty one, or one that says nothing of his gateway."""
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", of.id)
    assert of.name
    assert of.api in {"openai", "ollama", "responses", "anthropic", "mcp"}
    assert of.snippets
    assert any("@URL@" in text.code for text in of.snippets)
    # By the language a test asks for the one it wants; a reader needs the file too.
    assert len({(text.language, text.file) for text in of.snippets}) == len(of.snippets)
    for text in of.snippets:
        assert re.search(r"[^\s]\n\Z", text.code)
        assert not re.search(r"[ \t]$|\t", text.code, re.MULTILINE)
        assert text.language in READ
        assert re.fullmatch(r"|.*\." if text.file else r"|.*[.:]", text.note)
    for words in (of.note, *(text.note for text in of.snippets)):
        assert "](" not in words
        assert "\n" not in words


def test_no_placeholder_is_misspelled() -> None:
    """A placeholder that nothing replaces would be copied into a configuration."""
    assert set(re.findall(r"@[A-Za-z]+@", connect.clients_json().decode())) <= {"@URL@", "@HOST@", "@MODEL@"}


def test_order() -> None:
    """A client would be listed twice, or a group's clients not together."""
    assert len({each.id for each in clients()}) == len({each.name for each in clients()}) == len(clients())
    groups = [group for group, _ in groupby(clients(), key=lambda each: each.group)]
    assert groups == ["Editors", "Chat windows", "Libraries", "Command lines", "Proxies", "Agents (MCP)"]


def test_as_json() -> None:
    """The page in the browser would show other clients than the command line."""
    told = json.loads(connect.clients_json())
    assert list(told) == ["clients"]
    read = [
        Client(**{**each, "snippets": tuple(Snippet(**text) for text in each["snippets"])}) for each in told["clients"]
    ]
    assert tuple(read) == clients()
    assert len(connect.clients_json()) < 64 * 1024


@pytest.mark.parametrize(
    ("asked", "near"),
    [
        ("openai", ["openai-python", "openai-node"]),
        ("contineu", ["continue"]),
        ("OpenAI Python", ["openai-python"]),
        ("Open_WebUI", ["open-webui"]),
        ("claude", ["claude-code"]),
        ("Zed", ["zed"]),
    ],
)
def test_an_unknown_client(asked: str, near: list[str]) -> None:
    """Somebody who does not know a client's exact name would not be helped to it."""
    with pytest.raises(UnknownClient) as raised:
        client(asked)
    words = re.split(r"[ ,:;']+", str(raised.value))
    assert set(near) <= set(words)


@pytest.mark.parametrize("asked", ["", "qqqqqq"])
def test_a_client_that_nothing_is_near_to(asked: str) -> None:
    """Somebody would be sent to clients that have nothing to do with what he asked for."""
    with pytest.raises(UnknownClient, match=f"^unknown client '{asked}'$"):
        client(asked)


@pytest.mark.parametrize("page", [PAGE, AGENTS_PAGE], ids=lambda page: page.stem)
def test_page(page: Path) -> None:
    """
    A page shows the same configurations as the command line.

    ``make docs-tables`` updates it.
    """
    assert rewritten(page) == page.read_text("utf-8")


@pytest.mark.parametrize("page", [PAGE, AGENTS_PAGE], ids=lambda page: page.stem)
def test_table_of_what_was_tried(page: Path) -> None:
    """The table names the release of each client that is tested, and no other client."""
    rows = "\n".join(line for line in page.read_text("utf-8").splitlines() if line.startswith("| ["))
    tested = [each for each in clients() if each.tested and shown(each, page)]
    for each in tested:
        for release in re.findall(r"\d+(?:\.\d+)+", each.tested):
            assert release in rows, each.id
            if not each.id.startswith("curl"):  # which is whatever the machine has
                assert re.search(rf"==\s*{re.escape(release)}$|\"{re.escape(release)}\"", PINNED, re.MULTILINE), each.id
    linked = re.findall(r"^\| .*", rows, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", each.name.lower()).replace(" ", "-") for each in tested}
    assert anchors == {anchor for row in linked for anchor in re.findall(r"\(#([^)]+)\)", row)}
