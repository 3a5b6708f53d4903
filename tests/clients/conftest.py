"""Fixtures: the clients under test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import pytest
from providers import INSTALLED, Provider, provider

ROWS: Final = {"cut": "cuts", "refusal": "refusals"}
"""Arguments of tests that run for each row of a client's table."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test for each client, synchronous and asynchronous; ``CLIENTS`` in its module restricts them."""
    if "client" not in metafunc.fixturenames:
        return
    clients = [
        (f"{name}-{kind}", provider(name, asynchronous=kind == "async"))
        for name in getattr(metafunc.module, "CLIENTS", INSTALLED)
        for kind in ("sync", "async")
    ]
    for argument, attribute in ROWS.items():
        if argument in metafunc.fixturenames:
            table = [(f"{key}-{row.id}", client, row) for key, client in clients for row in getattr(client, attribute)]
            metafunc.parametrize(
                ("client", argument),
                [(client, row) for _, client, row in table],
                ids=[key for key, _, _ in table],
                indirect=["client"],
            )
            return
    metafunc.parametrize("client", [each for _, each in clients], ids=[key for key, _ in clients], indirect=True)


@pytest.fixture
async def client(request: pytest.FixtureRequest) -> AsyncIterator[Provider]:
    """Return a client of the table, and close it after the test."""
    yield request.param
    await request.param.close()
