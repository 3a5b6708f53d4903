"""Opens the store that the settings select."""

from __future__ import annotations

import shutil
import tempfile
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Final, cast

import attrs
from twisted.logger import Logger

from brunix_twisted.config.rules import SettingError
from brunix_twisted.config.settings import Settings
from brunix_twisted.config.state_address import shown
from brunix_twisted.runtime.reactors import Reactor
from brunix_twisted.state import StateLimits, StateStore, StateUnavailableError
from brunix_twisted.state.memory import MemoryStore
from brunix_twisted.state.secret import new_secret, read_or_create_secret, secret_path
from brunix_twisted.state.sqlite import SqliteStore

_log: Final = Logger("brunix.gateway")

_PRIVATE_NAME: Final = "state.sqlite"


@attrs.frozen
class StateSetup:
    """What all processes of a gateway need to share their state."""

    secret: str = attrs.field(repr=False)
    private_folder: str | None = None
    """The folder of the private database of several processes; None if they do not need one."""

    def remove(self) -> None:
        """Remove the private folder. Call it when no process uses it."""
        if self.private_folder is not None:
            shutil.rmtree(self.private_folder, ignore_errors=True)


def set_up_state(settings: Settings) -> StateSetup:
    """
    Prepare the state for all processes of a gateway: read or create the secret, and create the private folder.

    Blocks for a moment. It never fails: what cannot be created is logged, and replaced by what lasts as long as the
    gateway runs.
    """
    secret, folder = settings.state_secret, None
    if secret is None and settings.state.kind == "sqlite":
        try:
            secret = read_or_create_secret(secret_path(Path(settings.state.path)))
        except StateUnavailableError as error:
            _log.warn("{error} Until then, a restart begins all conversations again.", error=error)
    if settings.state.kind == "auto" and settings.processes > 1:
        try:
            folder = tempfile.mkdtemp(prefix="brunix-state-")
        except OSError as error:
            _log.warn(
                "The processes do not share conversations, because no folder for their state can be created: {error}. "
                "Set PROXY_STATE=sqlite:PATH.",
                error=error,
            )
    return StateSetup(new_secret() if secret is None else secret, folder)


def check_state_package(settings: Settings) -> None:
    """
    Check that the package is installed that the store needs.

    :raises SettingError: it is not.
    """
    if settings.state.kind == "redis":
        try:
            _redis()
        except ImportError as error:
            allowed = (
                "memory: or sqlite:PATH; or Redis, if its package is installed: pip install 'brunix-twisted[redis]'"
            )
            raise SettingError("PROXY_STATE", shown(settings.state.url), allowed) from error


def _redis() -> ModuleType:
    # Its package is an optional dependency.
    return import_module("brunix_twisted.state.redis")


def limits_of_state(settings: Settings) -> StateLimits:
    """Return how much is kept, and for how long."""
    return StateLimits(
        max_sessions=settings.session_max,
        max_age_s=settings.session_max_age_s,
        max_bodies=settings.store_max,
        max_bytes=settings.store_max_bytes,
    )


def new_store(reactor: Reactor, settings: Settings, setup: StateSetup) -> StateStore:
    """
    Create the store that the settings select, and open nothing yet.

    The settings have passed :func:`check_state_package`.
    """
    state, limits = settings.state, limits_of_state(settings)
    if state.kind == "sqlite":
        return SqliteStore(reactor, Path(state.path), limits)
    if state.kind == "redis":
        return cast("StateStore", _redis().RedisStore(reactor, state.url, limits))
    if setup.private_folder is not None:
        return SqliteStore(reactor, Path(setup.private_folder) / _PRIVATE_NAME, limits, durable=False)
    return MemoryStore(reactor.seconds, limits)
