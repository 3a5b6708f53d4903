"""What the gateway uses of Twisted that is private: listed, bounded, and looked for at the start."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import attrs
import pytest
from packaging.requirements import Requirement

import private_uses
from brunix_twisted.errors import StartError
from brunix_twisted.runtime.private_names import NAMES, PrivateName, check_private_names
from fake_reactor import LIMIT_S
from isolation import CLEAN
from paths import ROOT

NOT_OF_OTHER_PACKAGES = {
    "_channel",  # of a grpc release that has been tested; any other is used without it
    "_exit",  # os._exit, which is public
    "_log",  # the gateway's own logger; that Twisted's classes have one as well is no matter
    "_accept",  # the gateway's own method; in Twisted it is a function
}


def test_every_private_name_is_in_the_table() -> None:
    """A release that renames a private name is noticed at the start, whichever name it is."""
    used = private_uses.of_others() | private_uses.of_base_classes()
    # `due` is a public name of a private class.
    assert used - NOT_OF_OTHER_PACKAGES == {name.name for name in NAMES} - {"due"}


def test_the_installed_releases_have_them() -> None:
    """The gateway starts with the releases that it is tested with."""
    check_private_names()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            PrivateName("twisted", "twisted.web.http:HTTPChannel", "_gone", "to answer malformed requests"),
            (
                r"twistd brunix: twisted [0-9.]+ has no twisted\.web\.http\.HTTPChannel\._gone, which the gateway "
                r"needs to answer malformed requests\. Install a supported release: pip install 'twisted<27,>=26\.10'"
            ),
        ),
        (
            PrivateName("twisted", "twisted.web.http:Gone", "_buffer", ""),
            r".* has no twisted\.web\.http\.Gone\._",
        ),
        (PrivateName("twisted", "twisted.gone:Gone", "_buffer", ""), r".* has no twisted\.gone\.Gone\._buffer"),
        (PrivateName("twisted", "twisted.internet.task:react", "_gone", ""), r".*task\.react\._gone"),
    ],
    ids=["attribute", "class", "module", "parameter"],
)
def test_a_name_that_is_missing(name: PrivateName, told: str) -> None:
    """A missing name is reported with the installed release, what it is needed for, and what to install."""
    with pytest.raises(StartError, match=told):
        check_private_names([name])


# twistd, with a Twisted in which one of the names is called otherwise.
RENAMED = """
import sys
from twisted.internet.abstract import FileDescriptor

del FileDescriptor._writeDisconnected
for method in vars(FileDescriptor).copy().values():
    if "_writeDisconnected" in getattr(getattr(method, "__code__", None), "co_names", ()):
        delattr(FileDescriptor, method.__name__)
from twisted.scripts.twistd import run
run()
"""


@pytest.mark.parametrize(
    "arguments",
    [["brunix"], ["brunix", "--processes=2"], ["brunix", "--check"]],
    ids=["one process", "several", "check"],
)
def test_the_gateway_does_not_start(tmp_path: Path, arguments: list[str]) -> None:
    """With a release that lacks a name, the gateway ends with status 1 and one line, and ``--check`` says the same."""
    done = subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-c", RENAMED, "--nodaemon", "--pidfile=", *arguments],
        cwd=tmp_path,
        env=CLEAN | {"PROXY_LISTEN": "tcp:0:interface=127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 1
    (line,) = (done.stdout + done.stderr).splitlines()
    assert (
        " has no twisted.internet.tcp.Connection._writeDisconnected, which the gateway needs to send at once." in line
    )


def test_what_is_used_privately_has_an_upper_bound() -> None:
    """No release that the tests have not seen is installed by itself, and the locked ones are among those allowed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    requirements = {found.name: found.specifier for found in map(Requirement, project["dependencies"])}
    bounded = {name for name, allowed in requirements.items() if any(part.operator == "<" for part in allowed)}
    assert {name.package for name in NAMES} | {"klein"} <= bounded
    lock = (ROOT / "requirements.lock").read_text("utf-8")
    for name, version in re.findall(r"^([a-z0-9-]+)==(\S+)", lock, re.MULTILINE):
        if name in requirements:
            assert version in requirements[name]


def test_each_is_looked_for() -> None:
    """Of every entry of the table, a name that is not there is found to be missing."""
    for name in NAMES:
        assert name.exists()
        assert not attrs.evolve(name, name=f"{name.name}_renamed").exists()
