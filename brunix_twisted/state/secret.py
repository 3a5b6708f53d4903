"""The secret of the digests under which conversations are kept."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from secrets import token_hex
from typing import Final

from brunix_twisted.state import StateUnavailableError

_FORM: Final = re.compile(r"[!-~]{32,1024}")


def new_secret() -> str:
    """Return a random secret."""
    return token_hex(32)


def digest_key(secret: str) -> bytes:
    """Return the key of keyed digests: 32 bytes."""
    return blake2b(secret.encode("ascii"), digest_size=32, person=b"brunix state").digest()


def secret_path(database: Path) -> Path:
    """Return the path of the file with the secret of a state database."""
    return database.with_name(f"{database.name}.secret")


def read_secret(path: Path) -> str:
    """
    Return the secret in a file. Blocks.

    :raises FileNotFoundError: there is no such file.
    :raises StateUnavailableError: it cannot be read, or contains no secret.
    """
    try:
        with path.open("rb") as file:
            text = file.read(2048).decode("ascii", "replace").strip()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StateUnavailableError(
            f"The secret of the state, {path}, cannot be read: {error.strerror}. Let user {os.geteuid()} read it."
        ) from error
    if not _FORM.fullmatch(text):
        raise StateUnavailableError(
            f"{path} contains no secret. Write one into it, made with openssl rand -hex 32; or remove the file: a new "
            "one is created when the gateway starts, and conversations begin again."
        )
    return text


def read_or_create_secret(path: Path) -> str:
    """
    Return the secret in a file; create the file if it is missing, and its folder. Blocks.

    Several processes may call this at the same time: all return the same secret.

    :raises StateUnavailableError: it cannot be read or written, or contains no secret.
    """
    with suppress(FileNotFoundError):
        return read_secret(path)
    # Written under another name first, so that the file is never without its content.
    draft = path.with_name(f".{path.name}.{token_hex(8)}")
    try:
        with suppress(FileExistsError):
            path.parent.mkdir(mode=0o700)
        try:
            with open(draft, "x", opener=_private, encoding="ascii") as file:
                file.write(f"{new_secret()}\n")
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        return read_secret(path)
    except OSError as error:
        raise StateUnavailableError(
            f"The secret of the state, {path}, cannot be written: {error.strerror}. Let user {os.geteuid()} write its "
            f"folder, {path.parent}, or set PROXY_STATE_SECRET."
        ) from error


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
