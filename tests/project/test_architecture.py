"""The module map of docs/architecture.md: who may import whom."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from architecture import FILES, LEVELS, PACKAGE, PLUGIN, module_of, room_of

# Who may import other people's packages, by the first part of the package's name: a folder, or a module in one. Every
# module may import the standard library and attrs.
OUTSIDE = {
    "twisted": {"tap", "processes", "app", "api", "http", "observability", "runtime", "engine", "state"},
    "txredisapi": {"state/redis_connection"},
    "zope": {"api/streaming", "observability/logs", "processes/ipc"},
    "klein": {"api/router", "api/routes"},
    "werkzeug": {"api/routes"},
    "grpc": {"engine", "embedded", "_pb"},
    "grpc_health": {"engine", "embedded"},
    "grpc_reflection": {"embedded"},
    "google": {"_pb"},
    "h11": {"cli"},
    "msgspec": {"dialects"},
    "prometheus_client": {"observability/metrics"},
    "markdown_it": {"embedded"},
    "pypdf": {"embedded/pdf_files"},
    "backports": {"dialects"},
    "opentelemetry": {"observability/tracing", "observability/spans"},
}

EXCEPTIONS = {
    ("cli/commands", "app"),  # `brunix run` and `brunix health`, imported when they are used
    ("app/rendezvous", "embedded"),  # `brunix run` finds a port as the engine that it starts does
}

# Pure modules do not even import these from the standard library: what waits, or returns something else each time.
IMPURE = {"asyncio", "os", "random", "secrets", "socket", "subprocess", "threading", "time", "uuid"}
PURE = {
    "connect",
    "dialects",
    "limits",
    "model",
    "errors",
    "api/conversations",
    "api/session_ids",
    "api/side_requests",
    "state/memory",
    "http/syntax",
    "state/sqlite_schema",
    "observability/request_record",
    "observability/trace_context",
    "config/cors_origins",
    "config/allowed_hosts",
    "config/trusted_proxies",
    "config/settings",
    "config/rows",
    "config/rules",
    "config/redis_url",
    "config/addresses",
    "config/unknown_variables",
    "config/state_address",
}


def imports(path: Path) -> Iterator[str]:
    """Go through everything a file imports, by full name."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports by a relative name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_room_has_a_level() -> None:
    """Every folder, and every module at the top, has a level."""
    assert {room_of(path) for path in FILES} == {*LEVELS, "embedded", "_pb"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports(path: Path) -> None:
    """No module imports from above, nor a library that belongs to another module."""
    wrong = [name for name in imports(path) if not is_allowed(path, name)]
    assert not wrong


def is_allowed(path: Path, name: str) -> bool:  # noqa: PLR0911 - one rule after the other
    """Say whether a module may import this."""
    room, module = room_of(path), module_of(path)
    first, _, rest = name.partition(".")
    if first in OUTSIDE:
        return bool({room, module} & OUTSIDE[first])
    if first in IMPURE:
        return not {room, module} & PURE
    if first != "brunix_twisted" or rest == "__version__":
        return True
    other = rest.partition(".")[0]
    if (module, other) in EXCEPTIONS:
        return True
    if room == "embedded" or other in {"embedded", "_pb"}:
        # The embedded engine stands in for an engine elsewhere: they share the contract and nothing else.
        return other == room or (other == "_pb" and room in {"engine", "embedded"})
    if room == "cli":
        # A separate program: it runs on the client's machine and sees the gateway only over HTTP.
        return other in {room, "connect"}
    return other == room or LEVELS[other] < LEVELS[room]


def test_nobody_reads_the_environment_but_the_command_lines() -> None:
    """A setting would be read where no option reaches it and no check sees it."""
    readers = {
        module_of(path)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv"}
    }
    # The engine's sets a default for grpc, and reads nothing; what OpenTelemetry reads is none of our settings.
    others = {"engine", "observability/tracing"}
    assert readers == {"__main__", "tap", "probe", "embedded/__main__"} | others


def test_plugin_names_tap_only() -> None:
    """``twistd --help`` would load the whole gateway, or fail where it cannot be loaded."""
    by_itself = "brunix_twisted.runtime.imports.without_collecting"
    assert list(imports(PLUGIN)) == ["twisted.application.service.ServiceMaker", by_itself]
    assert not [
        name for name in imports(PACKAGE / "runtime" / "imports.py") if name.startswith(("brunix_twisted", "twisted"))
    ]


def test_no_package_marker_beside_the_plugin() -> None:
    """Installing the gateway would hide Twisted itself, or all of its plugins."""
    assert not (PLUGIN.parent / "__init__.py").exists()
    assert not (PLUGIN.parent.parent / "__init__.py").exists()


NAMESPACES = {"brunix.access", "brunix.engine", "brunix.gateway", "brunix.processes"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_log_namespaces(path: Path) -> None:
    """Moving code changes no operator's log: every logger names its namespace."""
    tree = ast.parse(path.read_text("utf-8"))
    loggers = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Logger"
    ]
    for call in loggers:
        named = call.args and ast.unparse(call.args[0]).strip("'\"")
        assert named in {*NAMESPACES, "_log.namespace"}
    # Twisted names a logger of a class after the class, whatever it was given.
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            assert not [each for each in node.body if getattr(each, "value", None) in loggers]
