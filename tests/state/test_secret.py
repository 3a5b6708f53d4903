"""The secret of the state: created once, shared by all, read by no other user."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from brunix_twisted.state import StateUnavailableError
from brunix_twisted.state.secret import digest_key, read_or_create_secret, read_secret, secret_path
from threads import Threads


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return secret_path(tmp_path / "folder" / "state.sqlite")


def test_created_once(path: Path) -> None:
    """Processes that start at the same time have one secret, and a restart has it too."""
    secrets: list[str] = []
    with Threads() as threads:
        for _ in range(10):
            threads.start(lambda: secrets.append(read_or_create_secret(path)))
    assert len(secrets) == 10
    assert {*secrets, read_or_create_secret(path)} == {path.read_text().strip()}
    assert len(secrets[0]) == 64
    # No draft is left.
    assert [each.name for each in path.parent.iterdir()] == ["state.sqlite.secret"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_an_operators_secret(path: Path) -> None:
    """An operator can write the file."""
    path.parent.mkdir()
    path.write_text(f"{32 * 'x'}\n")
    assert read_or_create_secret(path) == 32 * "x"


@pytest.mark.parametrize("content", ["", "short", 32 * "x y", 3000 * "x"])
def test_no_secret(path: Path, content: str) -> None:
    """A file without a secret is not overwritten, and its content is not shown."""
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(StateUnavailableError, match="contains no secret") as raised:
        read_or_create_secret(path)
    assert path.read_text() == content
    assert "x y" not in str(raised.value)


def test_not_readable(path: Path) -> None:
    """A secret that cannot be read or written is reported."""
    path.mkdir(parents=True)
    with pytest.raises(StateUnavailableError, match=r"cannot be read: Is a directory\. Let user \d+ read it"):
        read_secret(path)


def test_not_writable(tmp_path: Path) -> None:
    """A folder that is missing is reported."""
    path = tmp_path / "missing" / "folder" / "secret"
    with pytest.raises(
        StateUnavailableError, match=r"cannot be written: No such file or directory.*PROXY_STATE_SECRET"
    ):
        read_or_create_secret(path)


def test_keys_differ() -> None:
    """Another secret makes other digests."""
    key, other = digest_key(32 * "x"), digest_key(32 * "y")
    assert (len(key), len(other)) == (32, 32)
    assert key != other
