"""A start that does not look for garbage where there is none, and a gateway that does so afterwards."""

from __future__ import annotations

import gc
import weakref

import pytest

from brunix_twisted.runtime.imports import without_collecting
from brunix_twisted.tap import Options
from twisted.plugins.brunix_plugin import brunix


class Node:
    """Refers to itself."""

    def __init__(self) -> None:
        self.itself = self


def is_collected() -> bool:
    """Whether what refers to itself, and to which nothing else refers, goes."""
    found = weakref.ref(Node())
    gc.collect()
    return gc.isenabled() and found() is None


def test_a_start_does_not_look_for_garbage() -> None:
    """Each start takes half as long again."""
    with without_collecting():
        assert not gc.isenabled()
    assert is_collected()


def test_the_gateways_memory_does_not_grow() -> None:
    """Nothing is collected for as long as the gateway runs."""
    frozen = gc.get_freeze_count()
    assert brunix.options is Options
    assert gc.get_freeze_count() > frozen
    assert is_collected()
    with pytest.raises(ImportError), without_collecting():
        raise ImportError
    assert is_collected()
