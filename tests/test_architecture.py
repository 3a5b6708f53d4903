"""The module map of docs/architecture.md: who may import whom."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "brunix_twisted"
PLUGIN = PACKAGE.parent / "twisted" / "plugins" / "brunix_plugin.py"

# A room's level; imports only go down. Rooms of one level do not import one another, but for those named below.
LEVELS = {
    "__main__": 6,
    "cli": 5,
    "tap": 5,
    "probe": 5,
    "processes": 5,
    "exporter": 5,
    "check": 5,
    "service": 5,
    "routes": 4,
    "completion": 4,
    "site": 4,
    "channel": 4,
    "notify": 4,
    "transport": 3,
    "bodies": 3,
    "health": 3,
    "producer": 3,
    "admission": 3,
    "logs": 3,
    "metrics": 3,
    "tracing": 3,
    "engine": 2,
    "listening": 2,
    "private_names": 2,
    "shutdown": 2,
    "dialects": 1,
    "sessions": 1,
    "answers": 1,
    "limits": 1,
    "heads": 1,
    "records": 1,
    "traceparent": 1,
    "page": 1,
    "model": 0,
    "errors": 0,
    "settings": 0,
    "reactors": 0,
    "background": 0,
    "spelling": 0,
    "variables": 1,
    "origins": 0,
    "hosts": 0,
    "certificates": 0,
    "connect": 0,
    "imports": 0,
}
BESIDE = {
    ("tap", "service"),
    ("tap", "processes"),
    ("tap", "check"),
    ("tap", "exporter"),
    ("exporter", "service"),
    ("check", "service"),
    ("processes", "service"),
    ("routes", "completion"),
    ("routes", "site"),
    ("completion", "site"),
    ("site", "channel"),
    ("listening", "shutdown"),
    ("private_names", "listening"),
    ("sessions", "answers"),
    ("records", "dialects"),
    ("settings", "origins"),
    ("settings", "hosts"),
    ("settings", "certificates"),
    ("settings", "spelling"),
}

# Who may import what is not ours, by the first part of its name. Everyone may import the standard library and attrs.
TWISTED = {
    "tap",
    "probe",
    "processes",
    "service",
    "check",
    "notify",
    "routes",
    "completion",
    "site",
    "channel",
    "producer",
    "admission",
    "bodies",
    "health",
    "exporter",
    "logs",
    "metrics",
    "tracing",
    "reactors",
    "listening",
    "shutdown",
    "engine",
    "transport",
}
OUTSIDE = {
    "twisted": TWISTED,
    "zope": {"logs", "producer", "processes"},
    "klein": {"routes"},
    "werkzeug": {"routes"},
    "grpc": {"engine", "embedded", "_pb"},
    "grpc_health": {"engine", "embedded"},
    "grpc_reflection": {"embedded"},
    "google": {"_pb"},
    "msgspec": {"dialects"},
    "prometheus_client": {"metrics"},
    "markdown_it": {"embedded"},
    "backports": {"dialects"},
    "opentelemetry": {"tracing"},
}

# What a pure room must not even take from the standard library: whatever waits, or answers differently each time.
IMPURE = {"asyncio", "os", "random", "secrets", "socket", "subprocess", "threading", "time", "uuid"}
PURE = {
    "connect",
    "dialects",
    "sessions",
    "answers",
    "limits",
    "heads",
    "records",
    "traceparent",
    "model",
    "errors",
    "origins",
    "hosts",
    "settings",
    "spelling",
    "variables",
}


def room_of(path: Path) -> str:
    """Name the room a file lies in: its module, or its folder."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """Go through everything a file imports, by full name."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports by a relative name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


FILES = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__init__.py" or path.parent != PACKAGE  # the package itself is only a name and a version
]


def test_every_room_has_a_level() -> None:
    """A new module would stand outside the map, and nothing would be said about what it imports."""
    assert {room_of(path) for path in FILES} == {*LEVELS, "embedded", "_pb"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports(path: Path) -> None:
    """A room would depend on one above it, or on a library that belongs to another."""
    wrong = [name for name in imports(path) if not is_allowed(room_of(path), name)]
    assert not wrong


def is_allowed(room: str, name: str) -> bool:
    """Say whether a room may import this."""
    first, _, rest = name.partition(".")
    if first in OUTSIDE:
        return room in OUTSIDE[first]
    if first in IMPURE:
        return room not in PURE
    if first != "brunix_twisted" or rest == "__version__":
        return True
    other = rest.partition(".")[0]
    if room == "embedded" or other in {"embedded", "_pb"}:
        # The embedded engine stands for one that is elsewhere: the two share the contract and nothing else.
        return other == room or (other == "_pb" and room in {"engine", "embedded"})
    return other == room or LEVELS[other] < LEVELS[room] or (room, other) in BESIDE


def test_nobody_reads_the_environment_but_the_command_lines() -> None:
    """A setting would be read where no option reaches it and no check sees it."""
    readers = {
        path.relative_to(PACKAGE).as_posix()
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv"}
    }
    # The engine's sets a default for grpc, and reads nothing; what OpenTelemetry reads is none of our settings.
    others = {"engine/__init__.py", "tracing.py"}
    assert readers == {"__main__.py", "tap.py", "probe.py", "embedded/__main__.py", "embedded/rendezvous.py"} | others


def test_plugin_names_tap_only() -> None:
    """``twistd --help`` would load the whole gateway, or fail where it cannot be loaded."""
    by_itself = "brunix_twisted.imports.without_collecting"
    assert list(imports(PLUGIN)) == ["twisted.application.service.ServiceMaker", by_itself]
    assert not [name for name in imports(PACKAGE / "imports.py") if name.startswith(("brunix_twisted", "twisted"))]


def test_no_package_marker_beside_the_plugin() -> None:
    """Installing the gateway would hide Twisted itself, or all of its plugins."""
    assert not (PLUGIN.parent / "__init__.py").exists()
    assert not (PLUGIN.parent.parent / "__init__.py").exists()
