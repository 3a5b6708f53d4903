"""Gateways as separate processes. The only module of these tests that imports from ``test_tap``."""

from __future__ import annotations

import attrs

from test_tap import free_port, twistd, wait_for_port

__all__ = ["Gateway", "free_port", "twistd", "wait_for_port"]


@attrs.frozen
class Gateway:
    """A running gateway."""

    port: int
    metrics: int = 0
    """The port of its metrics."""

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"
