"""Which private names of other packages the gateway's code uses: found in the source, and in its classes."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Final

from paths import ROOT

PACKAGE: Final = ROOT / "brunix_twisted"
PRIVATE: Final = re.compile(r"_[A-Za-z][A-Za-z0-9_]*")
_OURS: Final = "brunix_twisted"
# Functions that take an attribute's name as a text.
_BY_NAME: Final = {"getattr", "hasattr", "setattr", "delattr", "attrgetter"}


def is_private(name: str) -> bool:
    return PRIVATE.fullmatch(name) is not None


def modules() -> Iterator[tuple[Path, ModuleType]]:
    """Import every module of the package that has something to do with other packages' objects."""
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE.parent)
        if "_pb" in relative.parts or path.name == "__main__.py":
            continue
        name = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
        yield path, importlib.import_module(name)


def _read_names(tree: ast.AST) -> set[str]:
    """Every private name that is read or set as an attribute, also by its text."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _BY_NAME:
            names |= {
                part.value for part in node.args if isinstance(part, ast.Constant) and isinstance(part.value, str)
            }
    return {name for name in names if is_private(name)}


def _defined_names(tree: ast.AST) -> set[str]:
    """Every private name that a module defines: in itself, in a class, or on self."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
    return {name for name in names if is_private(name)}


def _without_types(tree: ast.Module) -> ast.Module:
    """Leave out what is for type checkers alone."""

    class Cut(ast.NodeTransformer):
        def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
            if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
                return node.orelse
            return self.generic_visit(node)

    cut = Cut().visit(tree)
    assert isinstance(cut, ast.Module)
    return cut


def of_others() -> set[str]:
    """Names that no module of ours defines, and yet some module uses; private names that are imported; keywords."""
    found: set[str] = set()
    trees = {path: _without_types(ast.parse(path.read_text("utf-8"))) for path, _ in modules()}
    ours = set().union(*map(_defined_names, trees.values()))
    parameters = {node.arg for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.arg)}
    for path, tree in trees.items():
        found |= _read_names(tree) - ours
        lines = path.read_text("utf-8").splitlines()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and not (node.module or "").startswith(_OURS):
                found |= {alias.name for alias in node.names if is_private(alias.name)}
            elif isinstance(node, ast.Call):
                found |= {word.arg for word in node.keywords if word.arg and is_private(word.arg)} - parameters
            elif isinstance(node, ast.Attribute) and "SLF001" in lines[(node.end_lineno or 0) - 1]:
                # ruff has found that it is not the module's own.
                found |= set(filter(is_private, [node.attr]))
    return found


def of_base_classes() -> set[str]:
    """Names that a class of ours uses or overrides and another package's class, which it comes from, has as well."""
    found: set[str] = set()
    for _, module in modules():
        for kind in vars(module).values():
            if isinstance(kind, type) and kind.__module__ == module.__name__:
                found |= _shared_with_bases(kind)
    return found


def _shared_with_bases(kind: type) -> set[str]:
    own = [base for base in kind.__mro__ if base.__module__.startswith(_OURS)]
    foreign = [base for base in kind.__mro__ if not base.__module__.startswith(_OURS) and _has_source(base)]
    if not foreign:
        return set()
    used: set[str] = set()
    for base in own:
        tree = ast.parse(inspect.cleandoc("\n" + _source(base)))
        used |= _read_names(tree) | _defined_names(tree)
    sources = "\n".join(map(_source, foreign))
    return {name for name in used if re.search(rf"\b{name}\b", sources)}


def _source(kind: type) -> str:
    try:
        return inspect.getsource(kind)
    except OSError:
        # Made by a library at run time, so it has no lines of its own.
        return ""


def _has_source(kind: type) -> bool:
    module = sys.modules.get(kind.__module__)
    path = getattr(module, "__file__", None) or ""
    return "site-packages" in path and path.endswith(".py")
