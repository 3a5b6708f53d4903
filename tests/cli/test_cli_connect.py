"""``brunix connect``: configurations to redirect or paste, and notes next to them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from brunix_twisted.connect import clients, filled
from cli_commands import brunix
from cli_gateways import Gateway, free_port, twistd, wait_for_port

SEVERAL = next(each for each in clients() if len(each.snippets) > 1)


def test_the_list() -> None:
    """Every client is listed, as text and as JSON."""
    done = brunix("connect")
    assert done.returncode == 0
    assert [each.id for each in clients()] == [line.split()[0] for line in done.stdout.splitlines() if line[:2] == "  "]
    assert "brunix connect NAME" in done.stderr
    listed = json.loads(brunix("connect", "--json").stdout)["clients"]
    assert [each["id"] for each in listed] == [each.id for each in clients()]


@pytest.mark.parametrize("client", clients(), ids=lambda client: client.id)
def test_every_client(client: object) -> None:
    """Standard output is the configuration, with the address and the model in place of placeholders."""
    assert hasattr(client, "id")
    done = brunix("connect", client.id, "--url", "https://brunix.example/ai/v1", "--model", "docs")
    wanted = next(each for each in clients() if each.id == client.id)
    assert done.returncode == 0
    assert done.stdout == filled(wanted, "https://brunix.example/ai", "docs").snippets[0].code
    assert "@URL@" not in done.stdout + done.stderr
    assert wanted.name in done.stderr


# With --model the gateway is not called.
AT_THE_DEFAULT = {"BRUNIX_URL": ""}


def test_into_a_file(tmp_path: Path) -> None:
    """``brunix connect continue > config.yaml`` writes a file that Continue can read."""
    file = tmp_path / "config.yaml"
    file.write_text(brunix("connect", "continue", "--model", "docs", environment=AT_THE_DEFAULT).stdout, "utf-8")
    (model,) = yaml.safe_load(file.read_text("utf-8"))["models"]
    assert (model["apiBase"], model["model"]) == ("http://127.0.0.1:8000/v1", "docs")


def test_parts() -> None:
    """Each part of a client with several parts can be printed, and the others are mentioned."""
    for number, snippet in enumerate(filled(SEVERAL, "http://127.0.0.1:8000", "m").snippets, 1):
        done = brunix("connect", SEVERAL.id, "--model", "m", "--part", str(number), environment=AT_THE_DEFAULT)
        assert done.stdout == snippet.code
        assert f"--part {2 if number == 1 else 1}" in done.stderr
    done = brunix("connect", SEVERAL.id, "--model", "m", "--part", "9")
    assert (done.returncode, done.stdout) == (2, "")


def test_all() -> None:
    """``--all`` prints every client, as text and as JSON."""
    done = brunix("connect", "--all", "--model", "m", "--url", "http://gateway.example:8000")
    assert done.returncode == 0
    assert all(f"# {each.name}" in done.stdout for each in clients())
    listed = json.loads(brunix("connect", "--all", "--json", "--model", "m", "--url", "http://gateway.example").stdout)
    assert [each["id"] for each in listed["clients"]] == [each.id for each in clients()]
    assert "@MODEL@" not in json.dumps(listed)


def test_the_model_comes_from_the_gateway(served: Gateway, tmp_path: Path) -> None:
    """The configuration names the gateway's model; without a gateway it names the default and says so."""
    with twistd(tmp_path, PROXY_LISTEN="tcp:0:interface=127.0.0.1", PROXY_MODEL_ID="team-docs") as process:
        done = brunix("connect", "continue", "--url", f"http://127.0.0.1:{wait_for_port(process)}")
    assert '"team-docs"' in done.stdout
    assert '"brunix"' in brunix("connect", "continue", "--url", served.url).stdout
    unreachable = brunix("connect", "continue", "--url", f"http://127.0.0.1:{free_port()}")
    assert (unreachable.returncode, '"brunix"' in unreachable.stdout) == (0, True)
    assert "Using the default model brunix. Could not ask" in unreachable.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["continu"], "continue"),
        (["Continue"], "continue"),
        (["nothing-like-it"], "`brunix connect` lists all"),
        (["continue", "--model", 'a"b'], "cannot be used in a configuration"),
        (["continue", "--model", "m", "--url", "http://host/$(id)"], "cannot be used in a configuration"),
    ],
)
def test_rejected(arguments: list[str], expected: str) -> None:
    """An unknown client gets a suggestion, and values that could break out of a configuration are rejected."""
    done = brunix("connect", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert expected in done.stderr
