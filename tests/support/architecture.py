"""The modules of the package, and the level of each folder."""

from __future__ import annotations

from pathlib import Path

from paths import ROOT

PACKAGE = ROOT / "brunix_twisted"


PLUGIN = PACKAGE.parent / "twisted" / "plugins" / "brunix_plugin.py"


# The level of each folder and of each module at the top. A module imports only what is on a lower level than its own,
# or in its own folder.
LEVELS = {
    "__main__": 10,
    "cli": 9,
    "tap": 9,
    "probe": 10,
    "processes": 8,
    "app": 7,
    "api": 6,
    "http": 5,
    "observability": 4,
    "engine": 3,
    "state": 3,
    "dialects": 2,
    "page": 2,
    "config": 1,
    "connect": 1,
    "runtime": 1,
    "limits": 1,
    "model": 0,
    "errors": 0,
}


def module_of(path: Path) -> str:
    """Return a module's path within the package, without its suffix: ``api/routes``; a folder for its ``__init__``."""
    return path.relative_to(PACKAGE).with_suffix("").as_posix().removesuffix("/__init__")


def room_of(path: Path) -> str:
    """Return the folder that a module is in, or its name if it is at the top."""
    return module_of(path).partition("/")[0]


FILES = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__init__.py" or path.parent != PACKAGE  # the package itself is only a name and a version
]
