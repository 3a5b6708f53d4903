"""What these tests need of the machine: root, and programs from Debian's packages. Without them they are skipped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest

Need = Callable[..., None]


@pytest.fixture(scope="session")
def need_root() -> None:
    """Skip what only root can do."""
    if os.geteuid() != 0:
        pytest.skip("only root can do this: sudo make test-system")


@pytest.fixture(scope="session")
def need() -> Need:
    """Give a function that skips a test where a program is missing: its name or path, and Debian's package with it."""

    def need(program: str, package: str) -> None:
        if shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin") is None:
            pytest.skip(f"{program} is not there: apt-get install {package}")

    return need
