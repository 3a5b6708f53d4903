"""What an installation contains, and what it leaves of Twisted."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from paths import ROOT
from wheels import pip

OWN = {"brunix_twisted", "twisted", "brunix_twisted-0.1.0.dist-info"}


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A new environment that can import what this one can, but not the gateway."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)  # noqa: S603 - our own
    (site_packages,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    # A folder named in a .pth file is searched, but its own .pth files, an editable install among them, are not read.
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"), "utf-8")
    return tmp_path / "venv" / "bin" / "python"


def twistd_help(python: Path, folder: Path) -> str:
    """Ask twistd which services it knows, from a folder that is not the repository."""
    done = subprocess.run(  # noqa: S603 - our own
        [python, "-m", "twisted", "--help"], cwd=folder, capture_output=True, text=True, check=True
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout


def test_wheel_contents(wheel: Path) -> None:
    """An installation would lack a part of the gateway, or break Twisted's plugins."""
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.partition("/")[0] for name in names} == OWN
    assert {name for name in names if name.startswith("twisted/")} == {"twisted/plugins/brunix_plugin.py"}
    assert {
        "brunix_twisted/py.typed",
        "brunix_twisted/connect/clients.toml",
        "brunix_twisted/_pb/brunix_pb2.py",
        "brunix_twisted/_pb/brunix_pb2_grpc.pyi",
        "brunix_twisted/embedded/golden.jsonl",
        "brunix_twisted/embedded/lexicon/synonyms.txt",
    } <= names
    documents = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert documents == {Path(name).name for name in names if name.startswith("brunix_twisted/docs/")}


@pytest.mark.parametrize("editable", [False, True], ids=["plain", "editable"])
def test_install(wheel: Path, python: Path, tmp_path: Path, *, editable: bool) -> None:
    """``twistd brunix`` would be unknown after an install, or Twisted be broken after an uninstall."""
    if editable:
        pip(python, "install", "--no-deps", "--no-build-isolation", "--editable", ROOT)
    else:
        pip(python, "install", "--no-deps", wheel)
    assert "brunix" in twistd_help(python, tmp_path)
    told = subprocess.run(  # noqa: S603 - our own
        [python, "-m", "twisted", "brunix", "--help"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "--grpc-target" in told.stdout
    pip(python, "uninstall", "--yes", "brunix-twisted")
    assert "brunix" not in twistd_help(python, tmp_path)


@pytest.mark.parametrize("extra", ["", "tls", "otel", "redis", "documents"])
def test_lock(extra: str) -> None:
    """Everything that an operator may install is pinned, so that it is audited, with and without the extras."""
    locked = dict(re.findall(r"^([a-z0-9.-]+)==([^ ]+)", (ROOT / "requirements.lock").read_text("utf-8"), re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = project["optional-dependencies"][extra] if extra else project["dependencies"]
    for requirement in map(Requirement, wanted):
        release = locked.get(canonicalize_name(requirement.name), "0")
        assert release in requirement.specifier, f"{requirement}; run: make lock"
        for part in required_by(requirement):
            assert part in locked, f"{part}, of {requirement}; run: make lock"


def required_by(requirement: Requirement) -> set[str]:
    """List what the extras of a requirement, such as ``twisted[tls]``, need."""
    return {
        part.name.lower()
        for part in map(Requirement, requires(requirement.name) or ())
        for extra in requirement.extras
        if part.marker is not None and part.marker.evaluate({"extra": extra})
    }
