"""``brunix connect``: a text that is ready to be pasted, and what is to be known beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from brunix_twisted.connect import clients, filled
from cli.conftest import Gateway
from cli.running import brunix
from test_tap import free_port, twistd, wait_for_port

SEVERAL = next(each for each in clients() if len(each.snippets) > 1)


def test_the_list() -> None:
    """A client is not listed, or the list cannot be taken for one."""
    done = brunix("connect")
    assert done.returncode == 0
    assert [each.id for each in clients()] == [line.split()[0] for line in done.stdout.splitlines() if line[:2] == "  "]
    assert "brunix connect NAME" in done.stderr
    listed = json.loads(brunix("connect", "--json").stdout)["clients"]
    assert [each["id"] for each in listed] == [each.id for each in clients()]


@pytest.mark.parametrize("client", clients(), ids=lambda client: client.id)
def test_every_client(client: object) -> None:
    """A text holds a placeholder in place of the address, or something that does not belong into a file."""
    assert hasattr(client, "id")
    done = brunix("connect", client.id, "--url", "https://brunix.example/ai/v1", "--model", "docs")
    wanted = next(each for each in clients() if each.id == client.id)
    assert done.returncode == 0
    assert done.stdout == filled(wanted, "https://brunix.example/ai", "docs").snippets[0].code
    assert "@URL@" not in done.stdout + done.stderr
    assert wanted.name in done.stderr


# With a model given, nothing is asked of the gateway at that address.
AT_THE_DEFAULT = {"BRUNIX_URL": ""}


def test_into_a_file(tmp_path: Path) -> None:
    """``brunix connect continue > config.yaml`` writes something that Continue cannot read."""
    file = tmp_path / "config.yaml"
    file.write_text(brunix("connect", "continue", "--model", "docs", environment=AT_THE_DEFAULT).stdout, "utf-8")
    (model,) = yaml.safe_load(file.read_text("utf-8"))["models"]
    assert (model["apiBase"], model["model"]) == ("http://127.0.0.1:8000/v1", "docs")


def test_parts() -> None:
    """Of a client that has several texts only one can be had, or nobody learns of the others."""
    for number, snippet in enumerate(filled(SEVERAL, "http://127.0.0.1:8000", "m").snippets, 1):
        done = brunix("connect", SEVERAL.id, "--model", "m", "--part", str(number), environment=AT_THE_DEFAULT)
        assert done.stdout == snippet.code
        assert f"--part {2 if number == 1 else 1}" in done.stderr
    done = brunix("connect", SEVERAL.id, "--model", "m", "--part", "9")
    assert (done.returncode, done.stdout) == (2, "")


def test_all() -> None:
    """Not every client is among all."""
    done = brunix("connect", "--all", "--model", "m", "--url", "http://gateway.example:8000")
    assert done.returncode == 0
    assert all(f"# {each.name}" in done.stdout for each in clients())
    told = json.loads(brunix("connect", "--all", "--json", "--model", "m", "--url", "http://gateway.example").stdout)
    assert [each["id"] for each in told["clients"]] == [each.id for each in clients()]
    assert "@MODEL@" not in json.dumps(told)


def test_the_model_is_asked_for(served: Gateway, tmp_path: Path) -> None:
    """A configuration names a model that the gateway does not have."""
    with twistd(tmp_path, PROXY_LISTEN="tcp:0:interface=127.0.0.1", PROXY_MODEL_ID="team-docs") as process:
        done = brunix("connect", "continue", "--url", f"http://127.0.0.1:{wait_for_port(process)}")
    assert '"team-docs"' in done.stdout
    assert '"brunix"' in brunix("connect", "continue", "--url", served.url).stdout
    nobody = brunix("connect", "continue", "--url", f"http://127.0.0.1:{free_port()}")
    assert (nobody.returncode, '"brunix"' in nobody.stdout) == (0, True)
    assert "could not be asked: nothing listens at" in nobody.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["continu"], "continue"),
        (["Continue"], "continue"),
        (["nothing-like-it"], "`brunix connect` lists all"),
        (["continue", "--model", 'a"b'], "cannot be put into a configuration"),
        (["continue", "--model", "m", "--url", "http://host/$(id)"], "cannot be put into a configuration"),
    ],
)
def test_refused(arguments: list[str], told: str) -> None:
    """A mistyped name is not put right, or a text is written that means something else than it says."""
    done = brunix("connect", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
